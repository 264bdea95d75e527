"""Provision: the name is the intent, and there is never more than one live instance."""

from __future__ import annotations

import asyncio

import pytest
from tests.conformance.rigs import Rig, Workload
from tests.conformance.steps import counted, eventually, halt, live, only, release, run, started, until

from workspace_operator.api.states import Capability
from workspace_operator.backends.protocol import Instance, Reading
from workspace_operator.errors import BackendError


async def test_check_describes_a_working_backend(rig: Rig) -> None:
    """I-82: a class that is configured completely says so."""
    backend = await rig.make(check=False)
    assert (await backend.check()).strip()


async def test_what_was_never_provisioned_is_absent(rig: Rig) -> None:
    backend = await rig.make()
    assert await backend.observe(rig.ref()) == ()
    assert await backend.list_owned() == ()


async def test_provision_is_idempotent(rig: Rig) -> None:
    """I-06: asking again for what exists adopts it."""
    backend = await rig.make()
    request = rig.provision(rig.ref())
    first = await run(backend, request)
    again = await started(backend, request)
    assert again is not None
    assert again.id == first.id
    await counted(rig, request.ref, 1)
    assert (await only(backend, request.ref)).id == first.id


async def test_two_operators_by_mistake_make_one_instance(rig: Rig) -> None:
    """I-06, I-11, I-90: the backend itself decides who is first."""
    one, two = await rig.make(), await rig.make()
    request = rig.provision(rig.ref())
    answers = await asyncio.gather(
        *(backend.provision(request) for backend in (one, two, one, two)), return_exceptions=True
    )
    assert any(isinstance(answer, Instance) for answer in answers), answers
    assert all(isinstance(answer, Instance | BackendError) for answer in answers), answers
    await until(two, request.ref, Reading.RUNNING)
    assert len(live(await one.observe(request.ref))) == 1
    await counted(rig, request.ref, 1)
    await asyncio.sleep(0.3)
    await counted(rig, request.ref, 1)


async def test_an_operator_that_crashed_after_create_is_followed_by_one_that_adopts(rig: Rig) -> None:
    """I-05, I-06, I-09: nothing that only memory held is needed to find the instance."""
    request = rig.provision(rig.ref())
    before = await rig.make()
    first = await run(before, request)
    await before.close()
    after = await rig.make()
    found = await only(after, request.ref)
    assert (found.id, found.reading) == (first.id, Reading.RUNNING)
    adopted = await started(after, request)
    assert adopted is not None
    assert adopted.id == first.id
    await counted(rig, request.ref, 1)
    await release(after, request.ref)


async def test_an_operator_that_died_during_create_leaves_one_instance_at_most(rig: Rig) -> None:
    """I-06, I-09: a cancelled call is asked again under the same name."""
    request = rig.provision(rig.ref())
    before = await rig.make()
    call = asyncio.create_task(before.provision(request))
    await asyncio.sleep(0.002)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    after = await rig.make()
    await run(after, request)
    await counted(rig, request.ref, 1)
    assert len(live(await after.observe(request.ref))) == 1


async def test_a_second_incarnation_is_refused_while_the_first_lives(rig: Rig) -> None:
    """I-06, I-08: at most one live instance per workspace at every moment."""
    backend = await rig.make()
    ref = rig.ref()
    await run(backend, rig.provision(ref, 1))
    with pytest.raises(BackendError):
        await started(backend, rig.provision(ref, 2))
    assert [i.incarnation for i in live(await backend.observe(ref))] == [1]


async def test_a_workload_that_ends_by_itself_reads_halted_with_its_exit_code(rig: Rig) -> None:
    """I-40: an end is a reading of its own, told apart from an error."""
    backend = await rig.make()
    request = rig.provision(rig.ref(), workload=Workload.FAILING)
    await started(backend, request)
    ended = Reading.HALTED if Capability.HALT in backend.capabilities else Reading.FAILED  # it must be released
    seen = await until(backend, request.ref, ended)
    assert seen.exit_code == 3


async def test_a_workload_that_ended_can_be_started_again(rig: Rig) -> None:
    backend = await rig.make()
    request = rig.provision(rig.ref())
    await run(backend, request)
    await counted(rig, request.ref, 1)
    kept = await halt(backend, request.ref)
    again = await run(backend, request)
    assert kept is None or again.id == kept.id
    await counted(rig, request.ref, 2)


async def test_an_agent_port_is_reachable_at_the_address_shown(rig: Rig) -> None:
    """I-56: the endpoint comes from observation."""
    backend = await rig.make()
    request = rig.provision(rig.ref(), workload=Workload.SERVING, port=True)
    seen = await run(backend, request)
    assert seen.address is not None
    host, _, port = seen.address.rpartition(":")

    async def answers() -> bool:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        try:
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            await writer.drain()
            return (await reader.read(4)) == b"HTTP"
        except OSError:
            return False
        finally:
            writer.close()

    await eventually(answers, f"an answer at {seen.address}")


async def test_without_a_port_there_is_no_address(rig: Rig) -> None:
    backend = await rig.make()
    assert (await run(backend, rig.provision(rig.ref()))).address is None
