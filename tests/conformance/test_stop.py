"""Stop: done when no running compute is seen, not when the request was accepted."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from tests.conformance.rigs import Rig, Workload
from tests.conformance.steps import (
    AT_ONCE,
    GRACE,
    counted,
    eventually,
    halt,
    halted,
    live,
    only,
    release,
    requires,
    run,
    until,
)

from workspace_operator.api.states import Capability
from workspace_operator.backends.protocol import Reading, StopRequest


async def test_stop_of_the_unknown_succeeds(rig: Rig) -> None:
    """I-10: what was never created does not hold up a deletion."""
    backend = await rig.make()
    for release_ in (False, True):
        assert await backend.stop(StopRequest(rig.ref(), GRACE, release=release_)) == ()


async def test_stop_halts_the_compute_and_observation_confirms_it(rig: Rig) -> None:
    """I-01, I-02, I-03, I-04: the verb works on every backend and is confirmed by a look of another operator."""
    backend = await rig.make()
    request = rig.provision(rig.ref())
    await run(backend, request)
    await halt(backend, request.ref)
    await halted(await rig.make(), request.ref)


async def test_a_graceful_stop_ends_within_the_grace_with_the_workloads_own_exit_code(rig: Rig) -> None:
    backend = await rig.make()
    request = rig.provision(rig.ref())
    await run(backend, request)
    await counted(rig, request.ref, 1)
    begun = time.monotonic()
    seen = await halt(backend, request.ref, timedelta(seconds=30))
    assert time.monotonic() - begun < 10
    assert seen is None or seen.exit_code == 0


async def test_stop_does_not_wait_for_the_grace(rig: Rig) -> None:
    """I-45: a verb starts the change and returns."""
    backend = await rig.make()
    request = rig.provision(rig.ref(), workload=Workload.STUBBORN)
    await run(backend, request)
    await counted(rig, request.ref, 1)
    begun = time.monotonic()
    (left,) = await backend.stop(StopRequest(request.ref, timedelta(seconds=60)))
    assert time.monotonic() - begun < 5
    assert left.reading in {Reading.RUNNING, Reading.HALTING}


async def test_an_ending_instance_reads_halting_and_says_since_when(rig: Rig) -> None:
    backend = await rig.make()
    request = rig.provision(rig.ref(), workload=Workload.STUBBORN)
    await run(backend, request)
    await counted(rig, request.ref, 1)
    await backend.stop(StopRequest(request.ref, timedelta(seconds=60)))
    seen = await until(backend, request.ref, Reading.HALTING)
    assert seen.halting_since is not None
    assert abs(datetime.now(UTC) - seen.halting_since) < timedelta(seconds=20)
    (listed,) = await backend.list_owned()
    assert listed.reading is Reading.HALTING


async def test_what_ignores_the_request_is_killed_after_the_grace(rig: Rig) -> None:
    """I-04: the request alone is no stop."""
    backend = await rig.make()
    request = rig.provision(rig.ref(), workload=Workload.STUBBORN)
    await run(backend, request)
    await counted(rig, request.ref, 1)
    begun = time.monotonic()
    seen = await halt(backend, request.ref, timedelta(seconds=1))
    assert 0.9 <= time.monotonic() - begun < 10
    assert seen is None or seen.exit_code == 137


async def test_no_grace_kills_at_once(rig: Rig) -> None:
    backend = await rig.make()
    request = rig.provision(rig.ref(), workload=Workload.STUBBORN)
    await run(backend, request)
    await release(backend, request.ref, AT_ONCE)


async def test_a_stop_begun_by_an_operator_that_died_is_finished_by_the_next(rig: Rig) -> None:
    """I-09, I-23: the grace may begin anew, the stop still ends."""
    before = await rig.make()
    request = rig.provision(rig.ref(), workload=Workload.STUBBORN)
    await run(before, request)
    await before.stop(StopRequest(request.ref, timedelta(seconds=60)))
    await before.close()
    after = await rig.make()
    await halt(after, request.ref, timedelta(seconds=1))


async def test_release_of_a_halted_instance_removes_it(rig: Rig) -> None:
    """I-17: after a release nothing is left to be stopped again."""
    backend = await rig.make()
    request = rig.provision(rig.ref())
    await run(backend, request)
    await halt(backend, request.ref)
    await release(backend, request.ref)
    assert await backend.list_owned() == ()
    await release(backend, request.ref)


async def test_a_freeze_keeps_memory_and_an_unfreeze_goes_on(rig: Rig) -> None:
    """I-86: only where the backend says that it can."""
    backend = await rig.make()
    requires(backend, Capability.FREEZE)
    request = rig.provision(rig.ref())
    first = await run(backend, request)
    await counted(rig, request.ref, 1)
    for _ in range(2):  # freezing the frozen changes nothing
        await backend.stop(StopRequest(request.ref, GRACE, freeze=True))
        await until(backend, request.ref, Reading.FROZEN)
    thawed = await run(backend, request)
    assert thawed.id == first.id
    await counted(rig, request.ref, 1)


async def test_a_frozen_instance_can_be_stopped_and_released(rig: Rig) -> None:
    """I-27: no state is a dead end."""
    backend = await rig.make()
    requires(backend, Capability.FREEZE)
    request = rig.provision(rig.ref())
    await run(backend, request)
    await counted(rig, request.ref, 1)
    await backend.stop(StopRequest(request.ref, GRACE, freeze=True))
    await until(backend, request.ref, Reading.FROZEN)
    await halt(backend, request.ref, timedelta(seconds=5))
    await halted(backend, request.ref)
    await release(backend, request.ref)


async def test_freezing_a_halted_instance_leaves_it_halted(rig: Rig) -> None:
    backend = await rig.make()
    requires(backend, Capability.FREEZE)
    request = rig.provision(rig.ref())
    await run(backend, request)
    await halt(backend, request.ref)
    await backend.stop(StopRequest(request.ref, GRACE, freeze=True))
    assert (await only(backend, request.ref)).reading is Reading.HALTED


async def test_only_before_spares_the_incarnation_it_names(rig: Rig) -> None:
    """I-14: the release of what is superseded never takes what replaced it."""
    backend = await rig.make()
    request = rig.provision(rig.ref(), 2)
    await run(backend, request)
    left = await backend.stop(StopRequest(request.ref, AT_ONCE, release=True, only_before=2))
    assert [i.incarnation for i in live(left)] == [2]


async def test_an_end_wakes_the_workspace(rig: Rig) -> None:
    """I-46: fast where the backend has events; a listing finds it anyway."""
    backend = await rig.make()
    requires(backend, Capability.EVENTS)
    woken: list[str] = []
    watch = asyncio.create_task(backend.watch(woken.append))
    try:
        await asyncio.sleep(0.3)
        request = rig.provision(rig.ref())
        await run(backend, request)
        await counted(rig, request.ref, 1)
        await asyncio.sleep(0.2)
        woken.clear()
        await backend.stop(StopRequest(request.ref, GRACE))

        async def heard() -> bool:
            return request.ref.uid in woken

        await eventually(heard, "a wake of the workspace")
        await halted(backend, request.ref)
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def test_an_end_wakes_an_operator_that_adopted_the_instance(rig: Rig) -> None:
    """I-46, I-09: events do not depend on who started the instance."""
    request = rig.provision(rig.ref())
    before = await rig.make()
    await run(before, request)
    await counted(rig, request.ref, 1)
    await before.close()
    backend = await rig.make()
    requires(backend, Capability.EVENTS)
    woken: list[str] = []
    watch = asyncio.create_task(backend.watch(woken.append))
    try:
        await asyncio.sleep(0.5)
        woken.clear()
        await backend.stop(StopRequest(request.ref, GRACE))

        async def heard() -> bool:
            return request.ref.uid in woken

        await eventually(heard, "a wake of the adopted workspace")
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
