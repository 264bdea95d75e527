"""What the backends show: one listing per class and interval, their event streams, and the answers of verbs.

Looking costs no backend call: it reads the newest of these. A listing that began before a verb's answer does not undo
that answer, because it may have been taken before the change.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from workspace_operator.api.quantity import duration
from workspace_operator.api.reasons import Reason
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.backends.door import Door
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.backends.protocol import Instance, WorkspaceRef
from workspace_operator.errors import BackendUnreachable, Failure, FailureClass, OperatorError
from workspace_operator.telemetry.loops import Heartbeat, Supervisor, forever

log = logging.getLogger(__name__)

NOT_LISTED = Failure(FailureClass.BACKEND, Reason.NOT_OBSERVED, Reason.NOT_OBSERVED.meaning)
_RETRY_WATCH = 2.0
_SETTLED = 0.3  # seconds after a burst of events: engines tell of a change before their listings show it
_LIST_OVERDUE = 180.0  # seconds beyond two intervals; a listing itself is cut after 60


@dataclass
class _Class:
    """The view of one class's backend."""

    backend: MeteredBackend
    problem: Failure | None = NOT_LISTED
    instances: dict[str, tuple[Instance, ...]] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)  # uid → tick of the newest answer of a verb or a fresh look
    stale: set[str] = field(default_factory=set)  # the event stream said that something changed


class Observer:
    """Observes all classes; ``wake`` is called with the UID of a workspace whose compute changed, ``wake_class`` with
    a class whose backend began or ceased to answer."""

    def __init__(
        self, door: Door, supervisor: Supervisor, wake: Callable[[str], None], wake_class: Callable[[str], None]
    ) -> None:
        self._door, self._supervisor, self._wake, self._wake_class = door, supervisor, wake, wake_class
        self._classes: dict[str, _Class] = {}
        self._tick = 0

    async def follow(self, class_: WorkspaceClass) -> None:
        """Start (or restart, after a change) the loops of a class, after one first listing."""
        name = class_.metadata.name
        await self.unfollow(name)
        backend = self._door.find(name)
        if isinstance(backend, Failure):
            return
        self._classes[name] = _Class(backend)
        await self._first_listing(name)
        interval = duration(class_.spec.observe_interval)
        beat = self._supervisor.heartbeat(f"list/{name}", 2 * interval.total_seconds() + _LIST_OVERDUE)
        self._supervisor.start(f"list/{name}", self._list_loop(name, beat, interval))
        self._supervisor.start(f"watch/{name}", self._watch_loop(name, self._supervisor.heartbeat(f"watch/{name}")))

    async def unfollow(self, name: str) -> None:
        """Stop the loops of a class."""
        await self._supervisor.stop(f"list/{name}")
        await self._supervisor.stop(f"watch/{name}")
        self._classes.pop(name, None)

    def look(self, class_name: str, uid: str) -> tuple[tuple[Instance, ...], Failure | None]:
        """The instances of a workspace as last seen, or why nothing is known. No backend call."""
        view = self._classes.get(class_name)
        if view is None:
            return (), NOT_LISTED
        return view.instances.get(uid, ()), view.problem

    def is_stale(self, class_name: str, uid: str) -> bool:
        """Whether the event stream reported a change since the last look."""
        view = self._classes.get(class_name)
        return view is not None and uid in view.stale

    def mark_stale(self, class_name: str, uid: str) -> None:
        """Have the next pass over a workspace look for itself."""
        if (view := self._classes.get(class_name)) is not None:
            view.stale.add(uid)

    async def look_closely(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        """A fresh look at one workspace, remembered. Raises OperatorError."""
        view = self._classes.get(ref.class_name)
        if view is None:
            raise BackendUnreachable(Reason.NOT_OBSERVED, Reason.NOT_OBSERVED.meaning)
        view.stale.discard(ref.uid)
        instances = await view.backend.observe(ref)
        self.note(ref, instances)
        return instances

    def note(self, ref: WorkspaceRef, instances: tuple[Instance, ...]) -> None:
        """Remember what a verb's answer or a fresh look showed."""
        view = self._classes.get(ref.class_name)
        if view is None:
            return
        self._tick += 1
        view.noted[ref.uid] = self._tick
        _put(view.instances, ref.uid, instances)

    def forget(self, class_name: str, uid: str) -> None:
        """Drop what is kept of a workspace that is gone."""
        view = self._classes.get(class_name)
        if view is not None:
            view.noted.pop(uid, None)
            view.stale.discard(uid)

    def problem(self, class_name: str) -> Failure | None:
        """Why the class's backend could not be listed, if so."""
        view = self._classes.get(class_name)
        return view.problem if view is not None else NOT_LISTED

    # -- loops ---------------------------------------------------------------------------------------------------------

    async def _first_listing(self, name: str) -> None:
        try:
            await self._list(name)
        except OperatorError as error:
            log.warning("class %s: first listing failed: %s", name, error)

    async def _list_loop(self, name: str, beat: Heartbeat, interval: timedelta) -> None:
        seconds = interval.total_seconds()
        await asyncio.sleep(seconds * random.uniform(0.5, 1))  # noqa: S311 - spreads the classes
        await forever(beat, lambda: seconds * random.uniform(0.9, 1.1), lambda: self._list(name))  # noqa: S311

    async def _list(self, name: str) -> None:
        view = self._classes[name]
        began = self._tick
        try:
            listed = await view.backend.list_owned()
        except OperatorError as error:
            self._set_problem(name, view, error.failure)
            raise
        except Exception:
            text = "Listing the backend failed unexpectedly; the operator's log has the trace."
            self._set_problem(name, view, Failure(FailureClass.INTERNAL, Reason.INTERNAL_ERROR, text))
            raise
        fresh: dict[str, tuple[Instance, ...]] = {}
        for instance in listed:
            fresh[instance.ref.uid] = (*fresh.get(instance.ref.uid, ()), instance)
        self._merge(view, fresh, began)
        self._set_problem(name, view, None)

    def _merge(self, view: _Class, fresh: dict[str, tuple[Instance, ...]], began: int) -> None:
        for uid in view.instances.keys() | fresh.keys():
            if view.noted.get(uid, 0) > began:
                continue  # a verb answered while the listing was under way
            before, now = view.instances.get(uid, ()), fresh.get(uid, ())
            if _essence(before) != _essence(now):
                _put(view.instances, uid, now)
                self._wake(uid)
        view.noted = {uid: tick for uid, tick in view.noted.items() if tick > began}

    def _set_problem(self, name: str, view: _Class, problem: Failure | None) -> None:
        if problem != view.problem:
            view.problem = problem
            self._wake_class(name)

    async def _watch_loop(self, name: str, beat: Heartbeat) -> None:
        view = self._classes[name]
        loop = asyncio.get_running_loop()

        trailing: dict[str, asyncio.TimerHandle] = {}

        def look_again(uid: str) -> None:
            trailing.pop(uid, None)
            view.stale.add(uid)
            self._wake(uid)

        def changed(uid: str) -> None:
            beat.beat()
            if uid in trailing:
                trailing[uid].cancel()
            look_again(uid)
            trailing[uid] = loop.call_later(_SETTLED, look_again, uid)

        def wake(uid: str) -> None:
            loop.call_soon_threadsafe(changed, uid)

        while True:
            try:
                await view.backend.watch(wake)
            except OperatorError as error:
                log.info("class %s: event stream: %s", name, error)
            await asyncio.sleep(_RETRY_WATCH)
            await self._first_listing(name)  # what the stream missed


def _put(into: dict[str, tuple[Instance, ...]], uid: str, instances: tuple[Instance, ...]) -> None:
    if instances:
        into[uid] = instances
    else:
        into.pop(uid, None)


def _essence(instances: tuple[Instance, ...]) -> list[tuple[object, ...]]:
    """What makes a pass worthwhile when it differs."""
    return sorted((i.incarnation, i.reading, i.id, i.address, i.reason, i.problem is None) for i in instances)
