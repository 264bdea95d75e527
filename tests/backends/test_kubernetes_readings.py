"""How a pod is read, from what the API server shows of it: a table of statuses, and nodes that fell silent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.backends.kubernetes_kit import driver_of

from workspace_operator.api.reasons import Reason
from workspace_operator.backends.kubernetes import readings, shape
from workspace_operator.backends.protocol import Reading
from workspace_operator.kube.client import NotFound, Object


def pod(phase: str = "Pending", node: str | None = "node-1", **more: Any) -> Object:
    """A pod of ours; ``state`` is of its container, ``conditions`` are name → (status, reason, message)."""
    conditions = [
        {"type": kind, "status": status, "reason": reason, "message": message}
        for kind, (status, reason, message) in more.pop("conditions", {}).items()
    ]
    status: Object = {"phase": phase, "conditions": conditions, **more.pop("status", {})}
    if "state" in more:
        status["containerStatuses"] = [{"name": "workspace", "state": more.pop("state")}]
    spec: Object = {
        "containers": [{"name": "workspace"}],
        **({"nodeName": node} if node else {}),
        **more.pop("spec", {}),
    }
    return {"metadata": {"name": "wsp-u-1", "labels": {}, **more}, "spec": spec, "status": status}


def waiting(reason: str, message: str = "") -> Object:
    return pod(state={"waiting": {"reason": reason, "message": message}})


def ended(phase: str, code: int, reason: str = "Error", **status: Any) -> Object:
    return pod(phase, state={"terminated": {"exitCode": code, "reason": reason}}, status=status)


DELETED = {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}
RUNS = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
UNBOUND = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
TABLE = {
    "behind its gate": (pod(node=None, spec={"schedulingGates": [{"name": shape.GATE}]}), Reading.HALTED, None, ""),
    "not placed": (pod(node=None), Reading.STARTING, None, "placed"),
    "no node": (
        pod(
            node=None,
            conditions={"PodScheduled": ("False", "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")},
        ),
        *(Reading.STARTING, Reason.UNSCHEDULABLE, "Insufficient cpu"),
    ),
    "no volume": (
        pod(node=None, conditions={"PodScheduled": ("False", "Unschedulable", UNBOUND)}),
        *(Reading.STARTING, Reason.VOLUME_NOT_READY, "unbound"),
    ),
    "volumes": (pod(conditions={"PodReadyToStartContainers": ("False", "", "")}), Reading.STARTING, None, "volumes"),
    "pulling": (waiting("ContainerCreating"), Reading.STARTING, None, ""),
    "pull refused": (
        waiting("ErrImagePull", "unauthorized"),
        Reading.STARTING,
        Reason.IMAGE_PULL_FAILED,
        "imagePullSecrets",
    ),
    "pull waits": (
        waiting("ImagePullBackOff", "tag not found"),
        Reading.STARTING,
        Reason.IMAGE_PULL_FAILED,
        "spec.image",
    ),
    "never pulled": (waiting("ErrImageNeverPull"), Reading.STARTING, Reason.IMAGE_NOT_FOUND, "imagePullPolicy"),
    "no reference": (waiting("InvalidImageName"), Reading.STARTING, Reason.IMAGE_NOT_FOUND, "registry/name:tag"),
    "config": (waiting("CreateContainerConfigError", "no"), Reading.STARTING, Reason.PROVISION_FAILED, "kubelet"),
    "runs": (pod("Running", state=RUNS), Reading.RUNNING, None, ""),
    "told to stop": (pod("Running", state=RUNS, **DELETED), Reading.HALTING, None, ""),
    "preempted": (
        pod("Running", state=RUNS, conditions={"DisruptionTarget": ("True", "PreemptionByScheduler", "")}, **DELETED),
        *(Reading.HALTING, Reason.PREEMPTED, "priority"),
    ),
    "held": (
        ended("Failed", 1) | {"metadata": {"name": "x", "finalizers": ["other/one"], **DELETED}},
        *(Reading.HALTING, None, "other/one"),
    ),
    "done": (ended("Succeeded", 0, "Completed"), Reading.FAILED, Reason.INSTANCE_EXITED, ""),
    "ended, and its phase does not follow": (ended("Running", 1), Reading.FAILED, Reason.INSTANCE_EXITED, ""),
    "exit 127": (ended("Failed", 127), Reading.FAILED, Reason.INSTANCE_EXITED, "does not exist"),
    "no memory": (ended("Failed", 137, "OOMKilled"), Reading.FAILED, Reason.OUT_OF_MEMORY, "limit"),
    "no program": (ended("Failed", 128, "StartError"), Reading.FAILED, Reason.PROVISION_FAILED, "spec.command"),
    "evicted": (pod("Failed", status={"reason": "Evicted"}), Reading.FAILED, Reason.EVICTED, "evicted"),
    "evicted, not dead yet": (pod("Failed", state=RUNS, status={"reason": "Evicted"}), Reading.HALTING, None, ""),
    "not accepted": (
        pod("Failed", status={"reason": "OutOfcpu", "message": "Node didn't have enough resource"}),
        *(Reading.FAILED, Reason.PROVISION_FAILED, "enough resource"),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_each_status_of_a_pod_has_its_reading(name: str) -> None:
    """I-40: ends, failures and waits are told apart, and none is taken for absence."""
    found, reading, reason, words = TABLE[name]
    seen = readings.instance_of(found)
    assert (seen.reading, seen.reason) == (reading, reason)
    assert words in seen.message


def test_a_stopping_pod_says_since_when_it_is_stopping() -> None:
    seen = readings.instance_of(pod("Running", state=RUNS, **DELETED))
    assert seen.halting_since == datetime(2026, 1, 1, tzinfo=UTC)


class Kube:
    """An API server that knows some pods, and nodes by name: Ready or not."""

    def __init__(self, pods: list[Object], nodes: Mapping[str, str]) -> None:
        self._pods, self._nodes, self.asked = pods, nodes, list[str]()

    async def list(self, url: str, labels: str | None = None) -> AsyncIterator[Object]:
        for each in self._pods:
            yield each

    async def get(self, url: str) -> Object:
        name = url.rsplit("/", 1)[1]
        self.asked.append(name)
        if name not in self._nodes:
            raise NotFound(404, "no such node")
        return {"status": {"conditions": [{"type": "Ready", "status": self._nodes[name]}]}}


OVERDUE = {"deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 1}
LATER = {"deletionTimestamp": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "deletionGracePeriodSeconds": 3600}
MARKED = {"Ready": ("False", "", ""), "ContainersReady": ("True", "", "")}


@pytest.mark.parametrize(
    ("found", "ready", "lost"),
    [
        (pod("Running", state=RUNS), "Unknown", None),  # not marked: the node is not even asked
        (pod("Running", state=RUNS, conditions=MARKED), "True", False),
        (pod("Running", state=RUNS, conditions=MARKED), "Unknown", True),
        (pod("Running", state=RUNS, conditions=MARKED, **LATER), "False", True),
        (pod("Unknown", state=RUNS), "Unknown", True),
        (pod("Running", state=RUNS, **OVERDUE), "Unknown", True),
        (pod("Running", state=RUNS, **OVERDUE), "gone", True),
        (pod("Running", state=RUNS, **LATER), "Unknown", None),
        (pod("Failed", node="node-1", conditions=MARKED), "Unknown", None),
    ],
)
async def test_a_silent_node_makes_the_state_of_its_pods_unknown(found: Object, ready: str, lost: bool | None) -> None:
    """I-40: what a kubelet said last is no reading once it is silent; nodes are asked about suspicious pods only."""
    kube: Any = Kube([found, found], {} if ready == "gone" else {"node-1": ready})
    seen = await driver_of(kube).list_owned()
    assert len(kube.asked) == (0 if lost is None else 1), "once per node and listing"
    assert all((one.problem is not None) is bool(lost) for one in seen)
    if lost:
        assert seen[0].problem is not None and seen[0].problem.reason is Reason.NODE_LOST
        assert "delete its Node object" in seen[0].message
