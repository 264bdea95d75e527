"""What the observer believes: listings, answers of verbs, events, and errors that are no readings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.unit.kit import workspace_class

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability, Reading
from workspace_operator.backends.door import Door
from workspace_operator.backends.protocol import Instance, WorkspaceRef
from workspace_operator.errors import BackendUnreachable
from workspace_operator.reconcile import observer as module
from workspace_operator.reconcile.observer import Observer
from workspace_operator.telemetry.loops import Supervisor

REF = WorkspaceRef("k", "u", "n", "w", "c")


def unit(reading: Reading = Reading.RUNNING, uid: str = "u") -> Instance:
    return Instance(WorkspaceRef("k", uid, "n", "w", "c"), 1, reading, "i-1")


class ScriptedBackend:
    """Shows what it is told to."""

    capabilities: frozenset[Capability] = frozenset()

    def __init__(self) -> None:
        self.shows: tuple[Instance, ...] = ()
        self.fails: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.wake: Callable[[str], None] | None = None
        self.broken = asyncio.Event()
        self.listings = 0

    async def list_owned(self) -> tuple[Instance, ...]:
        self.listings += 1
        shown = self.shows
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return shown

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        if self.fails is not None:
            raise self.fails
        return self.shows

    async def watch(self, wake: Callable[[str], None]) -> None:
        self.wake = wake
        await self.broken.wait()
        self.broken.clear()
        raise BackendUnreachable(Reason.BACKEND_UNREACHABLE, "The stream broke.")

    async def close(self) -> None:
        """Nothing to close."""


class Scene:
    """One class that is followed."""

    def __init__(self) -> None:
        self.backend = ScriptedBackend()
        self.woken: list[str] = []
        self.classes_woken: list[str] = []
        self.supervisor = Supervisor()
        self.door = Door("k", self._no_secret, drivers={"process": lambda *_: self.backend})  # type: ignore[dict-item]
        self.observer = Observer(self.door, self.supervisor, self.woken.append, self.classes_woken.append)

    @staticmethod
    async def _no_secret(namespace: str, name: str) -> dict[str, bytes]:
        return {}

    async def follow(self) -> None:
        class_ = workspace_class(observeInterval="1h")
        await self.door.open(class_)
        await self.observer.follow(class_)

    async def list(self) -> None:
        await self.observer._list("c")

    def look(self) -> tuple[tuple[Instance, ...], Any]:
        return self.observer.look("c", "u")


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    await scene.supervisor.stop_all()


async def test_before_the_first_listing_nothing_is_known(scene: Scene) -> None:
    """I-40."""
    instances, problem = scene.look()
    assert instances == () and problem is not None and problem.reason == Reason.NOT_OBSERVED


async def test_a_listing_shows_each_workspace_its_own(scene: Scene) -> None:
    scene.backend.shows = (unit(), unit(uid="other"))
    await scene.follow()
    assert scene.look() == ((unit(),), None)
    assert scene.observer.look("c", "stranger") == ((), None)


async def test_looking_costs_no_backend_call(scene: Scene) -> None:
    await scene.follow()
    for _ in range(100):
        scene.look()
    assert scene.backend.listings == 1


async def test_a_failed_listing_is_a_problem_and_not_an_absence(scene: Scene) -> None:
    """I-40."""
    scene.backend.shows = (unit(),)
    await scene.follow()
    scene.backend.fails = BackendUnreachable(Reason.BACKEND_UNREACHABLE, "No answer.")
    with pytest.raises(BackendUnreachable):
        await scene.list()
    instances, problem = scene.look()
    assert problem is not None and problem.message == "No answer."
    assert instances == (unit(),), "what was seen is not forgotten"
    scene.backend.fails = None
    await scene.list()
    assert scene.look()[1] is None
    assert scene.classes_woken.count("c") >= 2, "its workspaces hear of both"


async def test_an_unforeseen_error_is_a_problem_too(scene: Scene) -> None:
    """I-40."""
    await scene.follow()
    scene.backend.fails = ValueError("secret detail")
    with pytest.raises(ValueError, match="secret"):
        await scene.list()
    problem = scene.look()[1]
    assert problem is not None and "secret" not in problem.message


async def test_a_listing_begun_before_a_verbs_answer_does_not_undo_it(scene: Scene) -> None:
    """I-11, I-23: a stale listing."""
    await scene.follow()
    scene.backend.shows = (unit(Reading.RUNNING),)
    scene.backend.gate = asyncio.Event()
    listing = asyncio.create_task(scene.list())
    await asyncio.sleep(0.01)
    scene.observer.note(REF, (unit(Reading.HALTED),))
    scene.backend.gate.set()
    await listing
    assert scene.look() == ((unit(Reading.HALTED),), None)


async def test_a_listing_begun_after_it_does(scene: Scene) -> None:
    await scene.follow()
    scene.observer.note(REF, (unit(Reading.HALTED),))
    scene.backend.shows = ()
    await scene.list()
    assert scene.look() == ((), None)


async def test_only_a_change_wakes_a_pass(scene: Scene) -> None:
    scene.backend.shows = (unit(),)
    await scene.follow()
    scene.woken.clear()
    await scene.list()
    assert scene.woken == []
    scene.backend.shows = (unit(Reading.HALTED),)
    await scene.list()
    assert scene.woken == ["u"]


async def test_what_vanished_from_the_listing_wakes_its_pass(scene: Scene) -> None:
    scene.backend.shows = (unit(),)
    await scene.follow()
    scene.woken.clear()
    scene.backend.shows = ()
    await scene.list()
    assert (scene.woken, scene.look()) == (["u"], ((), None))


async def test_an_event_makes_the_view_stale_until_a_fresh_look(scene: Scene) -> None:
    await scene.follow()
    await asyncio.sleep(0)
    assert scene.backend.wake is not None
    scene.backend.wake("u")
    await asyncio.sleep(0.01)
    assert scene.observer.is_stale("c", "u") and "u" in scene.woken
    await scene.observer.look_closely(REF)
    assert not scene.observer.is_stale("c", "u")


async def test_a_broken_event_stream_is_followed_by_a_listing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-46: what the stream missed."""
    monkeypatch.setattr(module, "_RETRY_WATCH", 0.01)
    await scene.follow()
    await asyncio.sleep(0)
    scene.backend.shows = (unit(),)
    scene.backend.broken.set()
    async with asyncio.timeout(2):
        while scene.look()[0] != (unit(),):
            await asyncio.sleep(0.005)


async def test_a_watch_that_dies_of_a_bug_ends_the_process(scene: Scene) -> None:
    """I-44."""

    async def watch(wake: object) -> None:
        raise RuntimeError("a bug")

    scene.backend.watch = watch  # type: ignore[method-assign]
    await scene.follow()
    async with asyncio.timeout(2):
        assert await scene.supervisor.died == "watch/c"


async def test_a_class_that_is_gone_is_not_followed_any_more(scene: Scene) -> None:
    scene.backend.shows = (unit(),)
    await scene.follow()
    await scene.observer.unfollow("c")
    assert scene.look()[1] is not None
    scene.observer.note(REF, ())
    with pytest.raises(BackendUnreachable):
        await scene.observer.look_closely(REF)
