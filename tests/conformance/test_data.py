"""Data: it survives pause, stop and every new incarnation, and goes only when asked and only after the compute."""

from __future__ import annotations

from tests.conformance.rigs import Rig
from tests.conformance.steps import AT_ONCE, counted, eventually, halt, live, release, requires, run

from workspace_operator.api import meta
from workspace_operator.api.states import Capability
from workspace_operator.backends.protocol import Backend, Instance, Progress, Reading, WorkspaceRef

SIZE = 3 * 2**29 + 1  # bytes, of no whole unit


async def deleted(backend: Backend, ref: WorkspaceRef) -> None:
    async def probe() -> bool:
        return await backend.delete_data(ref)

    await eventually(probe, "the data deleted")


async def test_a_pause_keeps_the_data_and_a_resume_has_it(rig: Rig) -> None:
    backend = await rig.make()
    requires(backend, Capability.VOLUMES)
    request = rig.provision(rig.ref())
    await run(backend, request)
    await counted(rig, request.ref, 1)
    await halt(backend, request.ref)
    await run(backend, request)
    await counted(rig, request.ref, 2)


async def test_a_release_keeps_the_data_and_the_next_incarnation_has_it(rig: Rig) -> None:
    """I-08, I-16: a volume outlives every instance."""
    backend = await rig.make()
    requires(backend, Capability.VOLUMES)
    ref = rig.ref()
    await run(backend, rig.provision(ref, 1))
    await counted(rig, ref, 1)
    await release(backend, ref)
    await counted(rig, ref, 1)
    await run(backend, rig.provision(ref, 2))
    await counted(rig, ref, 2)


async def test_the_data_carries_the_labels_of_its_owner(rig: Rig) -> None:
    """I-13: every volume is labelled."""
    backend = await rig.make()
    requires(backend, Capability.VOLUMES)
    request = rig.provision(rig.ref())
    await run(backend, request)
    labels = await rig.data_labels(request.ref)
    assert labels is not None
    expected = {
        meta.LABEL_CLUSTER: request.ref.cluster,
        meta.LABEL_UID: request.ref.uid,
        meta.LABEL_NAMESPACE: request.ref.namespace,
        meta.LABEL_NAME: request.ref.name,
        meta.MANAGED_BY_LABEL: meta.MANAGED_BY,
    }
    assert {key: labels.get(key) for key in expected} == expected


async def test_a_volume_is_as_large_as_its_workspace_asks(rig: Rig) -> None:
    """At least; and that of one that asks for nothing is the class's own."""
    backend = await rig.make()
    requires(backend, Capability.VOLUME_SIZE)
    sized, plain = rig.provision(rig.ref(), storage=SIZE), rig.provision(rig.ref())
    for request in (sized, plain):
        await run(backend, request)
        await counted(rig, request.ref, 1)
    assert await rig.data_size(sized.ref) >= SIZE
    assert await rig.data_size(plain.ref) != await rig.data_size(sized.ref)


async def test_a_size_is_accepted_and_never_changes_a_volume_that_exists(rig: Rig) -> None:
    """I-08: on every backend, so that the same manifest runs on any; the data is found whatever is asked by then."""
    backend = await rig.make()
    requires(backend, Capability.VOLUMES)
    ref = rig.ref()
    for incarnation, storage in ((1, SIZE), (2, 2 * SIZE), (3, None)):
        await run(backend, rig.provision(ref, incarnation, storage=storage))
        await counted(rig, ref, incarnation)
        await release(backend, ref)
    if Capability.VOLUME_SIZE in backend.capabilities:
        assert SIZE <= await rig.data_size(ref) < 2 * SIZE


async def test_data_is_not_deleted_under_a_live_instance(rig: Rig) -> None:
    backend = await rig.make()
    requires(backend, Capability.VOLUMES)
    request = rig.provision(rig.ref())
    await run(backend, request)
    await counted(rig, request.ref, 1)
    assert await backend.delete_data(request.ref) is False
    assert len(live(await backend.observe(request.ref))) == 1
    await counted(rig, request.ref, 1)


async def test_data_is_gone_after_its_deletion_and_only_then(rig: Rig) -> None:
    """I-13: what should go is seen gone."""
    backend = await rig.make()
    requires(backend, Capability.VOLUMES)
    request = rig.provision(rig.ref())
    await run(backend, request)
    await counted(rig, request.ref, 1)
    await release(backend, request.ref)
    assert await rig.data_labels(request.ref) is not None
    await deleted(backend, request.ref)
    assert await rig.data_labels(request.ref) is None
    await deleted(backend, request.ref)


async def test_deletion_of_data_that_never_was_succeeds(rig: Rig) -> None:
    """I-10: nothing to delete does not hold up a deletion."""
    backend = await rig.make()
    assert await backend.delete_data(rig.ref()) is True


async def test_a_restart_replaces_and_never_runs_two(rig: Rig) -> None:
    """I-06, I-24: watched from outside at every moment of it."""
    backend, observer = await rig.make(), await rig.make()
    ref = rig.ref()
    await run(backend, rig.provision(ref, 1))
    await counted(rig, ref, 1)
    most = 0

    async def replaced() -> bool:
        nonlocal most
        answer: Instance | Progress | None = await backend.restart(rig.provision(ref, 2), AT_ONCE)
        seen = await observer.observe(ref)
        most = max(most, len(live(seen)))
        ready = [i for i in seen if i.incarnation == 2 and i.reading is Reading.RUNNING]
        return isinstance(answer, Instance) and bool(ready)

    await eventually(replaced, "incarnation 2 running")
    assert most == 1
    assert [i.incarnation for i in await backend.observe(ref)] == [2]
    await counted(rig, ref, 2)


async def test_a_restart_of_nothing_is_a_provision(rig: Rig) -> None:
    """I-09: the crash between release and provision resolves by asking again."""
    backend = await rig.make()
    ref = rig.ref()

    async def replaced() -> bool:
        answer = await backend.restart(rig.provision(ref, 2), AT_ONCE)
        return isinstance(answer, Instance)

    await eventually(replaced, "incarnation 2")
    await counted(rig, ref, 1)
