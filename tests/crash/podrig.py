"""Pods as the harness sees them, on a fake node of each lane's own cluster.

Kwok says that a pod runs, and lets it go on for a moment once it is deleted; nothing runs. The scheduler, the garbage
collector and all that binds and protects claims are real, and volumes are directories.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kubernetes.client import CoreV1Api, NetworkingV1Api
from tests.crash import seams
from tests.crash.rigs import IMAGE, Rig
from tests.support.fleet import Fleet, Object, until
from tests.support.podhistory import PodHistory, may_execute

from controlplane import volumes
from controlplane.cluster import LocalCluster
from controlplane.fakenodes import SELECTOR, TOLERATION, FakeNodes
from kubernetes import config
from workspace_operator.api import meta
from workspace_operator.backends.kubernetes.shape import pod_name
from workspace_operator.kube.owned import account_name

LINGERING = (0.05, 1.0)  # seconds: some deaths leave a pod that still ends, some do not
TOLD_WITHIN = 60.0  # seconds, for a watch of the API server to tell what a listing shows
PORT = 8080


@dataclass(frozen=True)
class _Ground:
    """The cluster of one lane."""

    core: CoreV1Api
    networking: NetworkingV1Api
    history: PodHistory

    def pods(self, uid: str) -> list[Object]:
        answer: Any = self.core.list_pod_for_all_namespaces(label_selector=_labelled(uid), _preload_content=False)
        return list(json.loads(answer.data)["items"])

    def alive(self, uid: str) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods(uid) if may_execute(pod)}

    def most_alive(self, uid: str) -> int:
        """By what the API server told a watch, once that has come to what a listing shows."""
        until(lambda: self.history.live(uid) == self.alive(uid), TOLD_WITHIN)
        return self.history.most_alive(uid)

    def beside(self, uid: str) -> dict[str, list[Any]]:
        """What the driver puts beside pods, by kind."""
        listings: dict[str, Any] = {
            "Secret": self.core.list_secret_for_all_namespaces,
            "NetworkPolicy": self.networking.list_network_policy_for_all_namespaces,
            "Service": self.core.list_service_for_all_namespaces,
            "PersistentVolumeClaim": self.core.list_persistent_volume_claim_for_all_namespaces,
        }
        return {kind: listing(label_selector=_labelled(uid)).items for kind, listing in listings.items()}

    def volumes(self, uid: str) -> list[str]:
        found: Any = self.core.list_persistent_volume()
        return [each.metadata.name for each in found.items if uid in each.spec.claim_ref.name]


class KubernetesRig(Rig):
    """Pods beside their Workspaces, which own them. The kubelet would bring the token, so there is none to renew."""

    name = "kubernetes"
    renews = False
    halts = False
    collects = True
    streams = frozenset({seams.PODS})
    _namespace: ClassVar[str | None] = None  # of all pods; None: that of the workspaces

    def __init__(self) -> None:
        self._grounds: dict[Path, _Ground] = {}
        self._open = ExitStack()

    def prepare(self, cluster: LocalCluster, lane: Path, workspaces: str) -> None:
        """Nodes, volumes, and a watch of all pods."""
        if lane in self._grounds:
            return
        FakeNodes(cluster, 1, lingering=LINGERING, say=lambda _: None).start()
        volumes.start(cluster, lane / "volumes")
        if self._namespace is not None:
            cluster.kubectl("create", "namespace", self._namespace)
        client = config.new_client_from_config(str(cluster.kubeconfig))
        history = self._open.enter_context(PodHistory(Fleet(cluster, self._namespace or workspaces)))
        self._grounds[lane] = _Ground(CoreV1Api(client), NetworkingV1Api(client), history)

    def class_spec(self, lane: Path, server: str) -> Object:
        block = {
            "nodeSelector": SELECTOR,
            "tolerations": [TOLERATION],
            "imagePullPolicy": "Never",
            "storageClassName": "shared",
            "storageSize": "1Mi",
        }
        if self._namespace is not None:
            block["namespace"] = self._namespace
        return {"kubernetes": block, "stopGracePeriod": "2s"}

    def workspace_spec(self) -> Object:
        return {"image": IMAGE, "agent": {"port": PORT, "probe": "None"}}

    def secrets_of(self, name: str, uid: str, incarnation: int) -> set[str]:
        return {pod_name(uid, incarnation)}

    def alive(self, uid: str) -> list[str]:
        return [pod for ground in self._of(uid) for pod in ground.alive(uid)]

    def most_alive(self, uid: str) -> int:
        return max(ground.most_alive(uid) for ground in self._of(uid))

    def compute(self, uid: str) -> list[str]:
        return [f"pod {pod['metadata']['name']}" for ground in self._of(uid) for pod in ground.pods(uid)]

    def lacks(self, uid: str) -> list[str]:
        """What was to stand beside the pod before it was let go."""
        found: list[str] = []
        for ground in self._of(uid):
            for pod in ground.pods(uid):
                found += self._lacking(ground.beside(uid), pod["metadata"]["uid"], uid)
        return found

    def left(self, uid: str, lane: Path) -> list[str]:
        """All but the Service, which goes with the Workspace and is asked about in the end."""
        found = self.compute(uid)
        for ground in self._of(uid):
            beside = ground.beside(uid)
            beside.pop("Service")
            found += [f"{kind} {each.metadata.name}" for kind, those in beside.items() for each in those]
            found += [f"volume {name}" for name in ground.volumes(uid)]
        return found

    def close(self) -> None:
        self._open.close()

    def _lacking(self, beside: dict[str, list[Any]], pod: str, workspace: str) -> Iterator[str]:
        owners = {"Secret": pod, "NetworkPolicy": pod}
        if self._namespace is None:
            owners["Service"] = workspace
        for kind, owner in owners.items():
            if not any(ref.uid == owner for each in beside[kind] for ref in each.metadata.owner_references):
                yield f"{kind} that it owns"
        if [claim.status.phase for claim in beside["PersistentVolumeClaim"]] != ["Bound"]:
            yield "bound claim"

    def _of(self, uid: str) -> list[_Ground]:
        """Where a workspace lives; all places for one that never had a pod."""
        grounds = list(self._grounds.values())
        return [ground for ground in grounds if ground.history.knows(uid)] or grounds


class KubernetesApartRig(KubernetesRig):
    """Pods in a namespace of their own: nothing of the Workspace can own them, and the token is delivered to them."""

    name = "kubernetes-apart"
    renews = True
    _namespace = "crash-pods"

    def secrets_of(self, name: str, uid: str, incarnation: int) -> set[str]:
        return {account_name(name), pod_name(uid, incarnation)}


def _labelled(uid: str) -> str:
    return f"{meta.LABEL_UID}={uid}"
