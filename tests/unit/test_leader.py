"""Leadership: never two at once, by nobody's wall clock, and quickly handed over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.kit import FakeKube

from workspace_operator.kube.client import KubeError
from workspace_operator.kube.leader import LEASE_DURATION, RENEW_DEADLINE, RETRY_PERIOD, Leadership


class Clocks:
    """The monotonic clock that all candidates share in this test, and a wall clock that nobody should trust."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clock = Clocks()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def candidate(kube: Any, name: str) -> Leadership:
    return Leadership(kube, "default", "operator", name)


async def test_the_first_leads_and_the_second_follows(clock: Clocks) -> None:
    """I-90: whatever their priorities; there are none."""
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    assert await a._attempt() and not await b._attempt()
    assert a.valid and not b.valid


async def test_of_two_at_the_same_moment_one_leads(clock: Clocks) -> None:
    """I-90."""
    kube = FakeKube()
    candidates = [candidate(kube, str(number)) for number in range(5)]
    await asyncio.gather(*(one._attempt() for one in candidates))
    assert sum(one.valid for one in candidates) == 1


async def test_a_silent_leader_has_stopped_acting_before_another_begins(clock: Clocks) -> None:
    """I-90: at every moment of the take-over."""
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    await a._attempt()
    took_over = None
    for _ in range(40):
        clock.now += RETRY_PERIOD / 2
        await b._attempt()
        assert not (a.valid and b.valid)
        if b.valid and took_over is None:
            took_over = clock.now - 1000
    assert took_over is not None and LEASE_DURATION < took_over < LEASE_DURATION + 2 * RETRY_PERIOD


@pytest.mark.parametrize("written", ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
async def test_the_wall_clock_neither_steals_nor_keeps_the_lead(clock: Clocks, written: str) -> None:
    """I-90: a holder with a wrong clock; only what the follower itself watched counts."""
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    await a._attempt()
    kube.objects[a._url]["spec"]["renewTime"] = written
    clock.now += 1
    assert not await b._attempt(), "old by its text, but not watched for long enough"
    clock.now += LEASE_DURATION + 1
    assert await b._attempt(), "new by its text, but silent for a whole lease"


async def test_a_leader_that_renews_is_never_taken_over(clock: Clocks) -> None:
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    await a._attempt()
    for _ in range(100):
        clock.now += RETRY_PERIOD
        assert await a._attempt() and not await b._attempt()


async def test_a_leader_cut_off_from_the_api_stops_in_time(clock: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-90: it must be gone before the lease can be taken."""
    kube = FakeKube()
    a = candidate(kube, "a")
    await a._attempt()

    def cut(method: str, url: str) -> None:
        raise KubeError(0, "The Kubernetes API cannot be reached.")

    kube.before = cut
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds

    monkeypatch.setattr("asyncio.sleep", sleep)
    await a.hold()
    assert not a.valid
    assert sum(slept) <= RENEW_DEADLINE + RETRY_PERIOD < LEASE_DURATION


async def test_a_late_answer_counts_from_the_question(clock: Clocks) -> None:
    kube = FakeKube()
    a = candidate(kube, "a")

    def late(method: str, url: str) -> None:
        clock.now += 2

    kube.before = late
    await a._attempt()
    clock.now = 1000 + RENEW_DEADLINE
    assert not a.valid


async def test_a_clean_exit_hands_over_at_once(clock: Clocks) -> None:
    """I-90."""
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    await a._attempt()
    await b._attempt()
    await a.release()
    assert not a.valid and await b._attempt()


async def test_the_lease_of_another_is_not_given_back(clock: Clocks) -> None:
    kube = FakeKube()
    a = candidate(kube, "a")
    await a._attempt()
    kube.objects[a._url]["spec"]["holderIdentity"] = "b"
    await a.release()
    assert kube.objects[a._url]["spec"]["holderIdentity"] == "b"


async def test_silence_of_the_api_is_measured(clock: Clocks) -> None:
    """I-45."""
    a = candidate(FakeKube(), "a")
    await a._attempt()
    clock.now += 100
    assert a.silence == 100
