"""One pass, or the end of one errand, of the real operator against the model's world.

Nothing of the operator is copied here: the ``DelegationReconciler`` runs with its real book, steps, plan and report,
and errands take down what the agent says with their real code. Only their tasks are not started: an errand comes to
its end when the explorer says so. Every call to the API server may go well, fail, or be the operator's last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from unittest import mock

from tests.model.backend import Crash, Fate, Violation
from tests.model.delegations import promises
from tests.model.delegations.agent import ModelAgent, Suspended, take
from tests.model.delegations.edits import edits
from tests.model.delegations.world import (
    BOOTED,
    KEY,
    NAMESPACE,
    TARGET,
    UID,
    Config,
    Errand,
    State,
    body,
    moment,
    workspaces,
)
from tests.model.machine import merged

from workspace_operator.a2a.values import Outgoing
from workspace_operator.api.meta import CLAIM_FINALIZER
from workspace_operator.errors import OperatorError
from workspace_operator.kube.client import Conflict, KubeError, NotFound, Object
from workspace_operator.lifecycle.delegation.table import Step
from workspace_operator.reconcile.delegation.book import Book
from workspace_operator.reconcile.delegation.desk import Desk
from workspace_operator.reconcile.delegation.errands import Errands, Talk
from workspace_operator.reconcile.delegation.reconciler import DelegationReconciler
from workspace_operator.reconcile.queue import Overtaken
from workspace_operator.reconcile.store import Store

T = TypeVar("T")
RETRY = 1.0  # seconds after a failed pass; the queue begins with a quarter of it
_OF_A_TASK = (Step.FOLLOW, Step.CANCEL)
EVENT = 1.0  # seconds until the operator hears of what it has not heard of yet
MESSAGE = Outgoing("m", "context", ())
Work = Callable[[], Awaitable[None]]


class ModelErrands(Errands):
    """Begins errands that come to their end only when they are told to."""

    def __init__(self, doing: Doing) -> None:
        super().__init__(cast(Any, doing.agent), doing.now, lambda _: doing.woken(), doing.leads)
        self._doing, self._task_id = doing, ""
        if doing.s.talk is not None:
            self._talks[UID] = doing.s.talk

    @property
    def known(self) -> Talk | None:
        return self._talks.get(UID)

    def follow(self, uid: str, key: str, address: str, task_id: str) -> None:
        self._task_id = task_id
        super().follow(uid, key, address, task_id)

    def cancel(self, uid: str, key: str, address: str, task_id: str) -> None:
        self._task_id = task_id
        super().cancel(uid, key, address, task_id)

    def forget(self, uid: str) -> None:
        self._doing.abandon()
        super().forget(uid)

    def _begin(self, kind: Step, talk: Talk, key: str, body: Work) -> None:
        self._doing.abandon()
        promises.begins(self._doing.s, kind, self._task_id)
        talk.under_way = kind
        self._doing.s.errand = Errand(kind, self._doing.s.made, self._task_id if kind in _OF_A_TASK else "")

    def resume(self, errand: Errand, talk: Talk) -> Awaitable[None]:
        """What the operator does when the agent answers."""
        work: dict[Step, Work] = {
            Step.SEND: lambda: self._send(talk, KEY, "", MESSAGE),
            Step.ASK: lambda: self._find(talk, "", MESSAGE),
            Step.FOLLOW: lambda: self._follow(talk, KEY, "", errand.task_id),
            Step.CANCEL: lambda: self._cancel(talk, "", errand.task_id),
        }
        return self._run(errand.kind, talk, KEY, work[errand.kind])


class Doing:
    """Something that the operator does, on a copy of a state. ``self`` stands in for the KubeClient."""

    def __init__(self, machine: Machine, fate: Fate) -> None:
        self.machine, self.fate = machine, fate
        self.s: State = cast(Any, fate.state)
        self.agent = ModelAgent(self.s, fate)
        self.errands = ModelErrands(self)
        self.wrote = self.unheard = False

    def now(self) -> datetime:
        return moment(self.s.now)

    def woken(self) -> None:
        self.s.wake_at = self.s.now

    def leads(self) -> bool:
        return self.fate.fault(*(["it does not lead any more"] if "leads" in self.s.config.faults else [])) is None

    def abandon(self) -> None:
        """The errand under way is broken off; a message may have been on its way."""
        errand, self.s.errand = self.s.errand, None
        if errand is None or errand.kind is not Step.SEND or not self.s.reaches(errand):
            return
        if self.fate.free("the message does not arrive", "the message arrives") == "the message arrives":
            take(self.s)

    # -- an errand -----------------------------------------------------------------------------------------------------

    def end_errand(self) -> State:
        """The errand under way ends, or hears something and goes on."""
        s, errand, talk = self.s, self.s.errand, self.errands.known
        assert errand is not None and talk is not None
        talk.task = task = self.machine.loop.create_task(cast(Any, self.errands.resume(errand, talk)))
        try:
            self.machine.loop.run_until_complete(task)
            s.errand = None
        except Suspended:
            task_id = errand.task_id or (talk.view.id if talk.view is not None else "")
            s.errand = Errand(Step.FOLLOW, errand.made, task_id)
        talk.task = None
        s.talk = self.errands.known
        return s

    # -- a pass --------------------------------------------------------------------------------------------------------

    def run(self) -> State:
        """The state after a pass."""
        s = self.s
        s.wake_at = None
        desk = self._desk()
        wake_in, failed = None, False
        try:
            wake_in = _driven(DelegationReconciler(desk)(KEY))
        except Crash:
            pass
        except Overtaken:
            wake_in = timedelta(0)
        except OperatorError:
            failed = True
        if self.fate.dead:
            self.abandon()
            s.forget()
            return s
        s.talk = self.errands.known
        if failed:
            s.lapses += 1
            wake_in = timedelta(seconds=RETRY)
        else:
            promises.passed(s, wake_in)
        if self.unheard and s.wake_at is None:
            wake_in = min(wake_in or timedelta(seconds=EVENT), timedelta(seconds=EVENT))
        if s.there and s.wake_at is None and wake_in is not None:
            s.wake_at = round(s.now + wake_in.total_seconds(), 3)
        return s

    def _desk(self) -> Desk:
        s, book = self.s, Book()
        if s.occupied:
            book.line(f"{NAMESPACE}/{TARGET}").fly("n/other", "n/x")
        book.put(body(s))
        store = self.machine.store(s, tuple(name for name in workspaces(s) if self._heard_of(name)))
        fakes: Any = self
        clock: Any = SimpleNamespace(now=self.now)
        events: Any = SimpleNamespace(post=lambda *args, **kwargs: None)
        return Desk(fakes, store, book, self.errands, events, lambda key: None, lambda key: None, clock)

    def _heard_of(self, name: str) -> bool:
        if "unheard" not in self.s.config.faults:
            return True
        unheard = self.fate.fault(f"it has not heard of {name} yet") is not None
        self.unheard = self.unheard or unheard
        return not unheard

    # -- Kubernetes ----------------------------------------------------------------------------------------------------

    async def get(self, url: str) -> Object:
        self._call("get")
        if "/workspaces/" in url:
            found = workspaces(self.s).get(url.rpartition("/")[2])
        elif "/configmaps/" in url:
            found = _config_map() if self.s.kept else None
        else:
            found = body(self.s) if self.s.there else None
        if found is None:
            raise NotFound(404, f"{url} does not exist.")
        return found

    async def create(self, url: str, made: Object) -> Object:
        assert "/configmaps" in url

        def effect() -> Object:
            if self.s.kept:
                raise Conflict(409, "It exists.")
            self.s.kept = True
            return _config_map()

        return cast(Object, self._write("create", effect))

    async def merge(self, url: str, patch: Object) -> Object:
        self._user()

        def effect() -> Object:
            s = self.s
            if not s.there:
                raise NotFound(404, "The object does not exist.")
            if patch["metadata"]["resourceVersion"] != str(s.version):
                raise Conflict(409, "The object has been modified.")
            known = s.copy()
            s.version += 1
            self.wrote = True
            if url.endswith("/status"):
                s.status = merged(s.status, patch["status"])
                promises.wrote(s, known)
            else:
                s.claimed = CLAIM_FINALIZER in patch["metadata"]["finalizers"]
                promises.claimed(s, known)
                s.there = s.claimed or not s.deleted
            return body(s)

        return cast(Object, self._write("status" if url.endswith("/status") else "claim", effect))

    async def delete(self, url: str, uid: str) -> None:
        assert uid == UID

        def effect() -> None:
            promises.deletes(self.s)
            self.s.there = False

        self._write("delete", effect)

    def _user(self) -> None:
        """Somebody may act while the pass is under way."""
        if not (self.s.config.races and self.s.edits):
            return
        options = edits(self.s)
        done = self.fate.free("nobody edits", *(label for label, _ in options))
        after = next((state for label, state in options if label == done), None)
        if after is not None:
            vars(self.s).update({**vars(after), "talk": self.s.talk})

    def _call(self, what: str) -> None:
        self.fate.alive()
        outcome = self.fate.fault(*([f"{what}: refused"] if "api" in self.s.config.faults else []))
        if outcome is not None:
            raise KubeError(500, "The model's API server failed.")

    def _write(self, what: str, effect: Callable[[], Any]) -> Any:
        self.fate.alive()
        faults = self.s.config.faults
        options = [f"{what}: refused", f"{what}: done, answer lost"] if "api" in faults else []
        options += [f"{what}: crash before", f"{what}: crash after"] if "crash" in faults else []
        outcome = self.fate.fault(*options)
        if outcome == f"{what}: refused":
            raise KubeError(500, "The model's API server failed.")
        if outcome == f"{what}: crash before":
            self.fate.die()
        result = effect()
        if outcome == f"{what}: crash after":
            self.fate.die()
        if outcome == f"{what}: done, answer lost":
            raise KubeError(0, "The model's API server did not answer.")
        return result


def _config_map() -> Object:
    return {"metadata": {"ownerReferences": [{"uid": UID}]}, "data": {"answer": ""}}


def _driven(body: Coroutine[Any, Any, T]) -> T:
    """The answer of a coroutine that waits for nothing, without an event loop."""
    try:
        body.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("a pass waits for something that the model has no part of")


class Machine:
    """Runs passes and errands; the modules' monotonic clock shows the model's time."""

    def __init__(self, config: Config) -> None:
        self.loop = asyncio.new_event_loop()
        self.monotonic = BOOTED
        self._stores: dict[Any, Store] = {}
        clock = SimpleNamespace(monotonic=lambda: self.monotonic)
        room = "workspace_operator.reconcile.delegation"
        self._patches: list[Any] = [mock.patch(f"{room}.{module}.time", clock) for module in ("steps", "reconciler")]
        self._patches.append(mock.patch(f"{room}.reconciler.UNWRITTEN", config.unwritten))
        for patch in self._patches:
            patch.start()

    def store(self, s: State, known: tuple[str, ...]) -> Store:
        """What the operator knows of workspaces. Passes only ever put the truth into it."""
        about = (s.target, s.made, s.sender, s.related, known)
        if about not in self._stores:
            made = Store()
            for name in known:
                made.put(workspaces(s)[name])
            if known != tuple(workspaces(s)):
                return made  # a pass may learn what is missing
            self._stores[about] = made
        return self._stores[about]

    def close(self) -> None:
        for patch in self._patches:
            patch.stop()
        self.loop.close()

    def passes(self, s: State) -> Iterator[tuple[str, State, Doing]]:
        """Every way in which one pass from ``s`` may come out."""
        return self._outcomes(s, "pass", Doing.run)

    def ends(self, s: State) -> Iterator[tuple[str, State, Doing]]:
        """Every way in which the errand under way may go on."""
        assert s.errand is not None
        return self._outcomes(s, f"the talk ({s.errand.kind})", Doing.end_errand)

    def calmly(self, s: State, what: Callable[[Doing], State]) -> tuple[State, Doing]:
        """The one way in which everything goes well."""
        return self._once(s, what, [])

    def _outcomes(self, s: State, name: str, what: Callable[[Doing], State]) -> Iterator[tuple[str, State, Doing]]:
        script: list[int] = []
        while True:
            after, done = self._once(s, what, script)
            yield f"{name}: {'; '.join(done.fate.told) or 'as usual'}", after, done
            script = done.fate.next_script()
            if not script:
                return

    def _once(self, s: State, what: Callable[[Doing], State], script: list[int]) -> tuple[State, Doing]:
        self.monotonic = BOOTED + s.now
        copied: Any = s.copy()
        done = Doing(self, Fate(copied, list(script)))
        try:
            return what(done), done
        except Violation as violation:
            raise Violation(str(violation), *done.fate.told) from None
