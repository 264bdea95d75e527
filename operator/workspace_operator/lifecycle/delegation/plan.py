"""A delegation's plan: wish, record, what is known of the task, and time in; the next step and its report line out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import DelegationPhase
from workspace_operator.errors import Failure
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.delegation.facts import Goal, Sight, Situation
from workspace_operator.lifecycle.delegation.table import ERRANDS, TABLE, Guard, Row, Step

RECHECK = timedelta(minutes=5)  # how often one that waits for others is looked at again, whatever wakes it
CANCEL_PATIENCE = timedelta(seconds=30)  # for an agent's answer to a cancel
EXPIRY_PATIENCE = timedelta(seconds=10)  # the same at the deadline; so much later it is over at the latest
SOON = timedelta(milliseconds=100)
_MAY_STICK = (DelegationPhase.WORKING,)  # before, nobody could have heard of it: what waited for long was not silent


@dataclass(frozen=True)
class Decision:
    """The row taken, what is reported, and when to look again at the latest (None: only when woken)."""

    row: Row
    phase: DelegationPhase
    reason: Reason
    message: str
    wake_in: timedelta | None

    @property
    def step(self) -> Step:
        return self.row.step


_index: defaultdict[tuple[Goal, Sight], list[Row]] = defaultdict(list)
for _row in TABLE:
    _index[_row.goal, _row.sight].append(_row)
_INDEX: Mapping[tuple[Goal, Sight], tuple[Row, ...]] = {key: tuple(rows) for key, rows in _index.items()}


def plan(situation: Situation) -> Decision:
    """The next step of a delegation. Total: every situation has a row."""
    row = next(row for row in _INDEX[situation.wish.goal, situation.seen.sight] if GUARDS[row.guard](situation))
    reason, message = _explain(row, situation)
    phase = row.phase or situation.record.phase or DelegationPhase.QUEUED
    if phase in _MAY_STICK and stuck_at(situation) <= situation.now:
        phase, reason = DelegationPhase.STUCK, Reason.AGENT_SILENT
        message = f"No sign of life since {moments.text(last_sign(situation))}; it may still finish until its deadline."
    return Decision(row, phase, reason, message, _wake_in(row, situation))


def cancel_by(wished: datetime, deadline: datetime) -> datetime:
    """Until when a cancel that was wished at a time, whatever for, waits for the agent's answer."""
    return min(wished + CANCEL_PATIENCE, max(wished, deadline) + EXPIRY_PATIENCE)


def last_sign(s: Situation) -> datetime:
    """The last sign of life of the task: from this process, else from the record, else its beginning."""
    known = [moments.parse(text) for text in (s.record.heartbeat_time, s.record.start_time) if text]
    if s.seen.heartbeat is not None:
        known.append(s.seen.heartbeat)
    return max(known, default=s.wish.created)


def is_lost(s: Situation) -> bool:
    """The agent had the task and knows it no more: whatever it did of it is done."""
    return bool(s.record.attempts) and s.record.attempts[-1].reason == Reason.TASK_LOST


def stuck_at(s: Situation) -> datetime:
    """From when on the silence of the task is reported."""
    return last_sign(s) + s.wish.stuck_after


# -- guards ------------------------------------------------------------------------------------------------------------


def _spent(s: Situation) -> bool:
    return s.wish.max_attempts is not None and s.record.failed_deliveries >= s.wish.max_attempts


def _resting(s: Situation) -> bool:
    return _rest_until(s) > s.now


def _rest_until(s: Situation) -> datetime:
    known = [moments.parse(s.record.retry_after)] if s.record.retry_after else []
    if s.seen.not_before is not None:
        known.append(s.seen.not_before)
    return max(known, default=s.now)


def _cancel_over(s: Situation) -> bool:
    return s.seen.cancellation is not None or (s.wish.cancel_by is not None and s.now >= s.wish.cancel_by)


def _ttl_over(s: Situation) -> bool:
    return s.now >= _delete_at(s)


def _delete_at(s: Situation) -> datetime:
    finished = moments.parse(s.record.finish_time) if s.record.finish_time else s.wish.deadline
    return finished + s.wish.ttl


GUARDS: Mapping[Guard, Callable[[Situation], bool]] = {
    Guard.ALWAYS: lambda _: True,
    Guard.DENIED: lambda s: s.wish.denied is not None,
    Guard.SPENT: _spent,
    Guard.HINDERED: lambda s: s.wish.hindrance is not None,
    Guard.RESTING: _resting,
    Guard.NO_TURN: lambda s: not s.wish.turn,
    Guard.UNDER_WAY: lambda s: s.seen.under_way,
    Guard.GONE: lambda s: s.wish.gone is not None,
    Guard.CANNOT_ASK: lambda s: s.seen.cannot_ask,
    Guard.LOST_FOR_GOOD: lambda s: is_lost(s) and not s.wish.may_resend,
    Guard.AT_MOST_ONCE: lambda s: s.seen.cannot_ask and not s.wish.may_resend,
    Guard.CANCEL_OVER: _cancel_over,
    Guard.CLAIMED: lambda s: s.wish.claimed,
    Guard.TTL_OVER: _ttl_over,
}


# -- what is said, and when to look again ------------------------------------------------------------------------------


def _explain(row: Row, s: Situation) -> tuple[Reason, str]:
    if row.reason is None:
        failure = _failure(row, s)
        if failure is None:
            return Reason.DELIVERY_FAILED, Reason.DELIVERY_FAILED.meaning
        return Reason.known(failure.reason), failure.message
    if row.reason is Reason.CANCELLED and s.wish.cancelled is not None:
        return Reason.known(s.wish.cancelled.reason), s.wish.cancelled.message
    text = row.reason.meaning
    if row.step is Step.FINISH:
        text = _last_words(row.reason, s)
    elif row.guard is Guard.NO_TURN:
        text = f"{s.wish.target} has as many tasks as it takes at once (spec.agent.maxConcurrentTasks)."
    return row.reason, text


def _failure(row: Row, s: Situation) -> Failure | None:
    by_guard = {Guard.DENIED: s.wish.denied, Guard.HINDERED: s.wish.hindrance, Guard.GONE: s.wish.gone}
    return by_guard.get(row.guard, s.seen.problem)


def _last_words(reason: Reason, s: Situation) -> str:
    """The sentence of a terminal phase: what the agent said, or what stood in the way to the last."""
    said = s.seen.problem.message if s.seen.problem is not None else ""
    waited = s.wish.denied or s.wish.hindrance
    match reason:
        case Reason.TASK_FAILED:
            how = "cancelled the task by itself" if s.seen.sight is Sight.CANCELED else "reports that the task failed"
            return f"The agent {how}{': ' + said if said else '.'}"
        case Reason.TASK_LOST:
            return "The agent no longer knows the task, as after a restart, and spec.retry.whenAmbiguous is Fail."
        case Reason.ATTEMPTS_EXHAUSTED | Reason.DEADLINE_EXCEEDED:
            why = said or (waited.message if waited is not None else "")
            return f"{reason.meaning} {why}".strip()
        case _:
            return reason.meaning


def _wake_in(row: Row, s: Situation) -> timedelta | None:
    """Every state that is not over has a time by which it is looked at again, whatever else wakes it (I-68)."""
    if row.step in ERRANDS:
        return _ahead(s, [s.now + RECHECK, s.wish.deadline])
    if row.step is not Step.WAIT:
        return timedelta(0)
    if row.goal is Goal.CLOSE:
        return _ahead(s, [_delete_at(s)])
    ahead = [s.now + RECHECK]
    if row.goal in (Goal.DELIVER, Goal.HOLD):
        ahead.append(s.wish.deadline)
    if s.wish.cancel_by is not None:
        ahead.append(s.wish.cancel_by)
    if row.guard is Guard.RESTING:
        ahead.append(_rest_until(s))
    if row.phase in _MAY_STICK and stuck_at(s) > s.now:
        ahead.append(stuck_at(s))
    return _ahead(s, ahead)


def _ahead(s: Situation, times: list[datetime]) -> timedelta:
    return max(SOON, min(times) - s.now)
