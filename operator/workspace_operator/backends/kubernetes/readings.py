"""What the API server shows of a pod, read as an Instance. Used inside backends/kubernetes only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from workspace_operator.api import meta
from workspace_operator.api.reasons import Reason
from workspace_operator.backends import labels
from workspace_operator.backends.kubernetes import shape
from workspace_operator.backends.protocol import Instance, Reading
from workspace_operator.errors import Failure
from workspace_operator.kube.client import Object

_LONGEST = 300  # characters of the scheduler's or the kubelet's own words
_TERMINAL = ("Succeeded", "Failed")
_KILLED = 137  # 128 + SIGKILL


@dataclass(frozen=True)
class State:
    """What one pod is seen to do, and why."""

    reading: Reading
    message: str = ""
    reason: Reason | None = None


_IMAGE: Final = {
    "InvalidImageName": (Reason.IMAGE_NOT_FOUND, "spec.image is not a valid reference; write it as registry/name:tag."),
    "ErrImageNeverPull": (
        Reason.IMAGE_NOT_FOUND,
        "The node does not have the image, and the class never pulls; load it into the nodes, or set"
        " kubernetes.imagePullPolicy to IfNotPresent.",
    ),
    "ErrImagePull": (Reason.IMAGE_PULL_FAILED, "The image could not be pulled"),
    "ImagePullBackOff": (Reason.IMAGE_PULL_FAILED, "The image could not be pulled"),
    "RegistryUnavailable": (Reason.IMAGE_PULL_FAILED, "The image could not be pulled"),
    "ImageInspectError": (Reason.IMAGE_PULL_FAILED, "The image on the node cannot be read"),
    "SignatureValidationFailed": (Reason.IMAGE_PULL_FAILED, "The image's signature is not accepted"),
}
_PULL_HINTS = (
    ("unauthorized|authentication|denied|forbidden", "check kubernetes.imagePullSecrets of the class"),
    ("not found|manifest unknown|does not exist", "check the name and tag in spec.image"),
    ("no such host|dial tcp|timeout|refused|i/o", "the node cannot reach the registry; it is tried again"),
    ("x509|certificate|http response to https", "the node does not trust the registry's certificate"),
    ("no space left", "the node's disk is full"),
    ("toomanyrequests|rate limit", "the registry's rate limit is reached; it is tried again"),
)
_CREATE: Final = {
    "CreateContainerConfigError": "The kubelet cannot set the container up",
    "CreateContainerError": "The kubelet cannot create the container",
    "RunContainerError": "The kubelet cannot start the container; check spec.command",
    "PostStartHookError": "The kubelet cannot start the container",
}
_ENDED: Final = {
    "Evicted": (Reason.EVICTED, "The node was short of resources and evicted it."),
    "Preempting": (Reason.PREEMPTED, "The kubelet made room for a critical pod."),
    "Terminated": (Reason.EVICTED, "The node shut down."),
    "NodeShutdown": (Reason.EVICTED, "The node shut down."),
    "NodeAffinity": (Reason.UNSCHEDULABLE, "The node refused it: its labels no longer match kubernetes.nodeSelector."),
    "DeadlineExceeded": (None, "Somebody set a deadline on the pod, and it is over."),
}
_DISRUPTED: Final = {
    "PreemptionByScheduler": (Reason.PREEMPTED, "It is making room for a pod of higher priority."),
    "DeletionByTaintManager": (Reason.EVICTED, "Its node got a taint that kubernetes.tolerations does not tolerate."),
    "EvictionByEvictionAPI": (Reason.EVICTED, "Somebody evicted it, e.g. to drain its node."),
    "DeletionByPodGC": (Reason.NODE_LOST, "Its node is gone."),
    "TerminationByKubelet": (Reason.EVICTED, "Its node ended it, to shut down or for lack of resources."),
}
_EXITS: Final = {
    126: "The command is probably not executable in the image.",
    127: "The command probably does not exist in the image.",
}


def instance_of(pod: Object, problem: Failure | None = None) -> Instance:
    """The pod as an Instance; ``problem`` says why its state cannot be told."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    found: dict[str, str] = metadata.get("labels") or {}
    state = read(pod)
    return Instance(
        ref=labels.owner(found),
        incarnation=incarnation_of(pod),
        reading=state.reading,
        id=metadata["name"],
        parameters=found.get(meta.LABEL_PARAMETERS, ""),
        address=_address(pod) if state.reading is Reading.RUNNING else None,
        node=pod["spec"].get("nodeName"),
        image_digest=_container(status).get("imageID") or None,
        exit_code=_ended(status).get("exitCode"),
        message=problem.message if problem is not None else state.message,
        reason=state.reason,
        problem=problem,
        halting_since=_told_to_stop(pod),
    )


def incarnation_of(pod: Object) -> int:
    """The incarnation of a pod; zero for a spoilt label."""
    return labels.incarnation(pod["metadata"].get("labels") or {})


def is_gated(pod: Object) -> bool:
    """Created and not started."""
    return any(gate.get("name") == shape.GATE for gate in pod["spec"].get("schedulingGates") or ())


def read(pod: Object) -> State:
    """One reading per pod. A pod whose object is being deleted may execute until it is gone, whatever its phase."""
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return _leaving(pod, status)
    if is_gated(pod):
        return State(Reading.HALTED, "It is created and not started yet.")
    container = _container(status)
    running = "running" in (container.get("state") or {})
    if status.get("phase") in _TERMINAL:
        # A kubelet that evicts may say so before the processes have ended.
        return State(Reading.HALTING, "The node is ending it.") if running else _over(status)
    if _ended(status):
        # Its phase follows; not when its node dies that moment, or while a container that a webhook added goes on.
        return _over(status)
    if running or status.get("phase") == "Running":
        return State(Reading.RUNNING)
    return _waiting(pod, status, container)


def _waiting(pod: Object, status: Object, container: Object) -> State:
    """Not executing yet, and what for."""
    placed = _condition(status, "PodScheduled")
    if not pod["spec"].get("nodeName"):
        said = str(placed.get("message") or "")
        if "persistentvolumeclaim" in said.lower():
            return State(Reading.STARTING, f"Its volume is not there: {_cut(said)}", Reason.VOLUME_NOT_READY)
        if placed.get("reason") in ("Unschedulable", "SchedulerError"):
            return State(Reading.STARTING, f"No node can take it: {_cut(said)}", Reason.UNSCHEDULABLE)
        return State(Reading.STARTING, "It waits to be placed on a node.")
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, said = str(waiting.get("reason", "")), str(waiting.get("message") or "")
    if reason in _IMAGE:
        found, text = _IMAGE[reason]
        return State(Reading.STARTING, text if text.endswith(".") else f"{text}: {_hint(said)}.", found)
    if reason in _CREATE:
        return State(Reading.STARTING, f"{_CREATE[reason]}: {_cut(said)}", Reason.PROVISION_FAILED)
    mounted = _condition(status, "PodReadyToStartContainers")
    if mounted.get("status") == "False":
        return State(Reading.STARTING, "Its node prepares volumes and network for it.")
    return State(Reading.STARTING, "Its node pulls the image or starts the container.")


def _over(status: Object) -> State:
    """It can never run again, so it must be released."""
    reason, message = _ENDED.get(str(status.get("reason", "")), (None, ""))
    if reason is None:
        reason, message = _disruption(status) or (None, message)
    ended = _ended(status)
    if not ended:
        text = message or f"The node did not accept it: {_cut(status.get('message'))}"
        return State(Reading.FAILED, text, reason or Reason.PROVISION_FAILED)
    if ended.get("reason") == "OOMKilled":
        return State(Reading.FAILED, "Killed for using more memory than its limit.", Reason.OUT_OF_MEMORY)
    if ended.get("reason") in ("StartError", "ContainerCannotRun"):
        text = "The container could not be started: check spec.command and the image's entry point."
        return State(Reading.FAILED, text, Reason.PROVISION_FAILED)
    text = message or _EXITS.get(ended.get("exitCode", 0), "")
    return State(Reading.FAILED, text, reason or Reason.INSTANCE_EXITED)


def _leaving(pod: Object, status: Object) -> State:
    why = _disruption(status)
    if status.get("phase") in _TERMINAL and pod["metadata"].get("finalizers"):
        names = ", ".join(pod["metadata"]["finalizers"])
        return State(Reading.HALTING, f"It has ended; its object is held by the finalizers {names}.")
    return State(Reading.HALTING, *((why[1], why[0]) if why is not None else ()))


def _disruption(status: Object) -> tuple[Reason, str] | None:
    target = _condition(status, "DisruptionTarget")
    return _DISRUPTED.get(str(target.get("reason", ""))) if target.get("status") == "True" else None


def _told_to_stop(pod: Object) -> datetime | None:
    """The time of deletion is that of the request plus the grace period."""
    deleted = pod["metadata"].get("deletionTimestamp")
    if not deleted:
        return None
    grace = timedelta(seconds=int(pod["metadata"].get("deletionGracePeriodSeconds") or 0))
    return datetime.fromisoformat(deleted) - grace


def _address(pod: Object) -> str | None:
    host = (pod.get("status") or {}).get("podIP")
    ports = [port for each in pod["spec"]["containers"] for port in each.get("ports") or () if port["name"] == "agent"]
    if not host or not ports:
        return None
    return f"[{host}]:{ports[0]['containerPort']}" if ":" in host else f"{host}:{ports[0]['containerPort']}"


def _container(status: Object) -> Object:
    """Ours; a mutating webhook may have put others beside it."""
    found = status.get("containerStatuses") or ()
    return next((dict(each) for each in found if each.get("name") == shape.CONTAINER), {})


def _ended(status: Object) -> dict[str, Any]:
    return dict((_container(status).get("state") or {}).get("terminated") or {})


def _condition(status: Object, kind: str) -> Object:
    return next((dict(each) for each in status.get("conditions") or () if each.get("type") == kind), {})


def _hint(said: str) -> str:
    return next((hint for pattern, hint in _PULL_HINTS if re.search(pattern, said.lower())), "see the pod's events")


def _cut(text: object) -> str:
    words = " ".join(str(text or "its events may say why").split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
