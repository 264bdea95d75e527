"""A fleet of pods under an operator that is a pod: the examples as they are, a task, a pause, an orphan, an upgrade
while everything changes, and the way out.

One story in the order of the file, on a cluster of its own. No name resolves in it and no NetworkPolicy is enforced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.delegations import Tasks
from tests.support.fleet import Object, until, workspace
from tests.support.helm import NAMESPACE
from tests.support.installed import PATIENCE, Installed, installed
from tests.support.kubernetes import EXAMPLE, Pods
from tests.support.operator import ROOT, uninstall
from tests.support.podhistory import PodHistory, may_execute
from tests.support.pods import AGENT, pod

from controlplane.fakenodes import SELECTOR, TOLERATION, FakeNodes
from workspace_operator.api import meta

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="a node needs root"),
]
EXAMPLES = ROOT / "deploy" / "examples"
CLASS = "kubernetes"
CROWD = int(os.environ.get("FLEET_WORKSPACES", "100"))
#: Of the crowd, on the real node: their pods take a second to end.
REAL = 3
LINGER = [
    *("python", "-S", "-c"),
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit())); signal.pause()",
]
OFTEN = {"interval": "5s", "gracePeriod": "3s"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, operator_archive: Path, agent_archive: Path) -> Iterator[Installed]:
    with installed(tmp_path_factory.mktemp("fleet"), operator_archive, agent_archive) as made:
        yield made


@pytest.fixture(scope="module")
def pods(here: Installed) -> Pods:
    return Pods(here.fleet)


def example(name: str, **spec: Any) -> Object:
    """A manifest that we hand out; the workspaces name a class of another backend, or none."""
    made: Object = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    made["spec"] |= spec
    return made


def test_the_examples_become_ready(here: Installed, pods: Pods) -> None:
    """The class exactly as it is handed out, in a namespace that enforces the restricted standard; agents on another
    node of the network than the operator answer it at their pods' addresses (I-50)."""
    here.install()
    here.cluster.kubectl("apply", "-f", str(EXAMPLE))
    family = ("planner", "researcher", "writer")
    here.fleet.apply(*(example(f"workspace-{name}", className=CLASS) for name in family))
    keeper = workspace("keeper", className=CLASS, command=LINGER, storage={"mountPath": "/data"})
    here.fleet.apply(keeper)
    told = here.fleet.kubectl(
        "wait", "--for=condition=Ready", "workspaces", "--all", f"--timeout={PATIENCE}s", timeout=200
    )
    assert told.count("condition met") == 4
    for name in family:
        found = pods.only(name)
        assert here.fleet.status(name)["endpoint"] == f"http://{found['status']['podIP']}:8080"
        assert found["spec"]["serviceAccountName"] == f"workspace-{name}"
        assert "credentials" not in here.fleet.status(name), "the kubelet brings the token"
    policy = json.loads(here.fleet.kubectl("get", "networkpolicy", pods.only("planner")["metadata"]["name"], "-o=json"))
    (admitted,) = policy["spec"]["ingress"][0]["from"]
    assert admitted == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}}


def test_a_task_goes_through_three_agents(here: Installed) -> None:
    """The operator's pod speaks to the agents' pods; two delegate on with the token that the kubelet brought."""
    here.fleet.kubectl("apply", "-f", str(EXAMPLES / "delegation-chain.yaml"))
    status = Tasks(here.fleet).wait_phase("chain", "Completed", seconds=PATIENCE)
    assert status["result"]["preview"] == "planner: researcher: writer: a haiku about leases"
    assert "orbidden" not in here.kubectl("logs", here.leader())


def test_a_pause_keeps_the_data_and_nothing_that_runs(here: Installed, pods: Pods) -> None:
    """With its child, which comes back with it (I-01, I-12)."""
    pods.python("researcher", "open('/data/note', 'w').write('kept')")
    uid = here.fleet.get("researcher")["metadata"]["uid"]
    here.fleet.desire("researcher", "Paused")
    for name in ("researcher", "writer"):
        here.fleet.wait_phase(name, "Paused", seconds=PATIENCE)
        assert pods.of(name) == []
        assert (here.fleet.condition(name, "StopConfirmed") or {})["status"] == "True"
    assert f"persistentvolumeclaim/wsp-{uid}-data" in pods.left()
    here.fleet.desire("researcher", "Running")
    here.fleet.wait_ready("researcher", "writer", seconds=PATIENCE)
    assert pods.python("researcher", "print(open('/data/note').read())") == "kept\n"


def test_an_orphan_goes_and_a_stranger_stays(here: Installed, pods: Pods) -> None:
    """A running pod with all the labels of a workspace that is no more; the same of another cluster is not touched
    (I-15, I-16)."""
    here.cluster.kubectl("patch", "workspaceclass", CLASS, "--type=merge", "-p", json.dumps({"spec": {"sweep": OFTEN}}))
    labels = pods.only("planner")["metadata"]["labels"] | {meta.LABEL_UID: "00000000-dead-4000-8000-000000000000"}
    orphan, stranger = (pod(name, AGENT, {"command": LINGER}) for name in ("orphan", "stranger"))
    orphan["metadata"]["labels"] = labels
    stranger["metadata"]["labels"] = labels | {meta.LABEL_CLUSTER: "another"}
    here.fleet.apply(stranger, orphan)
    here.fleet.kubectl("wait", "--for=delete", "pod/orphan", f"--timeout={PATIENCE}s", timeout=PATIENCE + 10)

    def removed() -> bool:
        found = json.loads(here.cluster.kubectl("get", "workspaceclass", CLASS, "-o=json"))
        return bool(found["status"].get("sweep", {}).get("removed") == 1)

    until(removed, PATIENCE, here.explain)
    here.fleet.kubectl("delete", "pod", "stranger")  # it was there
    here.fleet.wait_ready("planner", "researcher", "writer", "keeper", seconds=10)


class Crowd:
    """Many workspaces whose wishes change all the time."""

    def __init__(self, here: Installed) -> None:
        self._here = here
        self.names = [f"w{number}" for number in range(CROWD)]
        self.wave = 1

    def wish(self, number: int, wave: int) -> Object:
        """Odd waves pause all but a quarter, even ones wake them; in each another third is restarted."""
        paused = wave % 2 == 1 and number % 4 != 0
        token = f"restart-{wave - (number + wave) % 3}"
        where = {"className": CLASS, "command": LINGER} if number < REAL else {"className": "crowd"}
        state = "Paused" if paused else "Running"
        return workspace(self.names[number], **where, desiredState=state, restartToken=token)

    def change(self) -> None:
        """The next wave: all wishes in one go."""
        self.wave += 1
        self._here.fleet.apply(*(self.wish(number, self.wave) for number in range(CROWD)))

    def astray(self) -> list[str]:
        """Who is not yet where it was wished, and does not say so of its newest wish."""
        found = {each["metadata"]["name"]: each for each in self._here.fleet.all()}
        return [name for name in self.names if not is_there(found[name])]


def is_there(found: Object) -> bool:
    """Ready and in the wished phase, as observed of the newest generation; a restart while paused is due later."""
    spec, status = found["spec"], found.get("status", {})
    ready: Object = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
    return bool(
        status.get("phase") == spec["desiredState"]
        and ready.get("status") == "True"
        and ready.get("observedGeneration") == found["metadata"]["generation"]
        and (status.get("restartToken") == spec["restartToken"] or spec["desiredState"] == "Paused")
    )


def test_an_upgrade_while_a_crowd_changes(here: Installed) -> None:
    """The Deployment rolls while each workspace is paused, woken and restarted: each arrives where it was wished last,
    none ever has two pods that may execute, and no pod is left over (I-06, I-07, I-09, I-11)."""
    with FakeNodes(here.cluster, 2, say=lambda text: None), PodHistory(here.fleet) as history:
        crowd = Crowd(here)
        here.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(crowd_class()))
        crowd.change()
        until(lambda: not crowd.astray(), PATIENCE, lambda: f"{crowd.astray()}\n{here.explain()}")
        before = set(here.pods())
        with ThreadPoolExecutor(1) as pool:
            upgrade = pool.submit(here.install, **{"settings.logLevel": "DEBUG"})
            while not upgrade.done():
                crowd.change()
            upgrade.result()
        assert crowd.wave >= 3
        until(lambda: here.leader() not in ("", *before), PATIENCE, here.explain)
        crowd.change()
        if crowd.wave % 2 == 0:
            crowd.change()  # some are left paused
        until(lambda: not crowd.astray(), PATIENCE, lambda: f"{crowd.astray()}\n{here.explain()}")
        settled(here, crowd, history)


def crowd_class() -> Object:
    """The example's class on fake nodes, and eager."""
    made: Object = yaml.safe_load(EXAMPLE.read_text())
    made["metadata"]["name"] = "crowd"
    made["spec"]["kubernetes"] |= {"nodeSelector": SELECTOR, "tolerations": [TOLERATION]}
    made["spec"] |= {"limits": {"concurrentStarts": 50, "startsPerMinute": 6000}}
    return made


def settled(here: Installed, crowd: Crowd, history: PodHistory) -> None:
    """Exactly the pods that are wished are there, and the history shows no moment with more."""
    listed = json.loads(here.fleet.kubectl("get", "pods", "-l", f"{meta.LABEL_ROLE}=instance", "-o=json"))["items"]
    owned: dict[str, int] = {}
    for each in listed:
        assert may_execute(each) and "deletionTimestamp" not in each["metadata"], each["metadata"]
        name = each["metadata"]["labels"][meta.LABEL_NAME]
        owned[name] = owned.get(name, 0) + 1
    wished = {each["metadata"]["name"] for each in here.fleet.all() if each["spec"]["desiredState"] == "Running"}
    assert owned == dict.fromkeys(wished, 1)
    assert wished < {*crowd.names, "planner", "researcher", "writer", "keeper"}, "some are paused"
    until(lambda: history.reaches(listed), 30)
    assert history.doubles() == []
    lives = history.lives()
    assert all(lives[name] >= 2 for name in crowd.names[::4]), "those that are not paused are restarted"


def test_the_way_out(here: Installed, pods: Pods) -> None:
    """Compute is released before the finalizers go; retained data stays, and with the CRDs gone nothing holds the
    namespace back (I-10, I-87)."""
    keeper = here.fleet.get("keeper")["metadata"]["uid"]
    done = uninstall(here.cluster, "--compute", "release", "--yes", timeout=PATIENCE)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{here.explain()}"
    assert not here.fleet.all()
    until(lambda: pods.left() == [f"persistentvolumeclaim/wsp-{keeper}-data"], 60, lambda: str(pods.left()))
    here.uninstall()
    here.cluster.kubectl("delete", "-f", str(ROOT / "crds"), "--timeout=60s", timeout=70)
    here.cluster.kubectl("delete", "namespace", here.fleet.namespace, "--timeout=60s", timeout=70)
