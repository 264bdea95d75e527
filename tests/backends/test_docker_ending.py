"""How the Docker driver freezes, stops and kills, and what it says of an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.backends.docker_kit import Lab, ended, eventually, lab_of, released, started, stopping

from workspace_operator.api.states import Capability
from workspace_operator.backends.docker import DockerDriver
from workspace_operator.backends.protocol import Instance, Reading

pytestmark = pytest.mark.engine


@pytest.fixture
async def lab(engine: Any) -> AsyncIterator[Lab]:
    """The engine, with this test's own cluster id."""
    async with lab_of(engine) as made:
        yield made


async def test_freeze_keeps_the_process_and_provision_thaws_it(lab: Lab) -> None:
    driver, request = lab.driver(), lab.request()
    assert Capability.FREEZE in driver.capabilities
    await started(driver, request)
    process = lab.inspect(request)["State"]["Pid"]
    for _ in range(2):
        (frozen,) = await driver.stop(stopping(request, freeze=True))
        assert frozen.reading is Reading.FROZEN
    assert (await started(driver, request)).reading is Reading.RUNNING
    assert lab.inspect(request)["State"]["Pid"] == process
    await driver.stop(stopping(request, freeze=True))
    await released(driver, request)


async def test_a_stop_returns_at_once_and_lets_the_process_end_by_itself(lab: Lab) -> None:
    """The grace period is followed by observing; nobody waits inside the verb."""
    script = "trap 'sleep 1; echo bye; exit 7' TERM; while :; do sleep 0.1; done"
    driver, request = lab.driver(), lab.request(command=("/bin/sh", "-c", script))
    await started(driver, request)
    await asyncio.sleep(0.3)
    began = time.monotonic()
    (halting,) = await driver.stop(stopping(request))
    assert time.monotonic() - began < 0.9
    assert halting.reading is Reading.HALTING and halting.halting_since is not None
    (seen,) = await driver.list_owned()
    assert seen.halting_since == halting.halting_since
    again = await driver.provision(request)
    assert isinstance(again, Instance) and again.reading is Reading.HALTING, "an ending one is not revived"
    last = await ended(driver, request)
    assert (last.exit_code, last.halting_since) == (7, None)
    assert "bye" in await driver.logs(request.ref, 5)


async def test_a_process_that_ignores_the_signal_is_killed_after_the_grace_period(lab: Lab) -> None:
    """I-04: a stop is done when nothing runs any more, not when it was asked for."""
    script = "trap '' TERM; while :; do sleep 0.1; done"
    driver, request = lab.driver(), lab.request(command=("/bin/sh", "-c", script))
    await started(driver, request)
    await asyncio.sleep(0.3)
    stop, began = stopping(request, grace=timedelta(seconds=1)), time.monotonic()
    while (await driver.stop(stop))[0].reading is not Reading.HALTED:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.1)
    assert time.monotonic() - began > 1
    (last,) = await driver.observe(request.ref)
    assert last.exit_code == 137


async def test_a_container_that_was_started_again_is_not_read_as_halting(lab: Lab) -> None:
    driver, request = lab.driver(), lab.request()
    await started(driver, request)
    await driver.stop(stopping(request))
    await ended(driver, request)
    assert (await started(driver, request)).reading is Reading.RUNNING
    (halting,) = await driver.stop(stopping(request, grace=timedelta(seconds=30)))
    assert halting.reading in (Reading.HALTING, Reading.HALTED), "it gets a grace period of its own"


async def test_killed_for_memory_is_said(lab: Lab) -> None:
    script = "x=a; while :; do x=$x$x; done"
    driver = lab.driver()
    request = lab.request(command=("/bin/sh", "-c", script), memory=16 * 1024 * 1024)
    await started(driver, request)
    last = await ended(driver, request)
    assert last.reading is Reading.HALTED and last.message == "Killed for using more memory than its limit."


async def test_a_command_that_does_not_exist_is_said(lab: Lab) -> None:
    driver, request = lab.driver(), lab.request(command=("/nonesuch",))
    await started(driver, request)
    last = await ended(driver, request)
    assert last.exit_code == 127 and "does not exist in the image" in last.message


async def test_stops_that_race_each_other_and_a_removal_succeed(lab: Lab) -> None:
    driver, other, request = lab.driver(), lab.driver(), lab.request()
    await started(driver, request)
    stop = stopping(request, release=True, grace=timedelta(0))
    await asyncio.gather(*(one.stop(stop) for one in (driver, other) for _ in range(4)))
    await eventually(lambda: _absent(driver, request))


async def _absent(driver: DockerDriver, request: Any) -> bool:
    return not await driver.observe(request.ref)
