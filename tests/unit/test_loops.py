"""Loops that may not die in silence, and a backend with manners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability, Reading
from workspace_operator.api.workspaceclass import ClassLimits
from workspace_operator.backends import metered as metering
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.backends.protocol import (
    Instance,
    Progress,
    ProvisionRequest,
    StopRequest,
    Template,
    WorkspaceRef,
)
from workspace_operator.backends.rate import PerMinute
from workspace_operator.errors import BackendUnreachable
from workspace_operator.telemetry import metrics
from workspace_operator.telemetry.health import HealthServer
from workspace_operator.telemetry.loops import Supervisor, forever

REF = WorkspaceRef("k", "u", "n", "w", "c")
REQUEST = ProvisionRequest(REF, 1, "p", Template("a"))
STOP = StopRequest(REF, timedelta(seconds=1))


class Monotonic:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    await supervisor.stop_all()


async def _dies() -> None:
    raise RuntimeError("a bug")


async def _returns() -> None:
    """A loop that merely ends is as dead as one that raises."""


@pytest.mark.parametrize("body", [_dies, _returns])
async def test_a_loop_that_ends_is_the_end_of_the_process(supervisor: Supervisor, body: Callable[[], Any]) -> None:
    """I-44."""
    supervisor.start("sweeper", body())
    async with asyncio.timeout(1):
        assert await supervisor.died == "sweeper"


async def test_a_loop_that_is_stopped_is_not(supervisor: Supervisor) -> None:
    supervisor.start("list/c", asyncio.sleep(3600))
    await supervisor.stop("list/c")
    await asyncio.sleep(0)
    assert not supervisor.died.done()


async def test_a_failed_round_is_tried_again_and_does_not_count_as_success(supervisor: Supervisor) -> None:
    """I-44."""
    rounds = 0

    async def round_() -> None:
        nonlocal rounds
        rounds += 1
        if rounds < 3:
            raise RuntimeError("not yet")

    beat = supervisor.heartbeat("x", 0.0)
    first = beat.last
    supervisor.start("x", forever(beat, lambda: 0.001, round_))
    async with asyncio.timeout(2):
        while rounds < 2:
            assert beat.last == first
            await asyncio.sleep(0.0005)
        while beat.last == first:
            await asyncio.sleep(0.001)


async def test_liveness_fails_for_a_loop_that_has_not_succeeded_for_too_long(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I-44, I-45: also one that merely hangs."""
    clock = Monotonic()
    monkeypatch.setattr("time.monotonic", clock)
    beat = supervisor.heartbeat("resync", 900)
    beat.beat()
    supervisor.heartbeat("watch/c")
    health = HealthServer(live=supervisor.overdue, ready=list, collect=supervisor.collect)
    clock.now += 899
    assert (await health._answer(supervisor.overdue)).status == 200
    clock.now += 2
    answer = await health._answer(supervisor.overdue)
    assert answer.status == 500 and (answer.text or "").startswith("resync: no sign of life")
    beat.beat()
    assert supervisor.overdue() == []


async def test_every_loop_has_the_gauge_of_its_last_success(supervisor: Supervisor) -> None:
    """I-44, I-46: the age of the last event of each watch too."""
    supervisor.heartbeat("event/workspaces")
    supervisor.collect()
    names = {sample.labels["loop"] for metric in metrics.LOOP_AGE.collect() for sample in metric.samples}
    assert names == {"event/workspaces"}


async def test_only_what_may_not_be_silent_has_the_gauge_of_when_it_is_overdue(supervisor: Supervisor) -> None:
    """An alert compares the two gauges, so each loop keeps its number in the code alone."""
    supervisor.heartbeat("event/workspaces")
    supervisor.heartbeat("resync", 900)
    supervisor.collect()
    samples = [sample for metric in metrics.LOOP_OVERDUE_AFTER.collect() for sample in metric.samples]
    assert [(sample.labels["loop"], sample.value) for sample in samples] == [("resync", 900)]


# -- the metered backend -----------------------------------------------------------------------------------------------


class SlowBackend:
    """Every call takes as long as it is told to."""

    capabilities: frozenset[Capability] = frozenset()

    def __init__(self) -> None:
        self.seconds, self.calls, self.at_once, self.most = 0.0, 0, 0, 0

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: object) -> object:
            self.calls += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            try:
                await asyncio.sleep(self.seconds)
            finally:
                self.at_once -= 1
            return Instance(REF, 1, Reading.RUNNING, "i") if name == "provision" else ()

        return call


def metered(inner: Any, may_act: Callable[[], bool] = lambda: True, **limits: int) -> MeteredBackend:
    return MeteredBackend("process", inner, ClassLimits.model_validate(limits), may_act)


CALLS: list[tuple[str, Callable[[MeteredBackend], Any]]] = [
    ("check", lambda b: b.check()),
    ("list", lambda b: b.list_owned()),
    ("observe", lambda b: b.observe(REF)),
    ("provision", lambda b: b.provision(REQUEST)),
    ("stop", lambda b: b.stop(STOP)),
    ("restart", lambda b: b.restart(REQUEST, timedelta())),
    ("deliver", lambda b: b.deliver(REF, 1, {})),
    ("delete data", lambda b: b.delete_data(REF)),
    ("logs", lambda b: b.logs(REF, 10)),
]
CHANGING = {"provision", "stop", "restart", "deliver", "delete data"}


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in CALLS])
async def test_every_call_has_a_deadline_and_no_answer_is_no_reading(
    call: Callable[[MeteredBackend], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """I-45, I-40."""
    monkeypatch.setattr(metering, "DEADLINE", 0.01)
    slow = SlowBackend()
    slow.seconds = 60
    with pytest.raises(BackendUnreachable) as raised:
        await call(metered(slow))
    assert raised.value.failure.reason == Reason.BACKEND_UNREACHABLE


@pytest.mark.parametrize(("name", "call"), CALLS, ids=[name for name, _ in CALLS])
async def test_a_process_that_no_longer_leads_changes_nothing(name: str, call: Callable[[MeteredBackend], Any]) -> None:
    """I-90: passes under way at the loss of the lead do not act any more; looking is harmless."""
    inner = SlowBackend()
    if name in CHANGING:
        with pytest.raises(BackendUnreachable):
            await call(metered(inner, may_act=lambda: False))
        assert inner.calls == 0
    else:
        await call(metered(inner, may_act=lambda: False))


async def test_no_more_starts_at_once_than_the_class_allows() -> None:
    """I-83: the others are told to come again, and hold no worker."""
    slow = SlowBackend()
    slow.seconds = 0.05
    backend = metered(slow, concurrentStarts=3)
    answers = await asyncio.gather(*(backend.provision(REQUEST) for _ in range(39)))
    assert slow.most <= 3
    queued = [answer for answer in answers if isinstance(answer, Progress)]
    assert len(queued) == 36 and {answer.reason for answer in queued} == {Reason.START_QUEUED}


async def test_restarts_count_as_starts() -> None:
    """I-83."""
    slow = SlowBackend()
    slow.seconds = 0.01
    backend = metered(slow, concurrentStarts=2)
    await asyncio.gather(*(backend.restart(REQUEST, timedelta()) for _ in range(8)))
    assert slow.most == 2


def test_starts_per_minute_have_a_burst_and_then_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """I-83."""
    clock = Monotonic()
    monkeypatch.setattr("time.monotonic", clock)
    rate = PerMinute(60)
    assert [rate.take() for _ in range(8)] == [True] * 6 + [False] * 2
    clock.now += 1.0
    assert [rate.take(), rate.take()] == [True, False]
    clock.now += 3600
    assert sum(rate.take() for _ in range(20)) == 6, "what was not used is not saved up"
