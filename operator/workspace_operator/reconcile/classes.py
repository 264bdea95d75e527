"""One pass over one WorkspaceClass: open its backend, follow it, and show what is known of it."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from workspace_operator.api.base import Condition
from workspace_operator.api.meta import is_default_class
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability, ConditionStatus, ConditionType, PauseMode
from workspace_operator.api.workspaceclass import WorkspaceClass, WorkspaceClassStatus
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.errors import Failure, OperatorError
from workspace_operator.kube.client import Conflict, NotFound, workspace_classes
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.conditions import Verdict, settle
from workspace_operator.reconcile.statuswrite import write_status
from workspace_operator.reconcile.sweepreport import SweepReport
from workspace_operator.reconcile.world import World
from workspace_operator.telemetry import metrics
from workspace_operator.telemetry.logs import about

log = logging.getLogger(__name__)

CHECK_INTERVAL = timedelta(seconds=60)  # how often a class that works is checked
RETRY_INTERVAL = timedelta(seconds=10)  # and one that does not
_AGAIN = timedelta(seconds=1)  # at least this long between checks of one that does not, whatever wakes it
_NEEDED = {PauseMode.FREEZE: Capability.FREEZE, PauseMode.HIBERNATE: Capability.HIBERNATE}
COUNT_DELAY = timedelta(seconds=2)  # status changes of workspaces are counted at most this often


class ClassReconciler:
    """The work of the class queue."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._checked: dict[str, tuple[float, Verdict]] = {}  # monotonic time and outcome of the last check

    async def __call__(self, name: str) -> timedelta | None:
        """Returns when the class is wanted again."""
        with about(**{"class": name}):
            class_ = self._world.store.classes.get(name)
            if class_ is None:
                await self._close(name)
                return None
            opened = await self._world.door.open(class_)
            # Before the first listing, because a check may prepare the backend.
            verdict = await self._verdict(class_, fresh=opened)
            if opened:
                await self._world.observer.follow(class_)
                self._wake_workspaces(name)
            await self._report(class_, verdict)
            return CHECK_INTERVAL if verdict[0] is ConditionStatus.TRUE else RETRY_INTERVAL

    async def _close(self, name: str) -> None:
        await self._world.observer.unfollow(name)
        await self._world.door.close(name)
        self._checked.pop(name, None)
        metrics.forget_class(name)
        self._wake_workspaces(name)

    def _wake_workspaces(self, name: str) -> None:
        for key in self._world.store.keys_of_class(name):
            self._world.wake(key)

    async def _verdict(self, class_: WorkspaceClass, *, fresh: bool) -> Verdict:
        if class_.metadata.deletion_timestamp is not None:
            users = list(self._world.store.users_of_class(class_.metadata.name))
            text = f"{len(users)} workspaces use this class, {users[0]} among them; delete them." if users else ""
            return ConditionStatus.FALSE, Reason.CLASS_DELETING, text or Reason.CLASS_DELETING.meaning
        backend = self._world.door.find(class_.metadata.name)
        if isinstance(backend, Failure):
            return ConditionStatus.FALSE, backend.reason, backend.message
        needed = _NEEDED.get(class_.spec.pause_mode)
        if needed is not None and needed not in backend.capabilities:
            text = f"The {backend.kind} backend, as configured, cannot {needed}; set spec.pauseMode to Stop."
            return ConditionStatus.FALSE, Reason.UNSUPPORTED, text
        return await self._check(class_.metadata.name, backend, fresh=fresh)

    async def _check(self, name: str, backend: MeteredBackend, *, fresh: bool) -> Verdict:
        """Asked once per interval, however often the counts of the class change meanwhile."""
        at, verdict = self._checked.get(name, (0.0, None))
        listed = self._world.observer.problem(name) is None
        interval = CHECK_INTERVAL if listed and verdict is not None and verdict[0] is ConditionStatus.TRUE else _AGAIN
        if verdict is not None and not fresh and time.monotonic() - at < interval.total_seconds():
            return verdict
        try:
            verdict = ConditionStatus.TRUE, Reason.USABLE, await backend.check()
        except OperatorError as error:
            unreachable = error.failure.reason == Reason.BACKEND_UNREACHABLE
            status = ConditionStatus.UNKNOWN if unreachable else ConditionStatus.FALSE
            verdict = status, error.failure.reason, error.failure.message
        self._checked[name] = time.monotonic(), verdict
        return verdict

    async def _report(self, class_: WorkspaceClass, verdict: Verdict) -> None:
        name, store = class_.metadata.name, self._world.store
        backend = self._world.door.find(name)
        counts = store.phases_of_class(name, is_default_class(class_.metadata.annotations))
        metrics.CLASS_READY.labels(name).set(verdict[0] is ConditionStatus.TRUE)
        for phase, number in counts.items():
            metrics.WORKSPACES.labels(name, phase).set(number)
        for phase in class_.status.workspaces.keys() - counts.keys():
            metrics.WORKSPACES.labels(name, phase).set(0)
        now = moments.text(self._world.clock.now())
        report = self._world.sweeps.get(name)
        status = WorkspaceClassStatus(
            observed_generation=class_.metadata.generation,
            backend=class_.spec.backend,
            capabilities=tuple(sorted(backend.capabilities)) if isinstance(backend, MeteredBackend) else (),
            workspaces=counts,
            sweep=report.status if report is not None else class_.status.sweep,
            conditions=conditions(verdict, report, class_.status.conditions, class_.metadata.generation, now),
        )
        url = workspace_classes(name, "status")
        try:
            body = await write_status(self._world.client, url, class_.metadata.resource_version, class_.status, status)
        except (Conflict, NotFound):
            await self._refresh(class_)
            return
        if body is not None:
            store.put_class(WorkspaceClass.model_validate(body))
            self._announce(class_, verdict)

    def _announce(self, class_: WorkspaceClass, verdict: Verdict) -> None:
        status, reason, message = verdict
        before = class_.status.conditions[0].status if class_.status.conditions else None
        if before != status:
            log.info("class is %s: %s", reason, message)
            warning = status is not ConditionStatus.TRUE
            self._world.events.post(class_.metadata, "WorkspaceClass", reason=reason, message=message, warning=warning)

    async def _refresh(self, class_: WorkspaceClass) -> None:
        name, store = class_.metadata.name, self._world.store
        try:
            body = await self._world.client.get(workspace_classes(name))
        except NotFound:
            store.drop_class(name, class_.metadata.uid)
        else:
            store.put_class(WorkspaceClass.model_validate(body))
        self._world.wake_class(name)


def conditions(
    ready: Verdict, report: SweepReport | None, before: tuple[Condition, ...], generation: int, now: str
) -> tuple[Condition, ...]:
    """All conditions of a class; until its first sweep, what an earlier operator said of its sweeps."""
    if report is not None:
        swept: Verdict | None = report.swept
        blown = report.stalled if report.stalled[0] is ConditionStatus.TRUE else None
    else:
        said = {(c.type, c.reason): (ConditionStatus(c.status), c.reason, c.message) for c in before}
        swept = next((verdict for (kind, _), verdict in said.items() if kind == ConditionType.SWEPT), None)
        blown = said.get((ConditionType.STALLED, Reason.SWEEP_FUSE_BLOWN))
    verdicts = (
        (ConditionType.READY, ready),
        (ConditionType.SWEPT, swept),
        (ConditionType.STALLED, blown or _stalled(ready)),
    )
    present = ((kind, verdict) for kind, verdict in verdicts if verdict is not None)
    return settle(present, before, generation, now)


def _stalled(ready: Verdict) -> Verdict | None:
    """A class that cannot be used needs a person; one that is being deleted has its own way."""
    status, reason, message = ready
    usable = status is ConditionStatus.TRUE or reason == Reason.CLASS_DELETING
    return None if usable else (ConditionStatus.TRUE, reason, message)
