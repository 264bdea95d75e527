# Every target sets up what it needs; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
export PYTHONPATH := operator:deploy/local:deploy/agent:.
WORKERS ?= 4  # pytest processes, each with parts of its own; most tests wait for something, so more than cores pay
READY := .venv/.ready-$(shell cat deploy/lock/dev.txt pyproject.toml 2>/dev/null | sha256sum | cut -c1-12)

##@ The two commands
demo: $(READY)  ## Run the whole product on this machine and watch it work
	@$(PY) -m demo

test: $(READY)  ## Run every test, on a real API server, a real Docker engine and a real node
	@$(PY) -m controlplane binaries --nodes --fake-nodes --helm
	@$(PY) -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

##@ Working on it
check: lint types generated test  ## All that CI runs

lint: $(READY)  ## ruff
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(READY)  ## mypy, strict
	$(PY) -m mypy operator/workspace_operator deploy/agent/reference_agent deploy/agent/image.py deploy/local/operatorimage.py deploy/local/controlplane deploy/local/demo deploy/monitoring

format: $(READY)  ## Format and fix
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

generate: $(READY)  ## Write crds/, the generated parts of READMEs, the dashboard, and what Argo CD is given
	$(PY) -m workspace_operator crds crds
	$(PY) -m workspace_operator readme README.md
	$(PY) -m deploy.monitoring
	$(PY) -m tests.gitops

generated: $(READY)  ## Fail when something generated is not current
	$(PY) -m workspace_operator crds --check crds
	$(PY) -m workspace_operator readme --check README.md
	$(PY) -m deploy.monitoring --check

test-crash: $(READY)  ## Kill the operator at every step it takes (ARGS="--backend=ec2")
	@$(PY) -m controlplane binaries --nodes --fake-nodes
	@CRASH=full $(PY) -m pytest -s tests/crash $(ARGS)

test-chaos: $(READY)  ## Faults everywhere for ten minutes (CHAOS_SECONDS, CHAOS_WORKSPACES, CHAOS_SEED)
	@$(PY) -m controlplane binaries
	@CHAOS_SECONDS=$${CHAOS_SECONDS:-600} CHAOS_WORKSPACES=$${CHAOS_WORKSPACES:-100} $(PY) -m pytest -s tests/chaos/test_chaos.py $(ARGS)

test-rbac: $(READY)  ## Take each of the operator's rights away in turn, and print what then fails
	@$(PY) -m controlplane binaries --helm
	@RBAC=full $(PY) -m pytest tests/deploy/test_rbac.py $(ARGS)

e2e: $(READY)  ## The operator installed in a local cluster, and its workspaces as pods (FLEET_WORKSPACES)
	@$(PY) -m controlplane binaries --nodes --fake-nodes --helm
	@FLEET_WORKSPACES=$${FLEET_WORKSPACES:-100} $(PY) -m pytest tests/e2e/test_in_cluster*.py tests/e2e/test_kubernetes*.py $(ARGS)

bench: $(READY)  ## Measure, each figure beside its baseline (ARGS="--quick --only latency")
	@$(PY) -m controlplane binaries
	@$(PY) -m tests.bench $(ARGS)

lock: $(READY)  ## Resolve the locked versions anew
	$(PY) -m uv pip compile pyproject.toml --group dev --group agent --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" -q -U -o deploy/lock/dev.txt
	$(PY) -m uv pip compile pyproject.toml --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" -q -c deploy/lock/dev.txt -o deploy/lock/runtime.txt

##@ A local cluster to play with
cluster: $(READY)  ## Start a control plane in .run/cluster with the CRDs applied (NODES=1, FAKE_NODES=100)
	@$(PY) -m controlplane start --nodes $(or $(NODES),0) --fake-nodes $(or $(FAKE_NODES),0)
	@$(PY) -m controlplane kubectl apply -f crds/ -f deploy/base/
ifneq ($(or $(NODES),0),0)
	@$(PY) deploy/agent/image.py --save .run/cluster-nodes/agent.tar
	@$(PY) -m controlplane load .run/cluster-nodes/agent.tar
endif

cluster-stop: $(READY)  ## Stop it and leave nothing behind
	@$(PY) -m controlplane stop

run: $(READY)  ## Run the operator in the foreground against $$KUBECONFIG, or the local cluster
	@PATH="$$PWD/.venv/bin:$$PATH" KUBECONFIG=$${KUBECONFIG:-.run/cluster/kubeconfig} $(PY) -m workspace_operator run --listen-port 0

image: $(READY)  ## Build the reference agent's image with the Docker engine
	@$(PY) deploy/agent/image.py $(ARGS)

operator-image: $(READY)  ## Build the operator's image from local files (deploy/Dockerfile needs a registry)
	@$(PY) deploy/local/operatorimage.py $(ARGS)

install: $(READY)  ## Make .venv with the locked versions

clean:  ## Remove .venv and caches
	rm -rf .venv .run build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

help:
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): deploy/lock/dev.txt pyproject.toml
	@bash deploy/local/bootstrap.sh
	@rm -f .venv/.ready-* && touch $@

.PHONY: demo test check lint types format generate generated test-crash test-chaos test-rbac e2e bench lock cluster cluster-stop run image operator-image install clean help
