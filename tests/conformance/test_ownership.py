"""Ownership and errors: a backend shows what is ours, all of it, or raises."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import pytest
from tests.conformance.rigs import Rig
from tests.conformance.steps import (
    AT_ONCE,
    GRACE,
    counted,
    eventually,
    halt,
    halted,
    only,
    release,
    requires,
    run,
)

from workspace_operator.api.states import Capability
from workspace_operator.backends.protocol import Backend, Reading, StopRequest, WorkspaceRef
from workspace_operator.errors import BackendUnreachable


async def test_another_clusters_instances_are_not_seen_stopped_or_deleted(rig: Rig) -> None:
    """I-15: two operators on one engine, with workspaces of the same UID even."""
    ours, other = await rig.make(), rig.another_cluster()
    request = rig.provision(rig.ref())
    await run(ours, request)
    await counted(rig, request.ref, 1)
    theirs = await rig.make(cluster=other)
    twin = rig.ref(cluster=other, uid=request.ref.uid)
    assert await theirs.list_owned() == ()
    assert await theirs.observe(twin) == ()
    assert await theirs.stop(StopRequest(twin, AT_ONCE, release=True)) == ()
    assert await theirs.delete_data(twin) is True
    assert (await only(ours, request.ref)).reading is Reading.RUNNING
    await counted(rig, request.ref, 1)


async def test_a_listing_shows_only_its_own_class(rig: Rig) -> None:
    """I-15: several classes may share one engine."""
    one, two = await rig.make("class-one"), await rig.make("class-two")
    first, second = rig.ref("class-one"), rig.ref("class-two")
    await run(one, rig.provision(first))
    await run(two, rig.provision(second))
    assert [i.ref.uid for i in await one.list_owned()] == [first.uid]
    assert [i.ref.uid for i in await two.list_owned()] == [second.uid]


async def test_a_listing_shows_everything_that_observing_shows(rig: Rig) -> None:
    """I-18: running or halted, nothing of ours is left out."""
    backend = await rig.make()
    refs = [rig.ref() for _ in range(3)]
    for ref in refs:
        await run(backend, rig.provision(ref))
        await counted(rig, ref, 1)
    await halt(backend, refs[0])
    listed = {i.ref.uid: i.reading for i in await (await rig.make()).list_owned()}
    stopped = {refs[0].uid: Reading.HALTED} if Capability.HALT in backend.capabilities else {}
    assert listed == {**stopped, refs[1].uid: Reading.RUNNING, refs[2].uid: Reading.RUNNING}


async def test_an_instance_tells_its_owner_and_its_parameters(rig: Rig) -> None:
    """I-05, I-08: the labels alone say whose it is, which incarnation, and of which parameters."""
    backend = await rig.make()
    request = rig.provision(rig.ref(), 7)
    await run(backend, request)
    (seen,) = await (await rig.make()).list_owned()
    assert seen.ref == request.ref
    assert (seen.incarnation, seen.parameters) == (7, request.parameters)
    assert seen.id


async def test_an_unreachable_backend_is_an_error_and_never_an_empty_answer(rig: Rig) -> None:
    """I-40, I-43: an error is not a reading, on any question and any verb."""
    backend = await rig.make()
    request = rig.provision(rig.ref())
    await run(backend, request)
    rig.break_connection()
    broken = await rig.make(check=False)
    ref = request.ref
    asks: list[Callable[[Backend], Awaitable[object]]] = [
        lambda b: b.list_owned(),
        lambda b: b.observe(ref),
        lambda b: b.stop(StopRequest(ref, GRACE)),
        lambda b: b.stop(StopRequest(ref, AT_ONCE, release=True)),
        lambda b: b.delete_data(ref),
    ]
    for ask in asks:
        with pytest.raises(BackendUnreachable) as caught:
            await ask(broken)
        assert str(caught.value).strip()
    rig.mend_connection()
    assert (await only(await rig.make(), ref)).reading is Reading.RUNNING


async def test_logs_show_the_last_lines(rig: Rig) -> None:
    backend = await rig.make()
    requires(backend, Capability.LOGS)
    request = rig.provision(rig.ref())
    assert await backend.logs(request.ref, 10) == ""
    await run(backend, request)

    async def printed() -> bool:
        return "line 5" in await backend.logs(request.ref, 100)

    await eventually(printed, "the output")
    assert (await backend.logs(request.ref, 2)).splitlines() == ["start 1 line 4", "start 1 line 5"]
    if await halt(backend, request.ref) is not None:
        assert "start 1 line 5" in await backend.logs(request.ref, 100)


async def token_is(rig: Rig, ref: WorkspaceRef, expected: str) -> None:
    """Wait until the workload sees this token."""

    async def probe() -> bool:
        return ((await rig.read_data(ref, "token")) or "").strip() == expected

    await eventually(probe, f"the token {expected!r} in the workload")


async def test_identity_files_are_there_at_the_start(rig: Rig) -> None:
    """I-50: the token is in place before the workload runs."""
    backend = await rig.make()
    request = rig.provision(rig.ref(), files={"token": b"first\n", "ca.crt": b"ca\n"})
    await run(backend, request)
    await token_is(rig, request.ref, "first")


async def test_identity_files_are_replaced_when_delivered(rig: Rig) -> None:
    """I-50: a renewal reaches the running workload."""
    backend = await rig.make()
    requires(backend, Capability.DELIVER)
    request = rig.provision(rig.ref(), files={"token": b"first\n"})
    await run(backend, request)
    await backend.deliver(request.ref, 1, {"token": b"second\n"})
    await token_is(rig, request.ref, "second")
    assert (await only(backend, request.ref)).reading is Reading.RUNNING


async def test_identity_files_are_written_anew_before_each_start(rig: Rig) -> None:
    """I-50, I-51: a resumed workspace never starts with the token that its pause revoked."""
    backend = await rig.make()
    ref = rig.ref()
    await run(backend, rig.provision(ref, files={"token": b"revoked\n"}))
    await counted(rig, ref, 1)
    await halt(backend, ref)
    await run(backend, rig.provision(ref, files={"token": b"fresh\n"}))
    await counted(rig, ref, 2)
    await token_is(rig, ref, "fresh")


async def test_secrets_appear_in_no_repr_reading_or_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """I-53: what is handed over in memory stays there."""
    caplog.set_level(logging.DEBUG)
    backend = await rig.make()
    secret = "s3cr3t-value-that-nobody-prints"
    request = rig.provision(rig.ref(), environment={"API_KEY": secret}, files={"token": f"{secret}-token\n".encode()})
    seen = await run(backend, request)
    listed = await backend.list_owned()
    await halt(backend, request.ref)
    ended = await halted(backend, request.ref)
    await release(backend, request.ref)
    shown = "\n".join([repr(request), repr(seen), repr(listed), repr(ended), repr(backend), caplog.text])
    assert secret not in shown


async def test_a_closed_driver_leaves_instances_as_they_are(rig: Rig) -> None:
    """I-85: an operator's own update disturbs nobody."""
    backend = await rig.make()
    request = rig.provision(rig.ref())
    await run(backend, request)
    await backend.close()
    assert (await only(await rig.make(), request.ref)).reading is Reading.RUNNING
