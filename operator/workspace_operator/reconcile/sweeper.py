"""The orphan sweeper: lists the backend, then the API server, and removes what no workspace accounts for.

What counts as an orphan and when it may go is decided in :mod:`workspace_operator.lifecycle.orphans`. Here: nothing is
concluded from a listing that failed or is partial, every removal is preceded by a fresh read of the workspace, and what
was removed is reported once it is seen gone. Data volumes are never removed (I-16).
"""

from __future__ import annotations

import logging
import random
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from workspace_operator.api.meta import RELEASE_FUSE_ANNOTATION
from workspace_operator.api.quantity import duration
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import ConditionStatus, DesiredState, SweepMode
from workspace_operator.api.sweep import SweepFuse, SweepStatus
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.backends.protocol import Instance, StopRequest, WorkspaceRef
from workspace_operator.backends.rate import PerMinute
from workspace_operator.errors import BackendUnreachable, OperatorError
from workspace_operator.kube.client import NotFound, Object, read_cluster_id, workspaces
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.conditions import Verdict
from workspace_operator.lifecycle.orphans import (
    UNOWNED,
    Book,
    Compute,
    Fuse,
    Judgement,
    Kind,
    Owner,
    Policy,
    Suspect,
    after_removal,
    judge,
    kind_of,
    next_look,
)
from workspace_operator.reconcile.store import key_of
from workspace_operator.reconcile.sweepreport import SweepReport, stalled, swept, words
from workspace_operator.reconcile.world import World
from workspace_operator.telemetry import metrics
from workspace_operator.telemetry.logs import about
from workspace_operator.telemetry.loops import Heartbeat, Supervisor

log = logging.getLogger(__name__)

FAST = 30.0  # seconds between sweeps at most, while the operator is young: crashes are what leaks
YOUNG = 600.0
OVERDUE = 300.0  # seconds beyond the interval without a try, after which the liveness probe fails (I-44)
REMOVING = 30.0  # seconds that one sweep spends on removals; the next one goes on
FIRST = 2.0  # seconds after the start of the operator or the appearance of a class
_JITTER = 0.1
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # DNS-1123, as object names are


@dataclass(frozen=True)
class _Asked:
    """What was told to stop; ``released`` when a person's word was needed for it."""

    suspect: Suspect
    released: bool


@dataclass
class _Class:
    """What is remembered of one class between sweeps; losing it costs one grace period."""

    due: float
    beat: Heartbeat
    book: Book = field(default_factory=Book)
    asked: dict[str, _Asked] = field(default_factory=dict)  # by instance id: told to stop, not yet seen gone
    told: frozenset[str] = frozenset()  # instance ids that an Event spoke of
    status: SweepStatus = field(default_factory=SweepStatus)
    restored: bool = False
    rate: PerMinute = field(default_factory=lambda: PerMinute(1))


class Sweeper:
    """The work of the sweep queue."""

    def __init__(self, world: World, supervisor: Supervisor) -> None:
        self._world, self._supervisor = world, supervisor
        self._born = time.monotonic()
        self._classes: dict[str, _Class] = {}

    def is_due(self, name: str) -> bool:
        """Whether it is time to sweep a class; asked by the kopf timer."""
        now, state = time.monotonic(), self._classes.get(name)
        if state is None:
            state = self._classes[name] = _Class(now + FIRST, self._supervisor.heartbeat(f"sweep/{name}", OVERDUE))
        return now >= state.due

    def forget(self, name: str) -> None:
        """The class is gone."""
        self._supervisor.forget(f"sweep/{name}")
        self._classes.pop(name, None)
        self._world.sweeps.pop(name, None)

    async def __call__(self, name: str) -> None:
        """One sweep of one class."""
        class_, state = self._world.store.classes.get(name), self._classes.get(name)
        if class_ is None or state is None:
            return
        interval = duration(class_.spec.sweep.interval).total_seconds()
        state.beat.overdue_after = interval + OVERDUE
        state.beat.tick()
        self._schedule(state, min(FAST, interval))  # unless this sweep comes to its end
        backend = self._world.door.find(name)
        if isinstance(backend, MeteredBackend):
            await self._sweep(class_, state, backend)

    async def _sweep(self, class_: WorkspaceClass, state: _Class, backend: MeteredBackend) -> None:
        name, policy = class_.metadata.name, _policy(class_)
        self._restore(class_, state)
        with about(**{"class": name}):
            now = time.monotonic()
            try:
                listed = await backend.list_owned()  # first, so that whatever is created from here on has its owner
                await self._same_cluster()
                owners, count = await self._owners({instance.ref.uid for instance in listed})
            except OperatorError as error:
                self._failed(class_, state, error)
                return
            computes = [_compute(instance) for instance in listed]
            released = class_.metadata.annotations.get(RELEASE_FUSE_ANNOTATION)
            self._note_gone(class_, state, {instance.id for instance in listed})
            judgement = judge(computes, owners, count, state.book, policy, released, now, secrets.token_hex(3))
            state.book = judgement.book
            self._correct(judgement, name)
            left = await self._remove(class_, backend, judgement, {i.ref.uid: i.ref for i in listed}, state)
            self._conclude(class_, state, judgement, left, policy)

    # -- looking -------------------------------------------------------------------------------------------------------

    async def _same_cluster(self) -> None:
        """An address that leads to another control plane now must not make everything an orphan."""
        found = await read_cluster_id(self._world.client)
        if found != self._world.cluster:
            text = "The API server is another cluster than at the operator's start; restart the operator."
            raise BackendUnreachable(Reason.SWEEP_FAILED, text)

    async def _owners(self, uids: set[str]) -> tuple[dict[str, Owner], int]:
        """The workspaces of these UIDs, and how many workspaces there are: an uncached listing of all pages."""
        owners, count = {}, 0
        async for body in self._world.client.list(workspaces()):
            count += 1
            if body["metadata"]["uid"] in uids:
                owner = _owner(body)
                owners[owner.uid] = owner
        return owners, count

    # -- acting --------------------------------------------------------------------------------------------------------

    def _correct(self, judgement: Judgement, class_name: str) -> None:
        """What has a workspace is put right by that workspace's pass, after a fresh look at its backend."""
        for suspect in judgement.correct:
            self._world.observer.mark_stale(class_name, suspect.compute.uid)
            self._world.wake(key_of(suspect.compute.namespace, suspect.compute.name))

    async def _remove(
        self,
        class_: WorkspaceClass,
        backend: MeteredBackend,
        judgement: Judgement,
        refs: Mapping[str, WorkspaceRef],
        state: _Class,
    ) -> bool:
        """Ask for the end of what may go; True when a later sweep has to come back to it."""
        grace = duration(class_.spec.stop_grace_period)
        together: dict[str, list[Suspect]] = {}
        for suspect in judgement.remove:
            together.setdefault(suspect.compute.uid, []).append(suspect)
        end, left = time.monotonic() + REMOVING, False
        for uid, suspects in together.items():
            if time.monotonic() > end:
                return True
            request = StopRequest(refs[uid], grace, release=True)
            asked = [_Asked(suspect, judgement.book.fuse is not None) for suspect in suspects]
            spared = await self._remove_one(backend, request, asked, class_.metadata.name, state)
            if spared is not None:
                metrics.ORPHANS_SPARED.labels(class_.metadata.name, spared).inc(len(suspects))
                left = True
        return left or bool(state.asked)

    async def _remove_one(
        self, backend: MeteredBackend, request: StopRequest, asked: list[_Asked], class_name: str, state: _Class
    ) -> str | None:
        """All instances of one UID; the answer is why they were spared, or None."""
        new = {one.suspect.compute.id: one for one in asked if one.suspect.compute.id not in state.asked}
        if new and not state.rate.take():
            return "RateLimited"
        try:
            if not await self._is_unowned(asked[0].suspect, class_name):
                return "WorkspaceFound"
            state.asked.update(new)  # before the verb: where its answer is lost, it may have removed them
            await backend.stop(request)
        except OperatorError as error:
            log.warning("an orphan of workspace %s could not be removed: %s", request.ref.uid, error)
            return "Failed"
        for one in new.values():
            log.info("told to stop: %s", words(one.suspect))
        return None

    async def _is_unowned(self, suspect: Suspect, class_name: str) -> bool:
        """A fresh read right before the removal. Raises KubeError when it cannot be read."""
        compute = suspect.compute
        if not (_NAME.fullmatch(compute.namespace) and _NAME.fullmatch(compute.name)):
            owners, _ = await self._owners({compute.uid})  # spoilt labels lead nowhere; the UID is what counts
            return compute.uid not in owners
        try:
            body = await self._world.client.get(workspaces(compute.namespace, compute.name))
        except NotFound:
            return True
        owner = _owner(body)
        return kind_of(compute, owner if owner.uid == compute.uid else None, class_name) in UNOWNED

    # -- telling -------------------------------------------------------------------------------------------------------

    def _note_gone(self, class_: WorkspaceClass, state: _Class, present: set[str]) -> None:
        """What was told to stop and is not listed any more was removed."""
        for id_, asked in list(state.asked.items()):
            if id_ in present:
                continue
            suspect = state.asked.pop(id_).suspect
            if not asked.released:
                state.book = after_removal(state.book, time.monotonic())
            age, name = time.monotonic() - suspect.since, class_.metadata.name
            metrics.ORPHANS_REMOVED.labels(name, suspect.kind).inc()
            metrics.ORPHAN_AGE.labels(name).observe(age)
            state.status = state.status.model_copy(update={"removed": state.status.removed + 1})
            text = f"Removed {words(suspect)}, {age:.0f} s after it was first seen. Its data volume is kept."
            self._tell(class_, Reason.ORPHAN_REMOVED, text)

    def _failed(self, class_: WorkspaceClass, state: _Class, error: OperatorError) -> None:
        log.warning("sweep not complete, nothing was removed: %s", error)
        metrics.ORPHANS_SPARED.labels(class_.metadata.name, "Incomplete").inc(len(state.book.suspects))
        verdict: Verdict = (ConditionStatus.UNKNOWN, Reason.SWEEP_FAILED, f"Nothing was removed: {error}")
        waits = stalled(state.status.fuse, class_.metadata.name)
        self._world.sweeps[class_.metadata.name] = SweepReport(state.status, verdict, waits)
        self._world.wake_class(class_.metadata.name)

    def _conclude(
        self, class_: WorkspaceClass, state: _Class, judgement: Judgement, left: bool, policy: Policy
    ) -> None:
        name, fuse = class_.metadata.name, judgement.book.fuse
        self._tell_of_new(class_, state, judgement, policy)
        if self._classes.get(name) is state:  # a class that went meanwhile shows nothing any more
            _count(class_, judgement, policy)
        shown = SweepFuse(token=fuse.token, orphans=fuse.orphans) if fuse is not None else None
        if shown is not None and shown != state.status.fuse:
            self._tell(class_, Reason.SWEEP_FUSE_BLOWN, stalled(shown, name)[2], warning=True)
        state.status = SweepStatus(
            last_complete_time=moments.text(self._world.clock.now()),
            orphans=judgement.orphans,
            removed=state.status.removed,
            fuse=shown,
        )
        waits = stalled(shown, name)
        self._world.sweeps[name] = SweepReport(state.status, swept(judgement, waits), waits)
        state.beat.beat()
        self._world.wake_class(name)
        self._schedule(state, self._next(class_, judgement, left, policy))

    def _tell_of_new(self, class_: WorkspaceClass, state: _Class, judgement: Judgement, policy: Policy) -> None:
        """One Event for each orphan that stays: in report-only mode, or where a pass does not put it right."""
        shown = judgement.correct
        if not policy.removes:
            shown += tuple(s for s in judgement.book.suspects.values() if s.kind in UNOWNED and s.sightings > 1)
        for suspect in shown:
            if suspect.compute.id not in state.told:
                self._tell(class_, Reason.ORPHANS_FOUND, f"Found {words(suspect)}.", warning=True)
        state.told = frozenset(suspect.compute.id for suspect in shown)

    def _tell(self, class_: WorkspaceClass, reason: Reason, message: str, *, warning: bool = False) -> None:
        log.info("%s: %s", reason, message)
        self._world.events.post(class_.metadata, "WorkspaceClass", reason=reason, message=message, warning=warning)

    # -- when ----------------------------------------------------------------------------------------------------------

    def _next(self, class_: WorkspaceClass, judgement: Judgement, left: bool, policy: Policy) -> float:
        """Seconds to the next sweep: the interval, or earlier where something waits."""
        interval = duration(class_.spec.sweep.interval).total_seconds()
        if time.monotonic() - self._born < YOUNG:
            interval = min(interval, FAST)
        interval *= random.uniform(1 - _JITTER, 1)  # noqa: S311 - spreads the classes
        ripening = next_look(judgement, policy, time.monotonic())
        if ripening is not None:
            interval = min(interval, ripening + 0.1)
        if left:
            interval = min(interval, duration(class_.spec.observe_interval).total_seconds())
        return max(interval, 1.0)

    def _schedule(self, state: _Class, seconds: float) -> None:
        state.due = time.monotonic() + seconds

    def _restore(self, class_: WorkspaceClass, state: _Class) -> None:
        """The class's removal rate; and once, what an earlier operator left in status: its count and a blown fuse."""
        if state.restored:
            return
        state.restored, state.rate = True, PerMinute(class_.spec.sweep.max_per_minute)
        if class_.status.sweep is not None:
            state.status = class_.status.sweep
            fuse = state.status.fuse
            state.book = Book(fuse=Fuse(fuse.token, fuse.orphans) if fuse is not None else None)


def _count(class_: WorkspaceClass, judgement: Judgement, policy: Policy) -> None:
    """The gauges of one complete sweep."""
    name, now = class_.metadata.name, time.monotonic()
    for kind in Kind:
        ages = [now - suspect.since for suspect in judgement.book.suspects.values() if suspect.kind is kind]
        metrics.ORPHANS.labels(name, kind).set(len(ages))
        metrics.ORPHAN_OLDEST.labels(name, kind).set(max(ages, default=0.0))
    bound = duration(class_.spec.sweep.interval) + policy.grace
    metrics.SWEEP_BOUND.labels(name).set(bound.total_seconds())
    metrics.FUSE_BLOWN.labels(name).set(judgement.book.fuse is not None)
    metrics.SWEEP_COMPLETED.labels(name).set_to_current_time()


def _policy(class_: WorkspaceClass) -> Policy:
    sweep = class_.spec.sweep
    removes = sweep.mode is SweepMode.REMOVE
    return Policy(class_.metadata.name, removes, duration(sweep.grace_period), sweep.max_percent)


def _compute(instance: Instance) -> Compute:
    ref = instance.ref
    return Compute(instance.id, ref.uid, ref.namespace, ref.name, instance.incarnation, instance.reading)


def _owner(body: Object) -> Owner:
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    classes = {spec.get("className"), status.get("className")} if spec.get("className") else set()
    state = status.get("effectiveState")
    return Owner(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        classes=frozenset(name for name in classes if name),
        incarnation=int((status.get("instance") or {}).get("incarnation") or 0),
        state=DesiredState(state) if state else None,
        deleting=bool(metadata.get("deletionTimestamp")),
    )
