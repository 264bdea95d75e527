"""The real sweeper on one backend, beside an API server of which the test says what exists."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

from tests.unit.kit import FakeKube, body, workspace_class

from workspace_operator.api.workspaceclass import ClassLimits
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.backends.protocol import Backend, WorkspaceRef
from workspace_operator.kube.client import path, workspaces
from workspace_operator.reconcile.store import Store
from workspace_operator.reconcile.sweeper import Sweeper
from workspace_operator.reconcile.world import Clock
from workspace_operator.telemetry.loops import Supervisor

KUBE_SYSTEM = path("v1/namespaces", None, "kube-system")


class Api(FakeKube):
    """Lists workspaces across namespaces."""

    async def list(self, url: str, labels: str | None = None) -> AsyncIterator[dict[str, Any]]:
        self._called("LIST", url)
        for there in [there for there in self.objects if "/workspaces/" in there]:
            yield self.objects[there]


class Sweeps:
    """A sweeper of one class, and what it told; ``client`` is a real API server's, ``more`` of the class's spec."""

    def __init__(
        self,
        backend: Backend,
        cluster: str = "k",
        class_name: str = "c",
        *,
        client: Any = None,
        more: Mapping[str, Any] | None = None,
        **sweep: Any,
    ) -> None:
        self.name, self.may_act = class_name, True
        self.told: list[tuple[str, str]] = []
        self.woken: list[str] = []
        self.stale: list[str] = []
        self.api = Api({KUBE_SYSTEM: {"metadata": {"uid": cluster}}})
        self.store = Store()
        self.store.classes[class_name] = workspace_class(class_name, sweep=sweep, **(more or {}))
        metered = MeteredBackend("test", backend, ClassLimits(), lambda: self.may_act)
        self.world: Any = SimpleNamespace(
            cluster=cluster,
            client=client or self.api,
            store=self.store,
            door=SimpleNamespace(find=lambda name: metered),
            observer=SimpleNamespace(mark_stale=lambda name, uid: self.stale.append(uid)),
            events=SimpleNamespace(post=lambda *_, reason, message, warning: self.told.append((reason, message))),
            wake=self.woken.append,
            wake_class=lambda name: None,
            sweeps={},
            clock=Clock(),
        )
        self.restart()

    def restart(self) -> None:
        """A fresh operator, with nothing in memory."""
        self.sweeper = Sweeper(self.world, Supervisor())

    def own(self, ref: WorkspaceRef, **status: Any) -> None:
        """Have the workspace of an instance exist."""
        owner = body(ref.name, uid=ref.uid, className=ref.class_name)
        owner["metadata"]["namespace"] = ref.namespace
        self.api.objects[workspaces(ref.namespace, ref.name)] = {**owner, "status": status}

    async def sweep(self) -> Any:
        """One sweep, whether due or not; returns its report."""
        self.sweeper.is_due(self.name)  # the timer asks, and so the class is known
        await self.sweeper(self.name)
        return self.world.sweeps[self.name]
