"""A delegation's record (status) as a function of what happened: sendings, answers, the end."""

from __future__ import annotations

from datetime import datetime, timedelta

from workspace_operator.api.base import Condition
from workspace_operator.api.delegation import (
    ATTEMPTS_KEPT,
    PREVIEW_BYTES,
    AttemptStatus,
    CancellationStatus,
    DelegationStatus,
    ResultStatus,
    TaskStatus,
)
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import TERMINAL, CancelOutcome, ConditionStatus, ConditionType, DelegationPhase
from workspace_operator.errors import Failure
from workspace_operator.lifecycle import backoff, moments
from workspace_operator.lifecycle.conditions import Verdict, settle
from workspace_operator.lifecycle.delegation.facts import Goal, Sight, Situation
from workspace_operator.lifecycle.delegation.plan import Decision, last_sign

_UNCOUNTED = (Reason.TARGET_BUSY, Reason.MESSAGE_NOT_FOUND, Reason.TASK_LOST)
_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
HEARTBEAT_WRITTEN = timedelta(seconds=60)  # a sign of life is not worth a write each
_DONE = (Sight.SUCCEEDED, Sight.FAILED, Sight.CANCELED, Sight.UNUSABLE)
_LONGEST_REST = timedelta(seconds=60)


def cut(data: bytes, limit: int) -> str:
    """The longest beginning of valid UTF-8 of at most ``limit`` bytes that ends between two characters (I-70)."""
    return data[:limit].decode("utf-8", errors="ignore")


def preview(data: bytes, media_type: str) -> ResultStatus:
    """An answer as the status shows it; what is longer than the preview is kept elsewhere."""
    text = cut(data, PREVIEW_BYTES)
    return ResultStatus(preview=text, bytes=len(data), media_type=media_type, complete=len(text.encode()) == len(data))


def sent(record: DelegationStatus, number: int, *, again: bool) -> DelegationStatus:
    """A sending begins; ``again``: one before it may have arrived, so a plain receiver may see a double."""
    return record.model_copy(
        update={
            "attempt_count": max(record.attempt_count, number),
            "resends": record.resends + again,
            "retry_after": None,
        }
    )


def undelivered(record: DelegationStatus, number: int, failure: Failure, now: datetime) -> DelegationStatus:
    """A sending has failed, and provably nothing has arrived (or the agent has lost it): the next one after a rest.

    Doing it twice for one sending is doing it once, so that a lost status write costs nothing.
    """
    if any(past.number == number and past.reason == failure.reason for past in record.attempts):
        return record if record.task is None else record.model_copy(update={"task": None})
    attempt = AttemptStatus(
        number=number, time=moments.text(now), reason=failure.reason, message=failure.message[:1024]
    )
    counted = failure.reason not in _UNCOUNTED
    in_a_row = sum(1 for past in record.attempts if past.reason == failure.reason) + 1
    rest = min(_LONGEST_REST, backoff.delay(in_a_row))
    return record.model_copy(
        update={
            "attempts": (*record.attempts, attempt)[-ATTEMPTS_KEPT:],
            "attempt_count": max(record.attempt_count, number),
            "failed_deliveries": record.failed_deliveries + counted,
            "retry_after": moments.text(now + rest + timedelta(milliseconds=999)),
            "task": None,
        }
    )


def acknowledged(record: DelegationStatus, task: TaskStatus, now: datetime) -> DelegationStatus:
    """The agent has it."""
    if record.task == task:
        return record
    return record.model_copy(
        update={"task": task, "start_time": record.start_time or moments.text(now), "retry_after": None}
    )


def report(s: Situation, decision: Decision) -> DelegationStatus:
    """The status to show; of one that is over, nothing changes."""
    if s.wish.goal is Goal.CLOSE:
        return s.record
    queued = decision.phase is DelegationPhase.QUEUED
    return s.record.model_copy(
        update={
            "observed_generation": s.wish.generation,
            "phase": decision.phase,
            "queued_reason": decision.reason.value if queued else None,
            "message_id": s.wish.message_id,
            "deadline": moments.text(s.wish.deadline),
            "heartbeat_time": _heartbeat(s),
            "question": _question(s, decision),
            "conditions": _conditions(s, decision),
        }
    )


def closed(written: DelegationStatus, generation: int) -> DelegationStatus:
    """The status of one that is over, as it was written; a later edit changes nothing, and is seen."""
    return written.model_copy(update={"observed_generation": generation})


def finish(s: Situation, decision: Decision, result: ResultStatus | None) -> DelegationStatus:
    """Terminal phase and result, for one update (I-65)."""
    assert decision.phase in TERMINAL
    ended = report(s, decision)
    return ended.model_copy(
        update={
            "finish_time": moments.text(s.now),
            "start_time": s.record.start_time or (moments.text(s.now) if s.seen.sight in _DONE else None),
            "result": result,
            "retry_after": None,
            "cancellation": s.seen.cancellation,
        }
    )


def unanswered(s: Situation) -> CancellationStatus:
    """The agent could not be told, or did not answer in time: its task may go on."""
    said = s.seen.problem or s.wish.hindrance
    text = f"The agent has not confirmed it; its task may go on. {said.message if said is not None else ''}".strip()
    return CancellationStatus(time=moments.text(s.now), outcome=CancelOutcome.UNANSWERED, message=text)


def _heartbeat(s: Situation) -> str | None:
    if s.record.start_time is None and s.seen.heartbeat is None:
        return None
    newest, known = last_sign(s), s.record.heartbeat_time
    if known is not None and newest - moments.parse(known) < HEARTBEAT_WRITTEN:
        return known
    return moments.text(newest)


def _question(s: Situation, decision: Decision) -> str | None:
    if decision.phase is not DelegationPhase.INPUT_REQUIRED:
        return None
    return s.seen.problem.message if s.seen.problem is not None else s.record.question


def _conditions(s: Situation, decision: Decision) -> tuple[Condition, ...]:
    over = decision.phase in TERMINAL
    message = decision.message or decision.reason.meaning
    verdicts: list[tuple[ConditionType, Verdict]] = [
        (ConditionType.ACCEPTED, _accepted(s)),
        (ConditionType.DELIVERED, _delivered(s)),
        (ConditionType.FINISHED, (_TRUE if over else _FALSE, decision.reason, message)),
    ]
    if decision.phase is DelegationPhase.FAILED or (over and decision.reason is Reason.SOURCE_GONE):
        verdicts.append((ConditionType.STALLED, (_TRUE, decision.reason, message)))
    elif not over and decision.reason is not Reason.HELD:  # held as declared is as wished, like a paused workspace
        verdicts.append((ConditionType.RECONCILING, (_TRUE, decision.reason, message)))
    return settle(verdicts, s.record.conditions, s.wish.generation, moments.text(s.now))


def _accepted(s: Situation) -> Verdict:
    if s.wish.denied is not None:
        return _FALSE, s.wish.denied.reason, s.wish.denied.message
    if s.wish.permitted or s.wish.claimed:
        return _TRUE, Reason.PERMITTED, Reason.PERMITTED.meaning
    if s.wish.hindrance is not None:
        return _UNKNOWN, s.wish.hindrance.reason, s.wish.hindrance.message
    return _UNKNOWN, Reason.NOT_DELIVERED, Reason.NOT_DELIVERED.meaning


def _delivered(s: Situation) -> Verdict:
    if s.record.task is not None or s.seen.sight in _DONE:
        return _TRUE, Reason.ACKNOWLEDGED, Reason.ACKNOWLEDGED.meaning
    if s.seen.sight in (Sight.UNSURE, Sight.SENDING):
        return _UNKNOWN, Reason.DELIVERY_UNKNOWN, Reason.DELIVERY_UNKNOWN.meaning
    return _FALSE, Reason.NOT_DELIVERED, Reason.NOT_DELIVERED.meaning
