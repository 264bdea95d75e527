"""The keyed queue: what overlaps, what is merged, and what comes again when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from workspace_operator.reconcile import queue as module
from workspace_operator.reconcile.queue import KeyedQueue, Overtaken

Work = Callable[[str], Awaitable[timedelta | None]]


@asynccontextmanager
async def running(work: Work, workers: int = 4, deadline: float = 5.0) -> AsyncIterator[KeyedQueue]:
    queue = KeyedQueue("test", work, workers, deadline)
    dispatcher = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        dispatcher.cancel()
        await queue.drain(1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_wake_ups_before_a_pass_coalesce() -> None:
    passes: list[str] = []

    async def work(key: str) -> None:
        passes.append(key)

    async with running(work) as queue:
        for _ in range(100):
            queue.add("a")
        await asyncio.sleep(0.05)
    assert passes == ["a"]


async def test_passes_of_one_key_never_overlap_and_any_number_of_wake_ups_meanwhile_cost_one_more() -> None:
    """I-21, I-24."""
    at_once, most, passes = 0, 0, 0

    async def work(key: str) -> None:
        nonlocal at_once, most, passes
        at_once, passes = at_once + 1, passes + 1
        most = max(most, at_once)
        for _ in range(10):
            queue.add(key)
            await asyncio.sleep(0) if passes == 1 else None
        if passes == 2:
            stop.set()
            await asyncio.sleep(0.02)
        at_once -= 1
        if passes >= 2:
            queue._closing = True

    stop = asyncio.Event()
    async with running(work) as queue:
        queue.add("a")
        await stop.wait()
        await until(lambda: not queue.busy)
    assert (most, passes) == (1, 2)


async def test_keys_run_side_by_side_up_to_the_number_of_workers() -> None:
    """I-83: bounded, whatever is due."""
    at_once, most = 0, 0

    async def work(key: str) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1

    async with running(work, workers=3) as queue:
        for number in range(12):
            queue.add(str(number))
        await until(lambda: not len(queue) and not queue.busy)
    assert most == 3


async def test_the_answer_of_a_pass_is_when_the_key_is_wanted_again() -> None:
    times: list[float] = []

    async def work(key: str) -> timedelta | None:
        times.append(asyncio.get_running_loop().time())
        return timedelta(seconds=0.05) if len(times) == 1 else None

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: len(times) == 2)
    assert 0.04 <= times[1] - times[0] < 1


async def test_a_delay_never_postpones_what_is_due_sooner() -> None:
    done = asyncio.Event()

    async def work(key: str) -> None:
        done.set()

    async with running(work) as queue:
        queue.add("a", timedelta(seconds=0.01))
        queue.add("a", timedelta(hours=1))
        async with asyncio.timeout(1):
            await done.wait()


async def test_a_failing_key_backs_off_alone_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """I-28: a failed pass is repeated, ever more rarely, until it succeeds."""
    monkeypatch.setattr(module, "_FIRST_RETRY", 0.02)
    times: dict[str, list[float]] = {"bad": [], "good": []}

    async def work(key: str) -> None:
        times[key].append(asyncio.get_running_loop().time())
        if key == "bad" and len(times["bad"]) < 4:
            raise RuntimeError("not yet")

    async with running(work) as queue:
        queue.add("bad")
        queue.add("good")
        await until(lambda: len(times["bad"]) == 4)
        await asyncio.sleep(0.05)
    gaps = [later - earlier for earlier, later in zip(times["bad"], times["bad"][1:], strict=False)]
    assert len(times["good"]) == 1 and len(times["bad"]) == 4
    assert gaps[0] >= 0.015 and gaps[1] > gaps[0] and gaps[2] > gaps[1]


async def test_a_wake_up_does_not_wait_for_the_back_off() -> None:
    count = 0

    async def work(key: str) -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise RuntimeError("not yet")

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: count == 1)
        await asyncio.sleep(0.01)
        queue.add("a")
        async with asyncio.timeout(0.2):
            await until(lambda: count == 2)


async def test_a_pass_that_hangs_is_cut_at_its_deadline() -> None:
    """I-45."""
    count = 0

    async def work(key: str) -> None:
        nonlocal count
        count += 1
        await asyncio.sleep(3600)

    async with running(work, deadline=0.02) as queue:
        queue.add("a")
        await until(lambda: count == 1 and not queue.busy)


async def test_draining_lets_passes_finish_and_takes_no_new_ones() -> None:
    """I-90: a hand-over with work in flight loses none of it."""
    finished: list[str] = []

    async def work(key: str) -> None:
        await asyncio.sleep(0.05)
        finished.append(key)

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: queue.busy == 1)
        drain = asyncio.create_task(queue.drain(5))
        await asyncio.sleep(0)
        queue.add("b")
        await drain
    assert finished == ["a"]


async def test_draining_cuts_what_does_not_finish_in_time() -> None:
    async def work(key: str) -> None:
        await asyncio.sleep(3600)

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: queue.busy == 1)
        await queue.drain(0.01)
        await until(lambda: queue.busy == 0)


async def test_what_is_known_of_a_key_at_rest_is_dropped() -> None:
    async def work(key: str) -> None:
        return None

    async with running(work) as queue:
        for number in range(50):
            queue.add(str(number))
        await until(lambda: not queue._entries)


async def test_it_tells_how_long_the_oldest_key_waits_and_the_oldest_pass_runs() -> None:
    """I-45: while every worker hangs no pass ends, so no histogram moves."""
    hang = asyncio.Event()

    async def work(key: str) -> None:
        await hang.wait()

    async with running(work, workers=1, deadline=60) as queue:
        assert (queue.oldest, queue.longest) == (0, 0)
        queue.add("a")
        await until(lambda: queue.longest > 0)
        assert queue.oldest == 0
        queue.add("b")
        await until(lambda: 0 < queue.oldest < queue.longest)
        hang.set()
        await until(lambda: queue.longest == queue.oldest == queue.busy == 0)


async def test_what_was_overtaken_is_repeated_at_once_and_slower_if_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A writer that always wins must not have the operator read and write without a pause."""
    monkeypatch.setattr(module, "_FIRST_RETRY", 0.02)
    begun: list[float] = []

    async def work(key: str) -> None:
        begun.append(time.monotonic())
        if len(begun) < 6:
            raise Overtaken

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: len(begun) == 6)
        assert begun[5] - begun[4] > begun[2] - begun[1] >= 0.03
        queue.add("a")  # and one that went well is forgotten
        await until(lambda: len(begun) == 7)
    assert not caplog.records
