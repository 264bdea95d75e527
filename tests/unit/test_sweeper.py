"""The sweeper's order of work: what it reads, what it refuses to conclude, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tests.support.sweeps import KUBE_SYSTEM, Sweeps
from tests.unit.kit import body

from workspace_operator.api.meta import RELEASE_FUSE_ANNOTATION
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import ConditionStatus, Reading
from workspace_operator.backends.protocol import Instance, StopRequest, WorkspaceRef
from workspace_operator.errors import BackendUnreachable
from workspace_operator.kube.client import KubeError, workspaces
from workspace_operator.reconcile import sweeper as module


class Cloud:
    """Keeps instances, tells in which order it was asked, and removes at once."""

    capabilities: frozenset[Any] = frozenset()

    def __init__(self, calls: list[str], *uids: str) -> None:
        self.calls, self.fails = calls, None
        self.instances = {uid: Instance(WorkspaceRef("k", uid, "n", uid, "c"), 1, Reading.RUNNING, uid) for uid in uids}

    async def list_owned(self) -> tuple[Instance, ...]:
        self.calls.append("LIST backend")
        if self.fails is not None:
            raise self.fails
        return tuple(self.instances.values())

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        assert request.release
        self.calls.append(f"STOP {request.ref.uid}")
        if self.fails is not None:
            raise self.fails
        del self.instances[request.ref.uid]
        return ()


class Rig(Sweeps):
    """A sweeper with a clock of its own, and a class that removes after one more look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uids: tuple[str, ...], owned: tuple[str, ...], **sweep: Any):
        self.now, calls = 1000.0, list[str]()
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.cloud = Cloud(calls, *uids)
        super().__init__(self.cloud, **{"gracePeriod": "0s", "maxPercent": 100, **sweep})  # type: ignore[arg-type]
        self.api.calls = calls
        for uid in owned:
            self.own(self.cloud.instances[uid].ref)

    async def sweeps(self, times: int = 1) -> Any:
        for _ in range(times):
            self.now += 100
            report = await self.sweep()
        return report


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    def make(*uids: str, owned: tuple[str, ...] = (), **sweep: Any) -> Rig:
        return Rig(monkeypatch, uids, owned, **sweep)

    yield make


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


def test_the_backend_is_listed_before_the_api_server(rig: Callable[..., Rig]) -> None:
    """So that whatever is created in between is seen with its owner."""

    async def work() -> None:
        it = rig("kept", owned=("kept",))
        report = await it.sweeps()
        assert it.api.calls == ["LIST backend", f"GET {KUBE_SYSTEM}", f"LIST {workspaces()}"]
        assert report.swept[:2] == (ConditionStatus.TRUE, Reason.SWEEP_COMPLETE)

    run(work)


def test_an_orphan_goes_after_a_fresh_read_and_is_reported_when_seen_gone(rig: Callable[..., Rig]) -> None:
    """I-17: reported once, and never asked for again."""

    async def work() -> None:
        it = rig("kept", "lost", owned=("kept",))
        await it.sweeps(2)
        assert it.api.calls[-2:] == [f"GET {workspaces('n', 'lost')}", "STOP lost"]
        assert not it.told, "not yet seen gone"
        report = await it.sweeps()
        assert [reason for reason, _ in it.told] == [Reason.ORPHAN_REMOVED]
        assert (report.status.removed, report.status.orphans) == (1, 0)
        await it.sweeps(2)
        assert it.api.calls.count("STOP lost") == 1

    run(work)


def test_a_workspace_that_appears_at_the_last_moment_keeps_its_compute(rig: Callable[..., Rig]) -> None:
    """The listing was stale or another one's; the fresh read decides."""

    async def work() -> None:
        it = rig("lost")
        await it.sweeps()
        it.api.before = lambda method, url: (
            it.own(it.cloud.instances["lost"].ref) if method == "GET" and url.endswith("/lost") else None
        )
        await it.sweeps()
        assert "STOP lost" not in it.api.calls

    run(work)


def test_spoilt_labels_lead_to_the_uid(rig: Callable[..., Rig]) -> None:
    """What a hand wrote into a label never becomes a path of the API."""

    async def work() -> None:
        it = rig("lost")
        spoilt = WorkspaceRef("k", "lost", "../..", "", "c")
        it.cloud.instances["lost"] = Instance(spoilt, 0, Reading.RUNNING, "lost")
        await it.sweeps(2)
        assert it.api.calls[-2:] == [f"LIST {workspaces()}", "STOP lost"]

    run(work)


def test_a_namesake_is_not_the_owner(rig: Callable[..., Rig]) -> None:
    """Identity is the UID: a workspace made anew under the same name owns nothing of its predecessor (I-11)."""

    async def work() -> None:
        it = rig("lost")
        it.api.objects[workspaces("n", "lost")] = body("lost", uid="new", className="c")
        await it.sweeps(2)
        assert it.api.calls[-1] == "STOP lost"

    run(work)


@pytest.mark.parametrize("side", ["backend", "api", "page", "identity", "recheck"])
def test_an_error_of_either_side_removes_nothing(rig: Callable[..., Rig], side: str) -> None:
    """I-40: an error is not a reading, and half a listing is none."""

    async def work() -> None:
        it = rig("lost", "kept", owned=("kept",))
        await it.sweeps()

        def refuse(method: str, url: str) -> None:
            bad = {"api": method == "LIST", "page": method == "LIST", "identity": url == KUBE_SYSTEM}
            if bad.get(side, side == "recheck" and url.endswith("/lost")):
                raise KubeError(410 if side == "page" else 503, "The listing is too old.")

        it.api.before = refuse
        if side == "backend":
            it.cloud.fails = BackendUnreachable(Reason.BACKEND_UNREACHABLE, "It does not answer.")
        report = await it.sweeps(2)
        assert "STOP lost" not in it.api.calls
        if side != "recheck":
            assert report.swept[:2] == (ConditionStatus.UNKNOWN, Reason.SWEEP_FAILED)
        it.api.before, it.cloud.fails = lambda method, url: None, None
        await it.sweeps(2)
        assert "STOP lost" in it.api.calls

    run(work)


def test_another_cluster_behind_the_same_address_removes_nothing(rig: Callable[..., Rig]) -> None:
    """I-15, I-16."""

    async def work() -> None:
        it = rig("kept", owned=("kept",))
        it.api.objects = {KUBE_SYSTEM: {"metadata": {"uid": "another"}}}
        report = await it.sweeps(3)
        assert "another cluster" in report.swept[2] and "STOP kept" not in it.api.calls

    run(work)


def test_who_lost_the_lead_removes_nothing(rig: Callable[..., Rig]) -> None:
    """I-90: asked before the verb, like every other."""

    async def work() -> None:
        it = rig("lost")
        await it.sweeps()
        it.may_act = False
        await it.sweeps()
        assert "STOP lost" not in it.api.calls

    run(work)


def test_a_paused_workspace_with_running_compute_is_handed_to_its_pass(rig: Callable[..., Rig]) -> None:
    """I-18: found by the sweeper, stopped under the workspace's own lock."""

    async def work() -> None:
        it = rig("odd")
        it.own(it.cloud.instances["odd"].ref, effectiveState="Paused")
        report = await it.sweeps(2)
        assert (it.stale, it.woken) == (["odd"], ["n/odd"])
        assert report.swept[1] == Reason.ORPHANS_FOUND and "should not run" in report.swept[2]
        assert "STOP odd" not in it.api.calls

    run(work)


def test_removals_are_rate_limited(rig: Callable[..., Rig]) -> None:
    """A tenth of the minute's budget at once."""

    async def work() -> None:
        it = rig(*(f"u{n}" for n in range(30)), maxPerMinute=60)
        await it.sweeps(2)
        assert sum(call.startswith("STOP") for call in it.api.calls) == 6
        assert it.sweeper.is_due("c") is False
        it.now += 16  # the class's observe interval
        assert it.sweeper.is_due("c") is True

    run(work)


def test_what_is_seen_gone_only_behind_a_blown_fuse_counts_all_the_same(rig: Callable[..., Rig]) -> None:
    """I-16: three at a time, each taking its time to stop, a wipe would otherwise pass the fuse."""

    async def work() -> None:
        it = rig("l1", "l2", "l3", "kept", owned=("kept",), maxPercent=20)
        there, asked = it.cloud.instances, []

        async def slow(request: StopRequest) -> tuple[Instance, ...]:
            asked.append(request.ref.uid)
            return (there[request.ref.uid],)

        it.cloud.stop = slow  # type: ignore[method-assign]
        await it.sweeps(2)
        assert sorted(asked) == ["l1", "l2", "l3"]
        there["l4"] = Instance(WorkspaceRef("k", "l4", "n", "l4", "c"), 1, Reading.RUNNING, "l4")
        assert (await it.sweeps()).status.fuse is not None
        for uid in asked:
            del there[uid]
        assert (await it.sweeps(2)).status.fuse is not None and "l4" not in asked

    run(work)


def test_the_blown_fuse_says_what_to_do_and_outlives_the_operator(rig: Callable[..., Rig]) -> None:
    """I-16."""

    async def work() -> None:
        it = rig(*(f"u{n}" for n in range(10)), maxPercent=20)
        report = await it.sweeps(3)
        token = report.status.fuse.token
        assert report.stalled[0] is ConditionStatus.TRUE
        assert f"{RELEASE_FUSE_ANNOTATION}={token}" in report.stalled[2]
        assert [reason for reason, _ in it.told] == [Reason.SWEEP_FUSE_BLOWN], "said once"
        class_ = it.store.classes["c"]
        status = class_.status.model_copy(update={"sweep": report.status})
        it.restart()
        released = {**class_.metadata.annotations, RELEASE_FUSE_ANNOTATION: token}
        metadata = class_.metadata.model_copy(update={"annotations": released})
        it.store.classes["c"] = class_.model_copy(update={"status": status, "metadata": metadata})
        await it.sweeps(2)
        assert sum(call.startswith("STOP") for call in it.api.calls) == 6

    run(work)


def test_report_mode_tells_once(rig: Callable[..., Rig]) -> None:
    async def work() -> None:
        it = rig("lost", mode="Report")
        await it.sweeps(4)
        assert [reason for reason, _ in it.told] == [Reason.ORPHANS_FOUND]
        assert "STOP lost" not in it.api.calls

    run(work)


def test_gauges_tell_how_long_an_orphan_is_known_and_when_it_was_to_be_gone(rig: Callable[..., Rig]) -> None:
    """An alert compares the two, so it holds for any interval and grace."""

    def gauge(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"workspace_operator_{name}", {"class": "c", **labels})

    async def work() -> None:
        it = rig("lost", mode="Report", interval="10m", gracePeriod="2m")
        await it.sweeps(3)
        assert gauge("orphans", kind="NoWorkspace") == 1
        assert gauge("orphan_oldest_seconds", kind="NoWorkspace") == 200
        assert gauge("sweep_bound_seconds") == 720
        it.cloud.instances.clear()
        await it.sweeps()
        assert gauge("orphan_oldest_seconds", kind="NoWorkspace") == 0

    run(work)
