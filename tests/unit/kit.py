"""Small builders, so that a test says only what it is about."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from workspace_operator.api.meta import FINALIZER
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import DesiredState, EffectiveReason
from workspace_operator.api.workspace import FailureStatus, InstanceStatus, Workspace, WorkspaceStatus
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.kube.client import Conflict, NotFound
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.facts import Goal, Seen, Serving, Sight, Wish
from workspace_operator.lifecycle.parameters import Parameters, fingerprint
from workspace_operator.lifecycle.plan import Situation

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
PARAMETERS = fingerprint({"image": "a"}, None)
SERVES = Serving(True, Reason.SERVING, "The agent answers.")
SILENT = Serving(False, Reason.AGENT_NOT_ANSWERING, "The agent's port does not accept connections.")


def at(seconds: float) -> str:
    """A moment relative to NOW, as text."""
    return moments.text(NOW + timedelta(seconds=seconds))


def wish(goal: Goal = Goal.RUNNING, **more: Any) -> Wish:
    state = DesiredState.STOPPED if goal is Goal.DELETED else DesiredState(goal.value)
    values: dict[str, Any] = {
        "effective_state": state,
        "effective_reason": EffectiveReason.USER,
        "generation": 1,
        "parameters": PARAMETERS,
        "class_name": "c",
        "backend": "process",
    }
    return Wish(goal=goal, **{**values, **more})


def instance(incarnation: int = 1, parameters: Parameters = PARAMETERS, **more: Any) -> InstanceStatus:
    values: dict[str, Any] = {"backend": "process", "since": at(-5), **more}
    return InstanceStatus(incarnation=incarnation, parameters=parameters.text, **values)


def failed(count: int = 1, retry_in: float = 5, **more: Any) -> FailureStatus:
    values: dict[str, Any] = {
        "count": count,
        "class": "Backend",
        "reason": "ProvisionFailed",
        "message": "The backend refused.",
        "retryAfter": at(retry_in),
        "observedGeneration": 1,
    }
    return FailureStatus.model_validate({**values, **more})


def record(known: InstanceStatus | None = None, **more: Any) -> WorkspaceStatus:
    values: dict[str, Any] = {"incarnation": known.incarnation if known else 0, **more}
    return WorkspaceStatus(instance=known, **values)


def seen(sight: Sight = Sight.ABSENT, serving: Serving = SILENT, **more: Any) -> Seen:
    there = sight not in (Sight.ABSENT, Sight.UNKNOWN)
    values: dict[str, Any] = {"incarnation": 1, "parameters": PARAMETERS.text} if there else {}
    return Seen(sight, serving, **{**values, **more})


def situation(
    wished: Wish | None = None, recorded: WorkspaceStatus | None = None, sighted: Seen | None = None, **more: Any
) -> Situation:
    return Situation(wished or wish(), recorded or record(), sighted or seen(), more.pop("now", NOW), **more)


def body(name: str = "w", version: int = 1, uid: str = "", **spec: Any) -> dict[str, Any]:
    """A Workspace as the API server stores it."""
    return {
        "metadata": {
            "name": name,
            "namespace": "n",
            "uid": uid or f"uid-{name}",
            "generation": 1,
            "resourceVersion": str(version),
            "finalizers": [FINALIZER],
        },
        "spec": {"image": "a", **spec},
    }


def workspace(name: str = "w", **spec: Any) -> Workspace:
    return Workspace.model_validate(body(name, **spec))


def workspace_class(name: str = "c", annotations: dict[str, str] | None = None, **spec: Any) -> WorkspaceClass:
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", "annotations": annotations or {}}
    backend = {"process": {"directory": "/tmp/x", "images": [{"name": "a", "command": ["a"]}]}}
    return WorkspaceClass.model_validate({"metadata": metadata, "spec": {**backend, **spec}})


class FakeKube:
    """Objects by URL, with resourceVersions as preconditions; ``before`` is called ahead of every request."""

    def __init__(self, objects: Mapping[str, dict[str, Any]] | None = None) -> None:
        self.objects: dict[str, dict[str, Any]] = dict(objects or {})
        self.before: Callable[[str, str], None] = lambda method, url: None
        self.calls: list[str] = []
        self._version = 100
        self.server, self.ca_file = "https://kube", None

    def _called(self, method: str, url: str) -> None:
        self.calls.append(f"{method} {url}")
        self.before(method, url)

    def _stored(self, url: str, value: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        stored = deepcopy(value)
        stored.setdefault("metadata", {})["resourceVersion"] = str(self._version)
        self.objects[url] = stored
        return deepcopy(stored)

    async def get(self, url: str) -> dict[str, Any]:
        self._called("GET", url)
        if url not in self.objects:
            raise NotFound(404, f"{url} does not exist.")
        return deepcopy(self.objects[url])

    async def create(self, url: str, value: dict[str, Any]) -> dict[str, Any]:
        self._called("POST", url)
        there = f"{url}/{value['metadata']['name']}"
        if there in self.objects:
            raise Conflict(409, "It exists.")
        return self._stored(there, value)

    async def update(self, url: str, value: dict[str, Any]) -> dict[str, Any]:
        self._called("PUT", url)
        if self.objects[url]["metadata"]["resourceVersion"] != value["metadata"]["resourceVersion"]:
            raise Conflict(409, "It changed.")
        return self._stored(url, value)

    async def list(
        self, url: str, labels: str | None = None, fields: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Selectors select nothing: who filters must not rely on them alone."""
        self._called("LIST", url)
        for there, value in list(self.objects.items()):
            if there.rsplit("/", 1)[0] == url:
                yield deepcopy(value)
