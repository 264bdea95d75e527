"""One pass over one delegation: load, see, plan, at most one talk begun, report."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from workspace_operator.api.delegation import Delegation
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import TERMINAL, ConditionType, DelegationPhase
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.kube.client import Conflict, NotFound, delegations, workspaces
from workspace_operator.lifecycle.delegation import report
from workspace_operator.lifecycle.delegation.facts import Goal, Sight, Situation
from workspace_operator.lifecycle.delegation.plan import Decision, plan
from workspace_operator.lifecycle.delegation.table import ERRANDS, Guard, Step
from workspace_operator.reconcile.delegation.book import Entry
from workspace_operator.reconcile.delegation.desk import Desk
from workspace_operator.reconcile.delegation.run import Run
from workspace_operator.reconcile.delegation.steps import STEPS
from workspace_operator.reconcile.delegation.wishes import source_key, target_key
from workspace_operator.reconcile.queue import Overtaken
from workspace_operator.telemetry.logs import about

log = logging.getLogger(__name__)

MAX_STEPS = 6
UNWRITTEN = 1.0  # seconds that a task in flight goes without a status write: most are over before
_FLYING = (DelegationPhase.DISPATCHED, DelegationPhase.WORKING)
_WITH_AGENT = (Sight.SENDING, Sight.UNSURE, Sight.WORKING, Sight.SILENT)  # it may be busy with it
_WARNED = (DelegationPhase.FAILED, DelegationPhase.STUCK)
#: Of workspaces and classes that are neither its sender nor its target: no change of theirs wakes it.
_OF_OTHERS = (Reason.PARENT_NOT_FOUND, Reason.PARENT_CYCLE, Reason.CLASS_NOT_FOUND)
_LOOKED_UP_AGAIN = timedelta(seconds=10)


class DelegationReconciler:
    """The work of the delegation queue."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, key: str) -> timedelta | None:
        """Returns when the key is wanted again; raises when the pass failed and is to be repeated."""
        entry = self._desk.book.get(key)
        if entry is None:
            return None
        with about(namespace=entry.namespace, name=entry.name):
            try:
                return await self._pass(key, entry)
            except Conflict as error:
                await self._refresh(key, entry)
                raise Overtaken from error
            except NotFound:
                await self._refresh(key, entry)
                return None

    async def _pass(self, key: str, entry: Entry) -> timedelta | None:
        delegation = entry.parse()
        run = Run(self._desk, key, entry, delegation, self._desk.errands.talk(entry.uid), None, delegation.status)
        run.gone = await self._gone(delegation)
        before = delegation.status.phase
        situation = run.situation()
        decision = plan(situation)
        for _ in range(MAX_STEPS):
            if decision.step is Step.WAIT or run.over:
                break
            step = decision.step
            await STEPS[step](run, situation, decision)
            if run.over:
                break
            situation = run.situation()
            decision = plan(situation)
            if step in ERRANDS or step is Step.CLAIM:
                break
        return None if run.over else await self._conclude(run, before, situation, decision)

    async def _conclude(
        self, run: Run, before: DelegationPhase | None, s: Situation, decision: Decision
    ) -> timedelta | None:
        self._place(run, s, decision)
        if s.wish.goal is Goal.CLOSE:
            await run.write(report.closed(run.delegation.status, s.wish.generation))
        else:
            left = run.talk.claimed + UNWRITTEN - time.monotonic()
            if decision.phase in _FLYING and before not in _FLYING and run.talk.claimed and left > 0:
                return _earlier(decision.wake_in, timedelta(seconds=left))
            await run.write(report.report(s, decision))
        self._announce(run, before, decision)
        return _earlier(decision.wake_in, _LOOKED_UP_AGAIN) if decision.reason in _OF_OTHERS else decision.wake_in

    def _place(self, run: Run, s: Situation, decision: Decision) -> None:
        """Keep the place while the agent is busy with it; else let the next one go."""
        unwritten = decision.phase is DelegationPhase.QUEUED and s.seen.sight in _WITH_AGENT  # it is being cancelled
        if decision.phase in _FLYING or unwritten:
            self._desk.book.line(run.entry.target).fly(run.key, run.entry.source)
            return
        waits = decision.row.guard is Guard.NO_TURN or s.wish.turn
        if waits and decision.phase is DelegationPhase.QUEUED:
            return
        self._desk.book.leave(run.key, run.entry.target)
        self.place_free(run.entry.target)

    async def _gone(self, delegation: Delegation) -> Failure | None:
        """Whether a workspace of an accepted delegation was deleted: asked by name, because a listing may be old."""
        accepted = any(c.type == ConditionType.ACCEPTED and c.status == "True" for c in delegation.status.conditions)
        if delegation.status.phase in TERMINAL or not accepted:
            return None
        for key, reason in ((target_key(delegation), Reason.TARGET_GONE), (source_key(delegation), Reason.SOURCE_GONE)):
            if self._desk.store.get(key) is None and not await self._exists(key):
                if reason is Reason.TARGET_GONE and delegation.status.task is None:
                    continue  # it was never there with it: it may be created anew
                return Failure(FailureClass.BACKEND, reason, f"{reason.meaning} It was {key!r}.")
        return None

    async def _exists(self, key: str) -> bool:
        namespace, name = key.split("/", 1)
        try:
            self._desk.store.put(await self._desk.client.get(workspaces(namespace, name)))
        except NotFound:
            return False
        return True

    async def _refresh(self, key: str, entry: Entry) -> None:
        """Read the object anew."""
        try:
            self._desk.book.put(await self._desk.client.get(delegations(entry.namespace, entry.name)))
        except NotFound:
            self.dropped(key, entry.uid)

    def dropped(self, key: str, uid: str, deleted_at: int | None = None) -> None:
        """The object is gone."""
        self._desk.errands.forget(uid)
        entry = self._desk.book.drop(key, uid, deleted_at)
        if entry is not None:
            self.place_free(entry.target)
            self._desk.wake_workspace(entry.target)

    def place_free(self, target: str) -> None:
        """Wake those whose turn it is now."""
        workspace = self._desk.store.get(target)
        for key in self._desk.book.next(target, workspace.receiver.capacity if workspace is not None else 0):
            self._desk.wake(key)

    def _announce(self, run: Run, before: DelegationPhase | None, decision: Decision) -> None:
        """Tell of a new phase, in the words that were written: the decision may be about what follows them."""
        finished = next((c for c in run.record.conditions if c.type == ConditionType.FINISHED), None)
        if decision.phase is before or finished is None:
            return
        log.info("delegation %s → %s: %s", before or "New", decision.phase, finished.message)
        if decision.phase in _WARNED:
            self._desk.events.post(
                run.delegation.metadata,
                "Delegation",
                reason=Reason(finished.reason),
                message=finished.message,
                warning=True,
            )


def _earlier(wake_in: timedelta | None, other: timedelta) -> timedelta:
    return other if wake_in is None else min(wake_in, other)
