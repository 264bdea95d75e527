"""What kopf does for the operator, as its handlers notice it: the watch, the finalizer, the deletion, the timer.

Events of one object are handled one after another, only the newest of those that wait; while a deletion handler runs,
the object's events wait. The handlers' own few lines (``handlers.py``) are repeated here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.model.apiserver import Api
from tests.model.virtual import VirtualLoop

from workspace_operator.api.meta import FINALIZER
from workspace_operator.handlers import RELEASE_WAIT, SWEEP_TICK
from workspace_operator.kube.client import Object, workspace_classes, workspaces
from workspace_operator.reconcile.runtime import Runtime

Patch = Callable[[Callable[[], None]], Awaitable[None]]

LAG = 0.05  # seconds from a change to its event


class Informer:
    """The watches of one process."""

    def __init__(
        self, api: Api, loop: VirtualLoop, runtime: Runtime, patch: Patch, let_go: Callable[[Object], None]
    ) -> None:
        self._api, self._loop, self._runtime, self._patch, self._let_go = api, loop, runtime, patch, let_go
        self.stalled_until = 0.0  # the watch delivers nothing before
        self.twice = False  # the next event comes twice
        self._events: asyncio.Queue[tuple[float, str, Object]] = asyncio.Queue()
        self._newest: dict[str, tuple[str, Object]] = {}  # by UID: the event that waits for its object's worker
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """List, then watch."""
        for kind in (workspace_classes(), workspaces()):
            for body in self._api.list(kind):
                self._arrived("", body)
        self._api.listeners.append(self._happened)
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._tick())]

    def stop(self) -> None:
        if self._happened in self._api.listeners:
            self._api.listeners.remove(self._happened)

    def _happened(self, kind: str, body: Object) -> None:
        self._events.put_nowait((self._loop.now + LAG, kind, body))

    async def _follow(self) -> None:
        while True:
            at, kind, body = await self._events.get()
            while (wait := max(at, self.stalled_until) - self._loop.now) > 0:
                await asyncio.sleep(wait)
            self._arrived(kind, body)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_TICK)
            for name in list(self._runtime.store.classes):
                self._runtime.sweep_due(name)

    def _arrived(self, kind: str, body: Object) -> None:
        if "namespace" not in body["metadata"]:
            self._runtime.class_seen(body, deleted=kind == "DELETED")
            return
        uid = body["metadata"]["uid"]
        self._newest[uid] = kind, body
        if uid not in self._workers:
            task = self._workers[uid] = asyncio.create_task(self._work(uid))
            task.add_done_callback(lambda _: self._workers.pop(uid, None))

    async def _work(self, uid: str) -> None:
        while uid in self._newest:
            kind, body = self._newest.pop(uid)
            for _ in range(2 if self.twice else 1):
                self._runtime.workspace_seen(body, deleted=kind == "DELETED")
            self.twice = False
            finalized = FINALIZER in body["metadata"].get("finalizers", ())
            deleting = "deletionTimestamp" in body["metadata"]
            if kind != "DELETED" and not deleting and not finalized:
                await self._patch(lambda: self._finalize(uid, True))
            elif kind != "DELETED" and deleting and finalized:
                await self._release(uid, body)

    async def _release(self, uid: str, body: Object) -> None:
        """The deletion handler, repeated until it succeeds or the object is gone."""
        while not await self._runtime.until_released(body, RELEASE_WAIT):
            await asyncio.sleep(1)
            kind, body = self._newest.get(uid, ("", body))
            if kind == "DELETED":
                return
        await self._patch(lambda: self._finalize(uid, False))

    def _finalize(self, uid: str, on: bool) -> None:
        body = self._api.by_uid(uid)
        if body is None:
            return
        metadata = body["metadata"]
        there = FINALIZER in metadata.get("finalizers", ())
        if there == on or (on and "deletionTimestamp" in metadata):
            return
        if not on:
            self._let_go(body)
        self._api.finalize(metadata["name"], on)
