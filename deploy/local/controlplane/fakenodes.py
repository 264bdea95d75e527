"""Gives a local cluster fake nodes: kwok says that they are Ready and that pods on them run, and nothing runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from controlplane import binaries
from controlplane.cluster import LocalCluster
from controlplane.kubectl import ClusterError
from controlplane.processes import Say, say, tail

_STAGES = Path(__file__).resolve().parent.parent / "kwok" / "stages.yaml"
# Both label and taint: a pod comes here only if it asks for the one and tolerates the other.
KEY, VALUE = "kwok.x-k8s.io/node", "fake"
SELECTOR = {KEY: VALUE}
TOLERATION = {"key": KEY, "value": VALUE, "effect": "NoSchedule"}
_READY_TIMEOUT = 120


class FakeNodes:
    """A number of fake nodes on one cluster, kept alive by one program that ends with the cluster.

    ``lingering``: from how many to how many seconds a pod goes on once it is deleted, by lot; by default it is gone at
    once.
    """

    def __init__(
        self, cluster: LocalCluster, count: int, *, lingering: tuple[float, float] | None = None, say: Say = say
    ) -> None:
        self.names = [f"fake-{number}" for number in range(1, count + 1)]
        self._cluster = cluster
        self._lingering = lingering
        self._say = say

    def start(self) -> None:
        """Return when all are Ready; those of an earlier call stay."""
        kwok = binaries.ensure_kwok(self._say)
        self._say(f"starting {len(self.names)} fake nodes")
        self._cluster.start_scheduler()
        self._cluster.start_addition("kwok", _command(kwok, self._stages(), self._cluster.kubeconfig))
        self._cluster.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(map(_node, self.names)))
        deadline = time.monotonic() + _READY_TIMEOUT
        while missing := set(self.names) - self._ready():
            self._cluster.check_addition("kwok")
            if time.monotonic() > deadline:
                log = tail(self._cluster.log("kwok"))
                raise ClusterError(f"{len(missing)} fake nodes not ready after {_READY_TIMEOUT} s; kwok's log:\n{log}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Remove all fake nodes; pods on them go a little later, when the controller manager finds their node gone."""
        self._cluster.kubectl("delete", "nodes", f"--selector={KEY}={VALUE}", timeout=_READY_TIMEOUT)
        self._cluster.stop_addition("kwok")

    def _stages(self) -> Path:
        if self._lingering is None:
            return _STAGES
        documents = list(yaml.safe_load_all(_STAGES.read_text()))
        (ending,) = (each for each in documents if each.get("metadata") == {"name": "pod-deletion"})
        least, most = (round(seconds * 1000) for seconds in self._lingering)
        ending["spec"]["delay"] = {"durationMilliseconds": least, "jitterDurationMilliseconds": most}
        slower = self._cluster.directory / "kwok.yaml"
        slower.write_text(yaml.safe_dump_all(documents))
        return slower

    def _ready(self) -> set[str]:
        """By one look at all; `kubectl wait` goes from one to the next and takes long."""
        listed = json.loads(self._cluster.kubectl("get", "nodes", f"--selector={KEY}={VALUE}", "-o=json"))["items"]
        ready = {"type": "Ready", "status": "True"}
        return {
            node["metadata"]["name"]
            for node in listed
            if any(ready.items() <= condition.items() for condition in node["status"].get("conditions", ()))
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _command(kwok: Path, stages: Path, kubeconfig: Path) -> list[str]:
    return [
        str(kwok),
        f"--config={stages}",
        f"--kubeconfig={kubeconfig}",
        f"--manage-nodes-with-label-selector={KEY}={VALUE}",
        # Addresses for pods; nothing has them.
        "--cidr=10.112.0.1/12",
        # Renewed every quarter of it: components.py gives a node 30 s.
        "--node-lease-duration-seconds=40",
    ]


def _node(name: str) -> dict[str, object]:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **SELECTOR}
    taints = [{"key": KEY, "value": VALUE, "effect": "NoSchedule"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
    }
