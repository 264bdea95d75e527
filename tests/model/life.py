"""One process of the operator: the real Runtime with all its queues, loops and the sweeper, until it is killed.

Every call that leaves it goes through :meth:`Life.call`, where it may be refused, lost, late, or the process's last.
What kopf does is in ``informer``; metrics, logs and Events are not looked at.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from tests.model.apiserver import CLUSTER
from tests.model.backend import LOST, REFUSED
from tests.model.cloud import Origin
from tests.model.informer import Informer
from tests.model.promises import Promises

from workspace_operator.api.states import Capability
from workspace_operator.backends.protocol import Instance, Progress, ProvisionRequest, StopRequest, Wake, WorkspaceRef
from workspace_operator.backends.protocol import replace as replace_instances
from workspace_operator.errors import OperatorError
from workspace_operator.kube.client import Conflict, KubeError, Object, workspace_classes, workspaces
from workspace_operator.reconcile.queue import KeyedQueue, Overtaken
from workspace_operator.reconcile.runtime import Runtime
from workspace_operator.telemetry.loops import Supervisor

T = TypeVar("T")
Work = Callable[[str], Awaitable[timedelta | None]]

API_TIMEOUT, HANG, LATE = 15.0, 300.0, 30.0  # seconds


@dataclass(frozen=True)
class Doing:
    """What a call is made for: a pass or a sweep, its key, and the object as it was known at the beginning."""

    queue: str
    key: str
    known: Object | None


_NOTHING = Doing("", "", None)
DOING: contextvars.ContextVar[Doing] = contextvars.ContextVar("doing", default=_NOTHING)


class World(Promises):
    """What a process needs of the simulation."""

    def outcome(self, side: str, kind: str) -> str | None:
        """What becomes of a call that is about to take effect."""
        raise NotImplementedError

    def killed(self, when: str, kind: str) -> None:
        """The process ends at this point."""
        raise NotImplementedError


class Life:
    """From the start of the process to its end."""

    def __init__(self, around: World, pace: float) -> None:
        self.around, self.pace = around, pace  # pace: seconds that a call takes; a listing takes ten times as long
        self.died: asyncio.Future[None] = around.loop.create_future()
        self.supervisor = Supervisor()
        self.seen: dict[str, tuple[Instance, ...]] = {}  # by UID: what the last answer showed
        # By UID: how many of its versions were history when this process began, and never reach it.
        gone = {uid: len(versions) for uid, versions in around.api.versions.items()}
        self.begun_after = {uid: number - (uid in around.api.uids) for uid, number in gone.items()}
        self._answers: dict[str, float] = {}  # by UID: when a verb or a look answered
        leadership: Any = SimpleNamespace(valid=True, identity="operator")
        drivers = {"process": lambda name, spec, cluster, resolve: cast(Any, Remote(self, name, cluster))}
        self.client = Connection(self)
        self.runtime = runtime = Runtime(cast(Any, self.client), CLUSTER, leadership, self.supervisor, drivers)
        runtime.world.activity = around.callers.activity
        runtime.world.clock = cast(Any, SimpleNamespace(now=around.loop.moment))
        runtime.queue = KeyedQueue("workspace", self._watched("pass", runtime.queue._work), 8, 120.0)
        runtime.classes = KeyedQueue("workspaceclass", self._watched("class", runtime.classes._work), 2, 120.0)
        runtime.sweeps = KeyedQueue("sweep", self._watched("sweep", runtime.sweeper), 2, 240.0)
        self.informer = Informer(around.api, around.loop, runtime, self._patch, around.lets_go)
        self._main = asyncio.create_task(self._run())

    @property
    def dead(self) -> bool:
        return self.died.done()

    async def _run(self) -> None:
        await self.runtime.start()
        self.informer.start()

    async def bury(self) -> None:
        """End all that still waits in its name."""
        self.informer.stop()
        self.around.cloud.watchers.clear()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def kill(self, when: str, kind: str) -> None:
        """The process ends here; nothing that it has begun goes on."""
        if not self.dead:
            self.died.set_result(None)
            self.around.killed(when, kind)

    async def call(self, side: str, kind: str, effect: Callable[[], T], late: Callable[[], object] | None = None) -> T:
        """One request and its answer. Half of the time goes by before it takes effect, half afterwards."""
        half = self.pace * (5 if kind.startswith("list") else 0.5)
        await self._live(half)
        outcome = self.around.outcome(side, kind)
        if outcome == "crash before":
            self.kill("before", kind)
        await self._live(0)
        await self._fail_before(side, kind, outcome, late)
        result = effect()
        if outcome == "sent twice":
            result = effect()
        if outcome == "crash after":
            self.kill("after", kind)
        await self._live(half)
        if outcome == "answer lost":
            raise KubeError(500, "The model's API server failed.") if side == "api" else LOST
        return result

    async def _fail_before(self, side: str, kind: str, outcome: str | None, late: Callable[[], object] | None) -> None:
        if outcome == "conflict":
            raise Conflict(409, "The object has been modified.")
        if outcome == "refused":
            raise KubeError(403, "The model's API server refused.") if side == "api" else REFUSED
        if outcome in ("timed out", "carried out late"):
            if outcome == "carried out late" and late is not None:
                self.around.loop.after(LATE, late)
            await self._live(API_TIMEOUT)
            raise KubeError(0, "The model's API server did not answer.") if side == "api" else LOST
        if outcome == "hangs":
            await self._live(HANG)
            raise LOST

    async def _live(self, seconds: float) -> None:
        """Let time pass; a dead process never comes back from here."""
        if seconds:
            await asyncio.sleep(seconds)
        if self.dead:
            await self.around.loop.create_future()

    def _watched(self, queue: str, work: Work) -> Work:
        async def watched(key: str) -> timedelta | None:
            entry = self.runtime.store.get(key) if queue == "pass" else None
            mark = DOING.set(Doing(queue, key, json.loads(entry.raw) if entry is not None else None))
            try:
                again = await work(key)
            except (OperatorError, Overtaken, TimeoutError):
                raise
            except Exception as error:
                self.around.broken(f"a {queue} of {key} ends with {error!r}")
                raise
            finally:
                DOING.reset(mark)
            if queue == "sweep" and not self.dead:
                self.around.swept(self.runtime.world.sweeps[key])
            return again

        return watched

    async def _patch(self, effect: Callable[[], None]) -> None:
        """kopf's own patch of finalizers: it repeats what fails, and gives up on a conflict until the next event."""
        while True:
            try:
                return await self.call("api", "patch of finalizers", effect)
            except Conflict:
                return None
            except KubeError:
                await self._live(1)

    # -- what it has been shown ----------------------------------------------------------------------------------------

    def show(self, uid: str, instances: tuple[Instance, ...], asked_at: float | None = None) -> None:
        """``asked_at`` marks a listing: it does not undo an answer that came while it was under way."""
        if asked_at is None:
            self._answers[uid] = self.around.loop.now
        elif asked_at <= self._answers.get(uid, 0.0):
            return
        self.seen[uid] = instances


class Connection:
    """The KubeClient of one process."""

    server, ca_file = "https://model", None

    def __init__(self, life: Life) -> None:
        self._life, self._api = life, life.around.api

    async def get(self, url: str) -> Object:
        return await self._life.call("api", f"get {_what(url)}", lambda: self._api.get(url))

    async def create(self, url: str, body: Mapping[str, Any]) -> Object:
        if url.endswith("/events"):
            return {}
        return await self._life.call("api", f"create {_what(url)}", lambda: self._api.create(url, dict(body)))

    async def merge(self, url: str, patch: Mapping[str, Any]) -> Object:
        around, before = self._life.around, self._api.objects.get(url.removesuffix("/status"))
        around.writes(url, dict(patch))
        seen = self._life.seen.get(before["metadata"]["uid"], ()) if before is not None else ()

        def effect() -> Object:
            was = self._api.objects.get(url.removesuffix("/status"))
            if was is not None and not patch["metadata"].get("finalizers", True) and _what(url) == "workspace":
                around.lets_go(was)
            body = self._api.merge(url, dict(patch))
            if _what(url) == "status":
                around.wrote(body, was, seen)
            return body

        return await self._life.call("api", f"write {_what(url)}", effect)

    async def delete(self, url: str, uid: str | None = None) -> None:
        await self._life.call("api", f"delete {_what(url)}", lambda: self._delete(url, uid))

    async def list(self, url: str, labels: str | None = None, fields: str | None = None) -> AsyncIterator[Object]:
        doing = DOING.get()
        late = doing.queue == "sweep" and url == workspaces()
        ask = self._api.list_late if late else lambda: self._api.list(url)
        if fields is not None:
            ask = lambda: self._life.around.callers.listed(fields)  # noqa: E731
        items = await self._life.call("api", f"list {_what(url)}", ask)
        if late:
            self._life.around.sweep_read(items)
        for item in items:
            yield item

    def _delete(self, url: str, uid: str | None) -> None:
        if url in self._api.objects:
            self._api.delete(url, uid)


def _what(url: str) -> str:
    if url.endswith("/status"):
        return "class" if url.startswith(workspace_classes()) else "status"
    if "/workspaces" in url:
        return "workspace" if not url.endswith("/workspaces") else "workspaces"
    if url.startswith(workspace_classes()):
        return "class"
    if url.endswith("/delegations"):
        return "delegations"
    return "cluster" if url.endswith("kube-system") else "identity"


class Remote:
    """The backend of one class, as one process reaches it."""

    capabilities = frozenset({Capability.HALT, Capability.FREEZE, Capability.DELIVER})

    def __init__(self, life: Life, name: str, cluster: str) -> None:
        self._life, self._cloud = life, life.around.cloud
        self._name, self._cluster = name, cluster

    async def check(self) -> str:
        return "The model's backend answers."

    async def list_owned(self) -> tuple[Instance, ...]:
        life, began, doing = self._life, self._life.around.loop.now, DOING.get()
        units = await life.call("backend", "list instances", lambda: self._cloud.owned(self._cluster, self._name))
        listed = tuple(unit.shown() for unit in units)
        if doing.queue == "sweep":
            life.around.sweep_listed(listed)
        else:
            for uid in life.seen.keys() | {i.ref.uid for i in listed}:
                life.show(uid, tuple(i for i in listed if i.ref.uid == uid), began)
        return listed

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        ask = lambda: tuple(unit.shown() for unit in self._cloud.of(ref))  # noqa: E731
        found = await self._life.call("backend", "look", ask)
        self._life.show(ref.uid, found)
        return found

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        what, doing = f"provision of {request.ref.uid} #{request.incarnation}", DOING.get()

        def effect(origin: Origin = Origin.OPERATOR) -> Instance:
            self._life.around.told(what if origin is Origin.OPERATOR else f"late {what}")
            if origin is Origin.OPERATOR:
                self._life.around.asked(request, doing.queue, doing.known)
            return self._cloud.provision(request, origin)

        made = await self._life.call("backend", "provision", effect, lambda: effect(Origin.LATE))
        self._life.show(request.ref.uid, (made,))
        return made

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        how, doing = "release" if request.release else "freeze" if request.freeze else "halt", DOING.get()

        def effect() -> tuple[Instance, ...]:
            self._life.around.told(f"{how} of {request.ref.uid} by a {doing.queue}")
            self._life.around.asked(request, doing.queue, doing.known)
            return self._cloud.stop(request)

        left = await self._life.call("backend", "stop", effect)
        self._life.show(request.ref.uid, left)
        return left

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        return await replace_instances(cast(Any, self), request, grace)

    async def deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        await self._life.call("backend", "deliver", lambda: None)

    async def delete_data(self, ref: WorkspaceRef) -> bool:
        doing = DOING.get()

        def effect() -> bool:
            self._life.around.told(f"deletion of the data of {ref.uid}")
            self._life.around.asked(ref, doing.queue, doing.known)
            self._cloud.data.discard(ref.uid)
            return True

        return await self._life.call("backend", "delete data", effect)

    async def watch(self, wake: Wake) -> None:
        entry = (self._name, wake)
        self._cloud.watchers.append(entry)
        await self._life.around.loop.create_future()

    async def close(self) -> None:
        """Nothing is kept open."""
