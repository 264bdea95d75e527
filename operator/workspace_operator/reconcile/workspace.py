"""One pass over one workspace: load, observe, plan, at most one verb, report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from pydantic import ValidationError

from workspace_operator.api.meta import FINALIZER
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Phase, Probe
from workspace_operator.api.workspace import Workspace, WorkspaceStatus
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.errors import Failure
from workspace_operator.kube.client import Conflict, NotFound, workspaces
from workspace_operator.lifecycle import idle, moments
from workspace_operator.lifecycle.conditions import unreadable
from workspace_operator.lifecycle.facts import Goal
from workspace_operator.lifecycle.plan import RECHECK, SOON, Decision, Situation, plan
from workspace_operator.lifecycle.report import report
from workspace_operator.lifecycle.table import VERBS, Step
from workspace_operator.reconcile import finalizer
from workspace_operator.reconcile.queue import Overtaken
from workspace_operator.reconcile.run import Run
from workspace_operator.reconcile.statuswrite import write_status
from workspace_operator.reconcile.steps import STEPS
from workspace_operator.reconcile.store import Entry
from workspace_operator.reconcile.wishes import no_class, wish_of
from workspace_operator.reconcile.world import World
from workspace_operator.telemetry import metrics
from workspace_operator.telemetry.logs import about

log = logging.getLogger(__name__)

MAX_STEPS = 8  # a pass that takes more is cut and goes on in the next one
INVALID_MARK = f'"{Reason.INVALID_SPEC}"'.encode()
_TO_CORRECT = (Reason.MISCONFIGURED, Reason.REFERENCE_NOT_FOUND)
LONGEST_PAUSE = timedelta(seconds=10)
MINOR_INTERVAL = 1.0  # seconds between status writes that only refine an unchanged phase
_ANNOUNCED = {Phase.RUNNING, Phase.PAUSED, Phase.STOPPED, Phase.FAILED, Phase.PENDING, Phase.RESTARTING, Phase.UNKNOWN}
_WARNINGS = {Phase.FAILED, Phase.PENDING, Phase.UNKNOWN}


class WorkspaceReconciler:
    """The work of the workspace queue. ``released`` is called with a UID once its finalizer may go."""

    def __init__(self, world: World, released: Callable[[str], None]) -> None:
        self._world, self._released = world, released

    async def __call__(self, key: str) -> timedelta | None:
        """Returns when the key is wanted again; raises when the pass failed and is to be repeated."""
        entry = self._world.store.get(key)
        if entry is None:
            return None
        try:
            workspace = entry.parse()
        except ValidationError as error:
            await self._refuse(entry, error)
            return None
        with about(namespace=entry.namespace, name=entry.name):
            try:
                if FINALIZER not in workspace.metadata.finalizers:
                    return await self._claim(entry, workspace)
                return await self._pass(key, entry, workspace)
            except Conflict as error:
                await self._refresh(key, entry.uid)
                raise Overtaken from error
            except NotFound:
                return await self._gone(key, entry, workspace)

    async def _refuse(self, entry: Entry, error: ValidationError) -> None:
        """An object from another release that this one cannot read: say so, and leave its compute alone."""
        fields = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        log.error("%s/%s cannot be read and is left alone: %s", entry.namespace, entry.name, fields)
        conditions = unreadable(fields, entry.generation, moments.text(self._world.clock.now()))
        shown = [condition.model_dump(mode="json", by_alias=True) for condition in conditions]
        status = {"observedGeneration": entry.generation, "conditions": shown}
        said = json.loads(entry.raw).get("status") or {}
        if INVALID_MARK not in entry.raw or said.get("observedGeneration") != entry.generation:
            await self._world.client.merge(workspaces(entry.namespace, entry.name, "status"), {"status": status})

    async def _claim(self, entry: Entry, workspace: Workspace) -> timedelta | None:
        """Nothing is created before the finalizer is on, and nothing is done after it went."""
        if workspace.metadata.deletion_timestamp is not None:
            return None
        left = entry.received + finalizer.PATIENCE - time.monotonic()
        if left > 0:
            return timedelta(seconds=left)
        self._world.store.put(await finalizer.put_on(self._world.client, workspace))
        return timedelta(0)

    async def _pass(self, key: str, entry: Entry, workspace: Workspace) -> timedelta | None:
        run = self._begin(key, workspace)
        if run.too_early:
            return SOON
        self._note_goal(run, entry)
        with about(**{"class": run.wish.class_name}):
            situation, decision = await self._steps(run)
            if run.finished:
                return await self._finish(run)
            return await self._conclude(run, situation, decision)

    def _begin(self, key: str, workspace: Workspace) -> Run:
        world = self._world
        class_ = world.store.class_for(workspace.spec.class_name, workspace.status.class_name)
        backend = self._backend_of(class_) if class_ is not None else no_class(workspace)
        wish = wish_of(workspace, class_, backend, world.store, world.activity(key))
        memory = world.memory(workspace.metadata.uid)
        return Run(world, key, workspace, class_, backend, wish, workspace.status, memory, self._write)

    def _backend_of(self, class_: WorkspaceClass) -> MeteredBackend | Failure:
        """A class that must be corrected before its backend can even be listed has none: a stop with nothing on record
        completes, and nothing else is claimed (DESIGN section 3)."""
        name = class_.metadata.name
        problem = self._world.observer.problem(name)
        if problem is not None and problem.reason in _TO_CORRECT:
            return problem
        return self._world.door.find(name)

    async def _steps(self, run: Run) -> tuple[Situation, Decision]:
        situation = await run.situation()
        decision = plan(situation)
        for _ in range(MAX_STEPS):
            if decision.step is Step.WAIT or run.progress is not None or run.finished:
                break
            if decision.step in VERBS and run.verb_done:
                break  # one verb per pass: report what is seen, the next pass follows at once
            run.last_step = decision.step
            await STEPS[decision.step](run, situation, decision)
            situation = await run.situation()
            decision = plan(situation)
        return situation, decision

    async def _conclude(self, run: Run, situation: Situation, decision: Decision) -> timedelta | None:
        if run.progress is not None:
            reason = Reason(run.progress.reason)
            decision = replace(decision, reason=reason, message=run.progress.message, wake_in=run.progress.retry_in)
        status = report(situation, decision)
        wake_in = self._wake_in(run, situation, decision)
        minor, version, before = (
            self._is_minor(run, status),
            run.workspace.metadata.resource_version,
            run.workspace.status,
        )
        if minor:
            wake_in = _earlier(wake_in, timedelta(seconds=MINOR_INTERVAL))
        else:
            await self._write(run, status)
        # The wish is read again after a create (I-07). A write that went through is such a reading, because it is
        # conditional on the version that was acted on.
        unread = run.workspace.metadata.resource_version == version
        if run.provisioned and unread and await self._refresh(run.key, run.uid):
            return timedelta(0)
        if minor:
            return wake_in
        self._announce(run, before, status)
        self._note_reached(run, situation, decision)
        return wake_in

    def _wake_in(self, run: Run, situation: Situation, decision: Decision) -> timedelta | None:
        wake_in = decision.wake_in
        if decision.step is not Step.WAIT and run.progress is None:
            again = run.problem is not None or decision.step is run.last_step  # the same verb is not repeated at once
            wake_in = _between_asking(situation) if again else timedelta(0)
        if run.renewal_failed:
            wake_in = _earlier(wake_in, RECHECK)
        agent = run.workspace.spec.agent
        if decision.row.reached and run.wish.goal is Goal.RUNNING and agent is not None and agent.probe is Probe.LEASE:
            silence = self._world.leases.expires_in(run.workspace)
            if silence is not None:
                wake_in = _earlier(wake_in, timedelta(seconds=silence))
        return wake_in

    def _is_minor(self, run: Run, status: WorkspaceStatus) -> bool:
        before = run.workspace.status
        same = before.phase == status.phase and status.phase not in (Phase.FAILED, Phase.RUNNING)
        return (
            same
            and before.observed_generation == status.observed_generation
            and before.failures == status.failures
            and before.credentials == status.credentials
            and time.monotonic() - run.memory.written < MINOR_INTERVAL
        )

    async def _write(self, run: Run, status: WorkspaceStatus) -> None:
        metadata = run.workspace.metadata
        url = workspaces(metadata.namespace, metadata.name, "status")
        body = await write_status(self._world.client, url, metadata.resource_version, run.workspace.status, status)
        run.record = status
        if body is None:
            return
        run.confirmed = True
        run.memory.written = time.monotonic()
        self._world.store.put(body)
        new_version = str(body["metadata"]["resourceVersion"])
        run.workspace = run.workspace.model_copy(
            update={"status": status, "metadata": metadata.model_copy(update={"resource_version": new_version})}
        )
        if run.wish.class_name is not None:
            self._world.wake_class(run.wish.class_name)

    async def _refresh(self, key: str, uid: str) -> bool:
        """Read the object anew; True when it changed or is another one."""
        namespace, name = key.split("/", 1)
        try:
            return self._world.store.put(await self._world.client.get(workspaces(namespace, name)))
        except NotFound:
            return self._world.store.drop(key, uid)

    async def _gone(self, key: str, entry: Entry, workspace: Workspace) -> timedelta | None:
        """The object vanished (its finalizer was stripped by hand); what it left is the sweeper's."""
        try:
            self._world.store.put(await self._world.client.get(workspaces(entry.namespace, entry.name)))
            return SOON  # it exists: something else was not found, e.g. its namespace's objects
        except NotFound:
            self._world.store.drop(key, entry.uid)
            self._world.forget(entry.uid, workspace.status.class_name)
            return None

    async def _finish(self, run: Run) -> timedelta | None:
        """Let the finalizer go: kopf takes it off, or this does when kopf has not within its time."""
        self._released(run.uid)
        if run.memory.finished is None:
            run.memory.finished = time.monotonic()
            self._world.events.post(
                run.workspace.metadata, "Workspace", reason=Reason.DELETED, message=Reason.DELETED.meaning
            )
        left = run.memory.finished + finalizer.PATIENCE - time.monotonic()
        if left > 0:
            return timedelta(seconds=left)
        self._world.store.put(await finalizer.take_off(self._world.client, run.workspace))
        return None

    # -- telling -------------------------------------------------------------------------------------------------------

    def _announce(self, run: Run, before: WorkspaceStatus, after: WorkspaceStatus) -> None:
        if after.phase is None or after.phase == before.phase:
            return
        ready = after.conditions[0]
        log.info("%s → %s: %s", before.phase or "New", after.phase, ready.message)
        if after.phase in _ANNOUNCED:
            self._world.events.post(
                run.workspace.metadata,
                "Workspace",
                reason=ready.reason,
                message=ready.message,
                warning=after.phase in _WARNINGS,
            )

    def _note_goal(self, run: Run, entry: Entry) -> None:
        memory = run.memory
        edited, memory.generation = memory.generation != entry.generation, entry.generation
        if memory.goal is not run.wish.goal:
            first, memory.goal = memory.goal is None, run.wish.goal
            memory.goal_since = entry.received if edited else time.monotonic()
            # After a start of the operator nothing is known of when the wish was made; an idle pause is nobody's.
            memory.goal_reached = (first and run.workspace.status.phase is not None) or idle.is_asleep(run.wish)

    def _note_reached(self, run: Run, situation: Situation, decision: Decision) -> None:
        serves = run.wish.goal is not Goal.RUNNING or situation.seen.serving.answers
        if decision.row.reached and serves and not run.memory.goal_reached:
            run.memory.goal_reached = True
            metrics.WISH_TO_EFFECT.labels(run.wish.goal).observe(time.monotonic() - run.memory.goal_since)


def _between_asking(situation: Situation) -> timedelta:
    """The pause before a verb is asked for again: ever longer for a stop that takes its time, as a machine's does."""
    since = situation.seen.halting_since
    return SOON if since is None else min(LONGEST_PAUSE, max(SOON, (situation.now - since) / 4))


def _earlier(wake_in: timedelta | None, other: timedelta) -> timedelta:
    return other if wake_in is None else min(wake_in, other)
