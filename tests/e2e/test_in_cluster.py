"""The operator in a cluster: installed with Helm, two pods under their own ServiceAccount, upgraded and removed.

One story in the order of the file, on a cluster of its own: what Helm removes at the end is not this session's.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from tests.support.fleet import Object, until, workspace, workspace_class
from tests.support.installed import PATIENCE, Installed, installed
from tests.support.operator import ROOT

from workspace_operator.kube.leader import LEASE_DURATION

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="a node needs root"),
]

VALUES: Object = {
    # Backend process writes here; each replica has a directory of its own, which ends with it.
    "extraVolumes": [{"name": "workspaces", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "workspaces", "mountPath": "/workspaces"}],
}
SLEEP = {"name": "sleep", "command": ["python", "-c", "import time; time.sleep(99999)"]}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, operator_archive: Path) -> Iterator[Installed]:
    with installed(tmp_path_factory.mktemp("in-cluster"), operator_archive, values=VALUES) as made:
        yield made


def test_two_replicas_run_and_one_leads(here: Installed) -> None:
    """As the least user there is, in a namespace that admits nothing more; the other is ready too."""
    notes = here.install()
    assert "kubectl -n workspace-operator-system rollout status" in notes
    pods = here.pods()
    assert len(pods) == 2
    assert {pod["spec"]["serviceAccountName"] for pod in pods.values()} == {"workspace-operator"}
    leader = until(here.leader, PATIENCE, here.explain)
    assert leader in pods
    look = "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/tmp', os.W_OK))"
    assert here.kubectl("exec", leader, "--", "python", "-c", look) == "65532 False True\n"


def test_it_does_what_it_is_for(here: Installed) -> None:
    """A workspace of backend process comes up inside the leader's pod, although no name resolves in this cluster."""
    spec = {"directory": "/workspaces", "images": [SLEEP]}
    here.fleet.apply(workspace_class("process", process=spec, stopGracePeriod="3s"))
    here.fleet.apply(workspace("sleeper", image="sleep", className="process"))
    until(lambda: here.fleet.phase("sleeper") == "Running", PATIENCE, here.explain)
    here.fleet.wait_ready("sleeper", seconds=PATIENCE)
    assert "True" in here.cluster.kubectl("get", "wsc", "process")
    assert "orbidden" not in here.kubectl("logs", here.leader())


def test_the_other_takes_over_when_the_leader_is_deleted(here: Installed) -> None:
    """And a third comes; the process that went with its pod is provisioned again."""
    first = here.leader()
    incarnation = here.fleet.status("sleeper")["incarnation"]
    here.kubectl("delete", "pod", first, "--wait=false")
    until(lambda: here.leader() not in ("", first), PATIENCE, here.explain)
    here.kubectl("rollout", "status", "deployment/workspace-operator", f"--timeout={PATIENCE}s", timeout=PATIENCE + 10)
    until(lambda: here.fleet.status("sleeper")["incarnation"] > incarnation, PATIENCE, here.explain)
    here.fleet.wait_ready("sleeper", seconds=PATIENCE)
    assert len(here.pods()) == 2


def test_an_upgrade_leaves_no_gap_in_the_lead(here: Installed) -> None:
    """By the Lease's own times: nobody had to wait for it to run out."""
    before = set(here.pods())
    with here.recorded() as states:
        here.install(**{"settings.logLevel": "DEBUG"})
        until(lambda: here.leader() not in ("", *before), PATIENCE, here.explain)
    assert not before & set(here.pods())
    takeovers = 0
    for earlier, later in itertools.pairwise(states):
        gap = time_of(later, "renewTime") - time_of(earlier, "renewTime")
        assert gap < LEASE_DURATION, states
        if later["leaseTransitions"] > earlier.get("leaseTransitions", 0):
            takeovers += 1
            assert earlier["holderIdentity"] == "", "it was given back, and not left to run out"
    assert takeovers >= 1
    here.fleet.wait_ready("sleeper", seconds=PATIENCE)


def time_of(lease: Object, field: str) -> float:
    return datetime.fromisoformat(lease[field]).timestamp()


def test_an_uninstall_leaves_definitions_and_workspaces(here: Installed) -> None:
    """And says so; installed again, the operator goes on with them."""
    said = here.uninstall()
    assert "kept due to the resource policy" in said
    for plural in ("delegations", "workspaces", "workspaceclasses"):
        assert f"{plural}.workspace-operator.dev" in said
    assert here.kubectl("get", "deployments,services,serviceaccounts", "-o=name").split() == ["serviceaccount/default"]
    assert "workspace-operator" not in here.cluster.kubectl("get", "clusterroles,clusterrolebindings", "-o=name")
    assert here.fleet.get("sleeper")["metadata"]["finalizers"]
    here.install()
    here.fleet.delete("sleeper", seconds=PATIENCE)


def test_kustomize_takes_over_from_helm(here: Installed) -> None:
    """`kubectl apply -k deploy/overlays/local`: one replica, which leads."""
    here.uninstall()
    here.cluster.kubectl("apply", "-k", str(ROOT / "deploy" / "overlays" / "local"))
    here.kubectl("rollout", "status", "deployment/workspace-operator", f"--timeout={PATIENCE}s", timeout=PATIENCE + 10)
    (pod,) = here.pods()
    until(lambda: here.leader() == pod, PATIENCE, here.explain)
    here.fleet.apply(workspace_class("elsewhere", docker={"host": "tcp://127.0.0.1:2376"}))
    until(lambda: "Unreachable" in here.cluster.kubectl("get", "wsc", "elsewhere"), PATIENCE, here.explain)
