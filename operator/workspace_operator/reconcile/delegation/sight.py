"""From the record and what this process has heard to the one value that the plan decides on."""

from __future__ import annotations

from workspace_operator.a2a.values import TaskState
from workspace_operator.api.delegation import DelegationStatus, TaskStatus
from workspace_operator.api.reasons import Reason
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle.delegation.facts import Goal, Seen, Sight
from workspace_operator.lifecycle.delegation.report import acknowledged, undelivered
from workspace_operator.lifecycle.delegation.table import Step
from workspace_operator.reconcile.delegation.errands import Talk
from workspace_operator.reconcile.world import Clock

_OVER = {
    TaskState.COMPLETED: Sight.SUCCEEDED,
    TaskState.FAILED: Sight.FAILED,
    TaskState.CANCELED: Sight.CANCELED,
    TaskState.WORKING: Sight.WORKING,
    TaskState.INPUT_REQUIRED: Sight.ASKING,
}


def absorb(record: DelegationStatus, talk: Talk, clock: Clock) -> DelegationStatus:
    """The record with what was heard since it was written; doing it twice is doing it once."""
    if talk.attempt > record.attempt_count:
        record = record.model_copy(update={"attempt_count": talk.attempt, "retry_after": None})
    view = talk.view
    if view is not None and view.id:
        task = TaskStatus(id=view.id, context_id=view.context_id, state=view.state, target_uid=talk.target_uid)
        record = acknowledged(record, task, clock.now())
    if talk.undelivered and talk.failed is not None:
        record = undelivered(record, talk.attempt or record.attempt_count, talk.failed, clock.now())
    return record


def see(record: DelegationStatus, talk: Talk, goal: Goal, *, claimed: bool) -> Seen:
    """What is known of the task."""
    sight = _sight(record, talk, claimed)
    aborted = talk.under_way is Step.FOLLOW and goal in (Goal.CANCEL, Goal.EXPIRE)  # a cancel breaks it off
    return Seen(
        sight=sight,
        problem=_problem(sight, record, talk),
        under_way=talk.under_way is not None and not aborted,
        cannot_ask=talk.cannot_ask,
        heartbeat=talk.heartbeat,
        not_before=talk.not_before,
        cancellation=talk.cancellation,
    )


def _sight(record: DelegationStatus, talk: Talk, claimed: bool) -> Sight:
    if not claimed:
        return Sight.UNSENT
    if talk.refused is not None:
        return Sight.REFUSED
    if talk.unusable is not None:
        return Sight.UNUSABLE
    if talk.view is not None and (talk.unanswered == 0 or talk.view.state.over):
        return _OVER[talk.view.state]
    if talk.undelivered:
        return Sight.UNDELIVERED
    if record.task is not None:
        return Sight.SILENT
    return Sight.SENDING if talk.under_way is Step.SEND else Sight.UNSURE


def _problem(sight: Sight, record: DelegationStatus, talk: Talk) -> Failure | None:
    """What there is to say: the agent's question or last words, or why the latest sending failed."""
    if talk.view is not None and talk.view.message and sight in (Sight.ASKING, Sight.FAILED, Sight.CANCELED):
        reason = Reason.INPUT_REQUIRED if sight is Sight.ASKING else Reason.TASK_FAILED
        return Failure(FailureClass.BACKEND, reason, talk.view.message)
    found = talk.refused or talk.unusable or talk.failed
    if found is None and record.attempts and sight in (Sight.UNSENT, Sight.UNDELIVERED):
        latest = record.attempts[-1]
        return Failure(FailureClass.BACKEND, latest.reason, latest.message or latest.reason)
    return found
