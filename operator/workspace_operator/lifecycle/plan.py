"""The plan: wish, record, observation and time in; the one next step, its report line and a wake-up out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import ConditionType, Phase
from workspace_operator.api.workspace import WorkspaceStatus
from workspace_operator.lifecycle import backoff, idle, moments
from workspace_operator.lifecycle.facts import Goal, Seen, Sight, Wish
from workspace_operator.lifecycle.table import TABLE, Guard, Row, Step

RECHECK = timedelta(seconds=30)  # how often a state that waits for others is looked at again
RENEW_MARGIN = 1 / 3  # of the token's lifetime left
SOON = timedelta(seconds=1)
FIRST_LOOK = timedelta(milliseconds=250)  # at an instance that was told to stop

APPLIED_TOGETHER = timedelta(seconds=10)  # manifests of one set come in any order within this time

#: What a new workspace names may still be on its way.
_TO_COME = (Reason.CLASS_NOT_FOUND, Reason.PARENT_NOT_FOUND, Reason.REFERENCE_NOT_FOUND)

#: Reasons that a backend may put more precisely, e.g. Provisioning as Unschedulable.
_REFINED = (Reason.PROVISIONING, Reason.INSTANCE_FAILED, Reason.INSTANCE_EXITED)


@dataclass(frozen=True)
class Situation:
    """All that a decision depends on."""

    wish: Wish
    record: WorkspaceStatus
    seen: Seen
    now: datetime
    token_lifetime: timedelta = timedelta(hours=1)
    work: idle.Work = idle.UNKNOWN


@dataclass(frozen=True)
class Decision:
    """The row taken, its reason and message, and when to look again at the latest (None: only when woken)."""

    row: Row
    reason: Reason
    message: str
    wake_in: timedelta | None

    @property
    def step(self) -> Step:
        return self.row.step

    @property
    def phase(self) -> Phase:
        return self.row.phase


_INDEX: Mapping[tuple[Goal, Sight], tuple[Row, ...]]
_index: defaultdict[tuple[Goal, Sight], list[Row]] = defaultdict(list)
for _row in TABLE:
    _index[_row.goal, _row.sight].append(_row)
_INDEX = {key: tuple(rows) for key, rows in _index.items()}


def plan(situation: Situation) -> Decision:
    """The next step of a workspace. Total: every situation has a row."""
    key = situation.wish.goal, situation.seen.sight
    row = next(row for row in _INDEX[key] if GUARDS[row.guard](situation))
    reason, message = _explain(row, situation)
    return Decision(row, reason, message, _wake_in(row, situation))


# -- guards ------------------------------------------------------------------------------------------------------------


def _backing_off(s: Situation) -> bool:
    failures = s.record.failures
    if failures is None or failures.observed_generation != s.wish.generation:
        return False  # an edited spec is tried at once
    return s.now < moments.parse(failures.retry_after)


def _given_up(s: Situation) -> bool:
    """An instance whose start is not over is adopted instead: the failed attempt may have made it (I-06, I-08)."""
    instance = s.record.instance
    return _backing_off(s) and (instance is None or instance.since is None)


def _undecided(s: Situation) -> bool:
    """Whether a start needs a new decision on record before the backend is asked."""
    instance = s.record.instance
    if instance is None or instance.since is None:
        return True
    if s.seen.sight in (Sight.RUNNING, Sight.FROZEN):
        return instance.incarnation != s.seen.incarnation
    return instance.parameters != s.wish.parameters.text or _failed_since_decided(s)


def _failed_since_decided(s: Situation) -> bool:
    instance, failures = s.record.instance, s.record.failures
    if instance is None or instance.since is None or failures is None:
        return False
    return moments.parse(failures.retry_after) > moments.parse(instance.since)


def drifted(s: Situation) -> bool:
    """Whether the instance was made from another template than the one wished for now."""
    return s.record.instance is not None and not s.wish.parameters.same_template(s.record.instance.parameters)


def _token_differs(s: Situation) -> bool:
    if s.record.instance is None or s.wish.restart_token is None:
        return False
    return not s.wish.parameters.same_token(s.record.instance.parameters)


def _restart_wanted(s: Situation) -> bool:
    if s.wish.blocked is not None or _backing_off(s):
        return False
    return _token_differs(s) or (s.wish.automatic_update and drifted(s))


def _overdue(s: Situation) -> bool:
    instance = s.record.instance
    if instance is None or instance.since is None or instance.served or s.seen.serving.answers:
        return False
    return s.now >= moments.parse(instance.since) + s.wish.provision_timeout


def _unserved(s: Situation) -> bool:
    instance = s.record.instance
    return not s.seen.serving.answers and not (instance is not None and instance.served)


def _ran_since_decided(s: Situation) -> bool:
    instance = s.record.instance
    return instance is not None and instance.since is not None and (instance.served or s.seen.ran)


def _renewal_due(s: Situation) -> bool:
    return s.wish.renews_credentials and _renewal_time(s) <= s.now


def _renewal_time(s: Situation) -> datetime:
    if s.record.credentials is None:
        return s.now
    return moments.parse(s.record.credentials.expires) - s.token_lifetime * RENEW_MARGIN


def _ending(s: Situation) -> bool:
    """Still within its grace period. Backends that end by themselves give no time, and are asked again."""
    return s.seen.halting_since is not None and s.now < s.seen.halting_since + s.wish.grace


def awaited_for(s: Situation) -> timedelta | None:
    """How much longer what is missing may just not have been applied yet; None: it is really missing."""
    blocked = s.wish.blocked
    if s.wish.created is None or blocked is None or blocked.reason not in _TO_COME:
        return None
    left = s.wish.created + APPLIED_TOGETHER - s.now
    return left if timedelta(0) < left <= 2 * APPLIED_TOGETHER else None  # no more than that for a clock that is slow


def _data_at_stake(s: Situation) -> bool:
    return s.wish.delete_data and s.record.incarnation > 0 and not s.seen.data_gone


GUARDS: Mapping[Guard, Callable[[Situation], bool]] = {
    Guard.ALWAYS: lambda _: True,
    Guard.BLOCKED: lambda s: s.wish.blocked is not None,
    Guard.BACKING_OFF: _backing_off,
    Guard.GIVEN_UP: _given_up,
    Guard.UNDECIDED: _undecided,
    Guard.RESTART_WANTED: _restart_wanted,
    Guard.OVERDUE: _overdue,
    Guard.UNSERVED: _unserved,
    Guard.ENDED: _ran_since_decided,
    Guard.LOST: _ran_since_decided,
    Guard.RENEWAL_DUE: _renewal_due,
    Guard.IDLE: lambda s: idle.is_idle(s.wish, s.record, s.seen, s.work, s.now),
    Guard.FREEZE_WANTED: lambda s: s.wish.freeze,
    Guard.NOT_KEPT: lambda s: not s.wish.halts,
    Guard.ENDING: _ending,
    Guard.CREDENTIALS_VALID: lambda s: s.record.credentials is not None,
    Guard.DATA_UNREACHABLE: lambda s: _data_at_stake(s) and s.wish.backend is None,
    Guard.DATA_DOOMED: _data_at_stake,
}


# -- what is said, and when to look again ------------------------------------------------------------------------------


def _explain(row: Row, s: Situation) -> tuple[Reason, str]:
    if row.reason is not None:
        said = idle.sentence(s.record) if row.reached and idle.is_asleep(s.wish) else s.seen.message
        reason = s.seen.why if s.seen.why is not None and row.reason in _REFINED else row.reason
        return reason, said or reason.meaning
    failures = s.record.failures
    if row.guard in (Guard.BACKING_OFF, Guard.GIVEN_UP) and failures is not None:
        text = f"{failures.message} Attempt {failures.count} failed; the next follows by itself."
        return Reason.known(failures.reason), text
    problem = s.seen.problem or s.wish.blocked
    if row.guard in (Guard.BLOCKED, Guard.DATA_UNREACHABLE) or s.wish.backend is None:
        problem = s.wish.blocked or problem
    if problem is None:
        return Reason.NOT_OBSERVED, Reason.NOT_OBSERVED.meaning
    return Reason.known(problem.reason), problem.message


def _wake_in(row: Row, s: Situation) -> timedelta | None:
    """Every state that is not final has a time by which it is looked at again, whatever else wakes it."""
    if row.step is not Step.WAIT:
        return timedelta(0)
    if row.guard is Guard.BACKING_OFF and s.record.failures is not None:
        return max(timedelta(0), moments.parse(s.record.failures.retry_after) - s.now)
    if row.guard is Guard.ENDING and s.seen.halting_since is not None:
        elapsed, left = s.now - s.seen.halting_since, s.seen.halting_since + s.wish.grace - s.now
        return min(max(elapsed / 2, FIRST_LOOK), max(left, timedelta(0)))  # ever more rarely, and when grace is over
    if not row.reached:
        return min(RECHECK, _until_overdue(s), awaited_for(s) or RECHECK)
    return _wake_when_reached(s) if row.phase is Phase.RUNNING else None


def _until_overdue(s: Situation) -> timedelta:
    instance = s.record.instance
    if instance is None or instance.since is None or instance.served:
        return RECHECK
    return max(SOON, moments.parse(instance.since) + s.wish.provision_timeout - s.now)


def _wake_when_reached(s: Situation) -> timedelta | None:
    moments_ahead = []
    if s.wish.renews_credentials:
        moments_ahead.append(_renewal_time(s) - s.now)
    forget_at = forget_failures_at(s.record)
    if forget_at is not None:
        moments_ahead.append(forget_at - s.now)
    if s.record.failures is not None and _backing_off(s):  # e.g. a restart that waits for its turn
        moments_ahead.append(moments.parse(s.record.failures.retry_after) - s.now)
    look_at = idle.next_look(s.wish, s.record, s.work, s.now)
    if look_at is not None:
        moments_ahead.append(look_at - s.now)
    return max(SOON, min(moments_ahead)) if moments_ahead else None


def forget_failures_at(record: WorkspaceStatus) -> datetime | None:
    """When past failures stop counting: after the workspace was Ready for as long as its last back-off."""
    if record.failures is None:
        return None
    ready = next((c for c in record.conditions if c.type == ConditionType.READY and c.status == "True"), None)
    if ready is None:
        return None
    return moments.parse(ready.last_transition_time) + backoff.stable_after(record.failures.count)
