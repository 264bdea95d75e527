"""What no workspace accounts for is removed by the real sweeper, and nothing else is (I-15 to I-18)."""

from __future__ import annotations

from tests.conformance.rigs import Rig
from tests.conformance.steps import counted, eventually, only, run
from tests.support.sweeps import Sweeps

from workspace_operator.backends.protocol import LIVE, Backend, WorkspaceRef


def swept(rig: Rig, backend: Backend, *owned: WorkspaceRef) -> Sweeps:
    """A sweeper that removes what it has seen twice."""
    sweeps = Sweeps(backend, rig.cluster, "conformance", gracePeriod="0s", maxPercent=100)
    for ref in owned:
        sweeps.own(ref)
    return sweeps


async def test_an_orphan_is_removed_and_its_data_stays(rig: Rig) -> None:
    """I-16: the volume is kept, for it may be somebody's work."""
    backend = await rig.make()
    kept, lost = rig.ref(), rig.ref()
    for ref in (kept, lost):
        await run(backend, rig.provision(ref))
    await counted(rig, lost, 1)
    sweeps = swept(rig, backend, kept)

    async def gone() -> bool:
        await sweeps.sweep()
        return not await backend.observe(lost)

    await eventually(gone, "the orphan is gone")
    assert (await sweeps.sweep()).status.removed == 1
    await counted(rig, lost, 1)
    assert (await only(backend, kept)).reading in LIVE
    await backend.delete_data(lost)


async def test_an_orphan_of_another_cluster_is_not_even_seen(rig: Rig) -> None:
    """I-15."""
    other = rig.another_cluster()
    theirs, backend = await rig.make(cluster=other), await rig.make()
    ref = rig.ref(cluster=other)
    await run(theirs, rig.provision(ref))
    sweeps = swept(rig, backend)
    for _ in range(3):
        report = await sweeps.sweep()
        assert report.status.orphans == 0
    assert (await only(theirs, ref)).reading in LIVE


async def test_a_backend_that_is_away_is_swept_when_it_is_back(rig: Rig) -> None:
    """I-40: nothing is concluded in between, and the suspicion is not forgotten."""
    backend = await rig.make()
    lost = rig.ref()
    await run(backend, rig.provision(lost))
    sweeps = swept(rig, backend)
    await sweeps.sweep()
    rig.break_connection()
    away = await rig.make(check=False)
    broken = Sweeps(away, rig.cluster, "conformance", gracePeriod="0s", maxPercent=100)
    report = await broken.sweep()
    assert report.swept[1] == "SweepFailed" and report.status.last_complete_time is None
    rig.mend_connection()

    async def gone() -> bool:
        await sweeps.sweep()
        return not await backend.observe(lost)

    await eventually(gone, "the orphan is gone")
