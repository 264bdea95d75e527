"""The Docker driver when the engine is away, hangs, loses answers or goes silent; and its event stream."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.backends.docker_kit import Lab, eventually, lab_of, name_of, started, stopping, watching
from tests.backends.relay import Relay

from workspace_operator.api.reasons import Reason
from workspace_operator.backends.protocol import Instance, Reading
from workspace_operator.errors import BackendUnreachable

pytestmark = pytest.mark.engine
CREATE = r"POST \S+/containers/create"
START = r"POST \S+/start"


@pytest.fixture
async def lab(engine: Any) -> AsyncIterator[Lab]:
    """The engine, with this test's own cluster id."""
    async with lab_of(engine) as made:
        yield made


@pytest.fixture
async def relay(engine: Any, tmp_path: Path) -> AsyncIterator[Relay]:
    """A relay in front of the engine."""
    made = Relay(engine.host.removeprefix("unix://"), tmp_path / "engine.sock")
    yield made
    made.close()


@pytest.mark.parametrize("lost", [CREATE, START, r"POST \S+/volumes/create", r"PUT \S+/archive"])
async def test_a_lost_answer_is_resolved_by_asking_for_the_same_name(lab: Lab, relay: Relay, lost: str) -> None:
    """I-05, I-06: the call took effect and nobody heard; the next provision adopts it, and there is one."""
    driver = lab.driver(host=relay.host)
    request = lab.request(mount_path="/data", files={"token": b"x"})
    relay.lose_answer(lost)
    with pytest.raises(BackendUnreachable):
        await driver.provision(request)
    assert (await started(driver, request)).reading is Reading.RUNNING
    assert len(await driver.list_owned()) == 1


@pytest.mark.parametrize("lost", [r"POST \S+/kill", r"DELETE \S+/containers"])
async def test_a_lost_answer_to_a_stop_is_resolved_by_stopping_again(lab: Lab, relay: Relay, lost: str) -> None:
    """I-03, I-04."""
    driver, request = lab.driver(host=relay.host), lab.request()
    await started(driver, request)
    relay.lose_answer(lost)
    stop = stopping(request, release=True, grace=timedelta(0))
    with pytest.raises(BackendUnreachable):
        await driver.stop(stop)

    async def released() -> bool:
        return not await driver.stop(stop)

    await eventually(released)


async def test_a_create_that_is_given_up_is_seen_by_the_next_look(lab: Lab, relay: Relay) -> None:
    """I-07: whoever stops after a cancelled create waits for its end, and then sees what it made."""
    driver, request = lab.driver(host=relay.host), lab.request()
    await driver.check()
    relay.bytes_per_second = 2000  # every answer takes its time
    provision = asyncio.create_task(driver.provision(request))
    while not any("/containers/create" in line for line in relay.seen):
        await asyncio.sleep(0.001)
    provision.cancel()
    await asyncio.wait([provision])
    assert provision.cancelled()
    (seen,) = await driver.observe(request.ref)
    assert seen.reading is Reading.HALTED, "the abandoned job created, and did not go on to start"
    assert not any(line.endswith("/start") for line in relay.seen)


async def test_an_engine_that_is_away_is_unreachable_at_once_and_no_reading(lab: Lab, tmp_path: Path) -> None:
    """I-40: an error is not a reading; the sentence says what to look at."""
    driver, request = lab.driver(host=f"unix://{tmp_path}/nothing.sock"), lab.request()
    began = time.monotonic()
    for call in (
        driver.check(),
        driver.list_owned(),
        driver.observe(request.ref),
        driver.provision(request),
        driver.stop(stopping(request)),
        driver.delete_data(request.ref),
        driver.logs(request.ref, 1),
        driver.watch(lambda uid: None),
    ):
        with pytest.raises(BackendUnreachable, match="the socket does not exist") as caught:
            await call
        assert caught.value.failure.reason == Reason.BACKEND_UNREACHABLE
    assert time.monotonic() - began < 2


async def test_nobody_listening_is_told_apart(lab: Lab, tmp_path: Path) -> None:
    Relay("/nonesuch", tmp_path / "dead.sock").close()
    with pytest.raises(BackendUnreachable, match="nobody listens there"):
        await lab.driver(host=f"unix://{tmp_path}/dead.sock").list_owned()


async def test_an_engine_that_hangs_costs_one_deadline(lab: Lab, relay: Relay) -> None:
    """I-45: every call has a deadline; calls at the same time wait at the same time."""
    driver, request = lab.driver(host=relay.host, deadline=1), lab.request()
    relay.hang = True
    began = time.monotonic()
    results = await asyncio.gather(
        driver.list_owned(),
        driver.check(),
        driver.stop(stopping(request)),
        driver.provision(lab.request()),
        return_exceptions=True,
    )
    assert time.monotonic() - began < 2.5
    for result in results:
        assert isinstance(result, BackendUnreachable) and "no answer within 1 s" in str(result)


async def test_a_connection_that_begins_to_hang_is_given_up_and_made_anew(lab: Lab, relay: Relay) -> None:
    """I-40, I-45: afterwards the very same driver works again, without a restart."""
    driver, request = lab.driver(host=relay.host, deadline=1), lab.request()
    await started(driver, request)
    relay.hang = True
    with pytest.raises(BackendUnreachable):
        await driver.list_owned()
    relay.hang = False
    relay.cut()

    async def answers() -> bool:
        try:
            return [one.reading for one in await driver.list_owned()] == [Reading.RUNNING]
        except BackendUnreachable:
            return False

    await eventually(answers)


async def test_events_wake_the_workspace_that_changed(lab: Lab) -> None:
    driver, request = lab.driver(), lab.request()
    async with watching(driver) as (woken, _):
        await started(driver, request)
        await eventually(lambda: _contains(woken, request.ref.uid))
        woken.clear()
        lab.api.kill(name_of(request))
        await eventually(lambda: _contains(woken, request.ref.uid))
        woken.clear()
        lab.api.remove_container(name_of(request))
        await eventually(lambda: _contains(woken, request.ref.uid))
    await _no_event_threads()


async def test_events_of_another_cluster_wake_nobody(lab: Lab) -> None:
    """I-15."""
    driver, other = lab.driver(), lab.driver(cluster="another")
    ours, theirs = lab.request(), lab.request(lab.ref(cluster="another"))
    async with watching(driver) as (woken, _):
        try:
            await started(other, theirs)
            await started(driver, ours)
            await eventually(lambda: _contains(woken, ours.ref.uid))
            assert theirs.ref.uid not in woken
        finally:
            lab.api.remove_container(name_of(theirs), force=True)


async def test_a_broken_event_stream_is_told_and_what_was_missed_is_replayed(lab: Lab, relay: Relay) -> None:
    """I-46: the caller lists anew, then watches again from where the stream broke."""
    driver, request = lab.driver(host=relay.host), lab.request()
    await started(driver, request)
    async with watching(driver) as (_, task):
        relay.cut()
        with pytest.raises(BackendUnreachable):
            await asyncio.wait_for(task, 5)
    lab.api.kill(name_of(request))
    async with watching(driver) as (woken, _):
        await eventually(lambda: _contains(woken, request.ref.uid))


async def test_silence_is_no_end_of_the_stream_while_the_engine_lives(lab: Lab, relay: Relay) -> None:
    driver, request = lab.driver(host=relay.host, silence=0.3), lab.request()
    async with watching(driver) as (woken, task):
        await asyncio.sleep(1.5)
        assert not task.done()
        await started(driver, request)
        await eventually(lambda: _contains(woken, request.ref.uid))


async def test_an_engine_that_dies_silently_ends_the_stream(lab: Lab, relay: Relay) -> None:
    """I-46: a watch does not go silent for hours."""
    driver = lab.driver(host=relay.host, silence=0.5, deadline=1)
    async with watching(driver) as (_, task):
        relay.hang = True
        with pytest.raises(BackendUnreachable):
            await asyncio.wait_for(task, 5)


async def test_construction_makes_no_call_and_close_leaves_the_containers(lab: Lab, relay: Relay) -> None:
    driver, request = lab.driver(host=relay.host), lab.request()
    await asyncio.sleep(0.1)
    assert relay.seen == []
    await started(driver, request)
    await driver.close()
    with pytest.raises(BackendUnreachable):
        await driver.list_owned()
    (left,) = await lab.driver().list_owned()
    assert isinstance(left, Instance) and left.reading is Reading.RUNNING


async def test_a_listing_is_one_call_whatever_the_number(lab: Lab, relay: Relay) -> None:
    driver = lab.driver(host=relay.host)
    await asyncio.gather(*(started(driver, lab.request()) for _ in range(5)))
    relay.seen.clear()
    assert len(await driver.list_owned()) == 5
    assert len(relay.seen) == 1, relay.seen


async def test_a_tcp_engine_publishes_at_its_own_host(lab: Lab, engine: Any) -> None:
    relay = Relay(engine.host.removeprefix("unix://"))
    try:
        driver = lab.driver(host=relay.host, publish_address="0.0.0.0")
        instance = await started(driver, lab.request(port=80))
        assert instance.address is not None and instance.address.startswith("127.0.0.1:")
    finally:
        relay.close()


async def _contains(woken: list[str], uid: str) -> bool:
    return uid in woken


async def _no_event_threads() -> None:
    async def none_left() -> bool:
        return not [one for one in threading.enumerate() if one.name == "docker-events"]

    await eventually(none_left, 3)
