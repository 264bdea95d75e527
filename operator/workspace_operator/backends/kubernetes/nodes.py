"""Whether the node of a pod still speaks for it. Used inside backends/kubernetes only.

A pod's status is what its kubelet said last. When the node dies the API server goes on to show the pod as Running, or
as Terminating for ever; both say nothing about its processes. Nodes are asked only about pods that look like that, so
that a listing costs no call per node.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from workspace_operator.api.reasons import Reason
from workspace_operator.backends.kubernetes import faults
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.kube.client import KubeClient, NotFound, Object, path

_OVERDUE = timedelta(seconds=10)  # after the end of its grace period a pod should be gone
_TERMINAL = ("Succeeded", "Failed")
_ADVICE = (
    "Nobody knows whether it still runs, so it is started nowhere else. If the machine is gone for good, delete its"
    " Node object, or taint it node.kubernetes.io/out-of-service=nodeshutdown:NoExecute."
)


class Nodes:
    """The nodes that were asked for during one look."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._known: dict[str, str | None] = {}

    async def problem_of(self, pod: Object) -> Failure | None:
        """Why nobody knows what the pod does; None when its node answers. Raises BackendUnreachable."""
        name = pod["spec"].get("nodeName")
        if not name or not _suspicious(pod):
            return None
        if name not in self._known:
            with faults.told(f"Looking at node {name}"):
                self._known[name] = await self._trouble(name)
        trouble = self._known[name]
        if trouble is None:
            return None
        return Failure(FailureClass.BACKEND, Reason.NODE_LOST, f"{trouble} {_ADVICE}")

    async def _trouble(self, name: str) -> str | None:
        try:
            node = await self._client.get(path("v1/nodes", None, name))
        except NotFound:
            return f"Node {name} does not exist any more; the cluster removes its pods within some minutes."
        conditions = (node.get("status") or {}).get("conditions") or ()
        ready: Object = next((each for each in conditions if each.get("type") == "Ready"), {})
        if ready.get("status") == "True":
            return None
        return f"Node {name} has not answered since {ready.get('lastTransitionTime', 'some time')}."


def _suspicious(pod: Object) -> bool:
    """Marked by the node controller, which takes Ready from the pods of a silent node and nothing else; or overdue."""
    status = pod.get("status") or {}
    if status.get("phase") == "Unknown":
        return True
    deleted = pod["metadata"].get("deletionTimestamp")
    if deleted and datetime.now(UTC) > datetime.fromisoformat(deleted) + _OVERDUE:
        return True
    if status.get("phase") in _TERMINAL:
        return False
    states = {each.get("type"): each.get("status") for each in status.get("conditions") or ()}
    return states.get("Ready") == "False" and states.get("ContainersReady") == "True"
