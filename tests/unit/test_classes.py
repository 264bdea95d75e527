"""The class pass: how often a backend is checked, and what is said of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tests.unit.kit import at, workspace_class

from workspace_operator.api.base import Condition
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import ConditionStatus, ConditionType
from workspace_operator.api.workspaceclass import ClassLimits
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.errors import BackendUnreachable, Failure, FailureClass
from workspace_operator.lifecycle.conditions import Verdict, settle
from workspace_operator.reconcile import classes as module
from workspace_operator.reconcile.classes import ClassReconciler
from workspace_operator.reconcile.store import Store
from workspace_operator.reconcile.world import Clock


class Checked:
    """A backend that counts how often it is checked."""

    capabilities: frozenset[Any] = frozenset()

    def __init__(self) -> None:
        self.checks = 0
        self.fails: Exception | None = None

    async def check(self) -> str:
        self.checks += 1
        if self.fails is not None:
            raise self.fails
        return "answers"


class Desk:
    """One class, its backend and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.opened, self.problem = 1000.0, True, None
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.backend, self.store, self.said = Checked(), Store(), list[str]()
        self.store.classes["c"] = workspace_class("c")
        metered = MeteredBackend("fake", self.backend, ClassLimits(), lambda: True)  # type: ignore[arg-type]
        world: Any = SimpleNamespace(
            store=self.store,
            door=SimpleNamespace(open=self._open, find=lambda name: metered, close=self._nothing),
            observer=SimpleNamespace(follow=self._nothing, unfollow=self._nothing, problem=lambda name: self.problem),
            client=SimpleNamespace(merge=self._merge),
            events=SimpleNamespace(post=lambda *_, reason, **more: self.said.append(reason)),
            sweeps={},
            wake=lambda key: None,
            clock=Clock(),
        )
        self.reconcile = ClassReconciler(world)

    async def _open(self, class_: Any) -> bool:
        self.opened, opened = False, self.opened
        return opened

    async def _nothing(self, class_: Any) -> None:
        pass

    async def _merge(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        known = self.store.classes["c"].model_dump(mode="json", by_alias=True, exclude_none=True)
        metadata = {**known["metadata"], "resourceVersion": str(int(known["metadata"]["resourceVersion"]) + 1)}
        return {**known, "metadata": metadata, "status": {**known["status"], **body["status"]}}

    async def passes(self, seconds: float) -> None:
        """A pass now, and one every two seconds, as when workspaces change all the time."""
        for _ in range(int(seconds / 2)):
            await self.reconcile("c")
            self.now += 2


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def test_a_busy_class_is_checked_once_a_minute(desk: Desk) -> None:
    """Counting workspaces must not cost a call to the cloud each time."""
    asyncio.run(desk.passes(120))
    assert desk.backend.checks == 2
    assert desk.said == [Reason.USABLE]


def test_a_backend_that_ceases_to_answer_is_checked_at_once(desk: Desk) -> None:
    """The observer noticed; the class says so without waiting for the minute."""

    async def work() -> None:
        await desk.passes(10)
        desk.problem = Failure(FailureClass.BACKEND, Reason.BACKEND_UNREACHABLE, "It does not answer.")
        desk.backend.fails = BackendUnreachable(Reason.BACKEND_UNREACHABLE, "It does not answer.")
        await desk.passes(2)
        assert desk.said == [Reason.USABLE, Reason.BACKEND_UNREACHABLE]
        desk.problem = desk.backend.fails = None
        await desk.passes(2)
        assert desk.said[-1] == Reason.USABLE

    asyncio.run(work())


def test_a_changed_class_is_checked_anew(desk: Desk) -> None:
    """A corrected field shows at once."""

    async def work() -> None:
        await desk.passes(2)
        desk.opened = True
        await desk.passes(2)
        assert desk.backend.checks == 2

    asyncio.run(work())


def test_a_class_that_is_gone_leaves_no_gauge_behind(desk: Desk) -> None:
    """Else the alert on what it said last would fire until the operator's next start."""

    def ready() -> float | None:
        return REGISTRY.get_sample_value("workspace_operator_class_ready", {"class": "c"})

    async def work() -> None:
        await desk.passes(2)
        assert ready() == 1
        desk.problem = Failure(FailureClass.BACKEND, Reason.BACKEND_UNREACHABLE, "It does not answer.")
        desk.backend.fails = BackendUnreachable(Reason.BACKEND_UNREACHABLE, "It does not answer.")
        await desk.passes(2)
        assert ready() == 0
        del desk.store.classes["c"]
        await desk.passes(2)
        assert ready() is None

    asyncio.run(work())


def test_a_class_that_cannot_be_used_is_stalled_and_no_longer_than_that() -> None:
    """I-31: until the first sweep only a blown fuse is taken over from an earlier operator."""

    def stalled(ready: Verdict, before: tuple[Condition, ...]) -> str | None:
        found = {c.type: c.reason for c in module.conditions(ready, None, before, 1, at(0))}
        return found.get("Stalled")

    usable: Verdict = (ConditionStatus.TRUE, Reason.USABLE, "It answers.")
    away: Verdict = (ConditionStatus.UNKNOWN, Reason.BACKEND_UNREACHABLE, "It does not answer.")
    blown: Verdict = (ConditionStatus.TRUE, Reason.SWEEP_FUSE_BLOWN, "Too many.")
    unusable = module.conditions(away, None, (), 1, at(0))
    assert stalled(away, ()) == "BackendUnreachable"
    assert stalled(usable, unusable) is None
    fused = settle([(ConditionType.STALLED, blown)], (), 1, at(0))
    assert stalled(usable, fused) == stalled(away, fused) == "SweepFuseBlown"
