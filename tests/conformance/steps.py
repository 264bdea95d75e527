"""Steps that the conformance tests share, in the words of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import pytest
from tests.conformance.rigs import Rig

from workspace_operator.api.states import Capability
from workspace_operator.backends.protocol import (
    LIVE,
    Backend,
    Instance,
    Progress,
    ProvisionRequest,
    Reading,
    StopRequest,
    WorkspaceRef,
)

T = TypeVar("T")
AT_ONCE = timedelta(0)
GRACE = timedelta(seconds=10)
PATIENCE = 20.0  # seconds; a backend that needs longer for one effect fails


def requires(backend: Backend, capability: Capability) -> None:
    """Skip the test on a backend that says that it cannot do this."""
    if capability not in backend.capabilities:
        pytest.skip(f"no {capability}")


async def eventually(probe: Callable[[], Awaitable[T | None]], what: str) -> T:
    """The first answer that is not None or False."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        found = await probe()
        if found is not None and found is not False:
            return found
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"not seen within {PATIENCE:.0f} s: {what}")
        await asyncio.sleep(0.02)


async def only(backend: Backend, ref: WorkspaceRef) -> Instance:
    """The one instance of a workspace."""
    seen = await backend.observe(ref)
    assert len(seen) == 1, seen
    return seen[0]


async def until(backend: Backend, ref: WorkspaceRef, reading: Reading, incarnation: int = 1) -> Instance:
    """Observe until an incarnation reads as wanted."""

    async def probe() -> Instance | None:
        seen = await backend.observe(ref)
        return next((i for i in seen if i.incarnation == incarnation and i.reading is reading), None)

    return await eventually(probe, f"incarnation {incarnation} reading {reading}")


async def started(backend: Backend, request: ProvisionRequest) -> Instance | None:
    """Provision, asking again while the backend reports progress; the answer of the verb."""

    async def probe() -> Instance | None:
        answer = await backend.provision(request)
        return None if isinstance(answer, Progress) else answer

    return await eventually(probe, "an instance after provision")


async def run(backend: Backend, request: ProvisionRequest) -> Instance:
    """Provision and see it running."""
    await started(backend, request)
    return await until(backend, request.ref, Reading.RUNNING, request.incarnation)


async def counted(rig: Rig, ref: WorkspaceRef, times: int) -> None:
    """The workload has counted its start and set its traps."""

    async def probe() -> bool:
        return ((await rig.read_data(ref, "counter")) or "").strip() == str(times)

    await eventually(probe, f"the workload's start number {times}")


async def halt(backend: Backend, ref: WorkspaceRef, grace: timedelta = GRACE) -> Instance | None:
    """Stop, asking again as the operator does, until no compute is seen; what stays of it, where something does."""

    async def probe() -> tuple[Instance | None, ...] | None:
        left = await backend.stop(StopRequest(ref, grace))
        return None if any(i.reading in LIVE for i in left) else (None, *left)

    found = (await eventually(probe, "the instance halted"))[-1]
    assert found is not None or Capability.HALT not in backend.capabilities
    return found


async def halted(backend: Backend, ref: WorkspaceRef) -> Instance | None:
    """An instance that was stopped is seen to be: it is halted, or gone where the backend keeps nothing of it."""
    if Capability.HALT in backend.capabilities:
        return await until(backend, ref, Reading.HALTED)

    async def probe() -> bool:
        return not await backend.observe(ref)

    await eventually(probe, "the instance gone")
    return None


async def release(backend: Backend, ref: WorkspaceRef, grace: timedelta = GRACE) -> None:
    """Stop and release, asking again as the operator does, until the workspace is absent."""

    async def probe() -> bool:
        return not await backend.stop(StopRequest(ref, grace, release=True))

    await eventually(probe, "the instance released")
    assert await backend.observe(ref) == ()


def live(instances: tuple[Instance, ...]) -> list[Instance]:
    """Those that may execute."""
    return [instance for instance in instances if instance.reading in LIVE]
