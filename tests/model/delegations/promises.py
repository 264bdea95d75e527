"""What must hold at every step, whatever happened before. A broken promise is a Violation that says which."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.model.backend import Violation
from tests.model.delegations.world import State, seconds

from workspace_operator.a2a.values import TaskState
from workspace_operator.api.states import TERMINAL
from workspace_operator.lifecycle.delegation.plan import CANCEL_PATIENCE, EXPIRY_PATIENCE
from workspace_operator.lifecycle.delegation.table import Step

#: What an end needs to have in the world, by its reason.
_TOLD = {
    "Completed": "completed",
    "TaskFailed": "failed",
    "DeliveryRefused": "refused",
    "AnswerUnusable": "unusable",
    "TaskLost": "lost",
}


def begins(s: State, kind: Step, task_id: str) -> None:
    """An errand begins."""
    if not s.claimed:
        raise Violation(f"{kind} without a claim on the object (I-62, I-64)")
    if s.over:
        raise Violation(f"{kind} although it is {s.phase}")
    if kind is Step.SEND and s.now >= s.config.deadline:
        raise Violation("it is sent after its deadline")
    known = any(task.state is not TaskState.REJECTED for task in s.tasks)
    if kind is Step.SEND and known and s.config.lists and "ask" not in s.config.faults:
        raise Violation("it is sent again although the agent, which can be asked, has it (I-61)")


def worked(s: State) -> None:
    """The agent has begun to work on the message as often as it may (I-61)."""
    if s.config.knows_doubles and s.worked - s.elsewhere > 1:
        raise Violation("an agent that knows doubles worked twice (I-61)")
    resends = s.status.get("resends", 0)
    if s.there and s.worked > 1 + resends:
        raise Violation(f"the agent worked {s.worked} times, and {resends} resends are on record (I-61)")
    if not s.config.may_resend and s.worked > 1 + s.denied:
        raise Violation("a double although whenAmbiguous is Fail (I-61)")


def in_time(s: State) -> None:
    """It is over by its deadline and a patience, and gone when its time to live is over (I-66, I-68, I-69)."""
    if not s.there:
        return
    excused = s.lapses * 1.5
    if not s.over:
        latest = max(s.config.deadline, s.begun) + EXPIRY_PATIENCE.total_seconds()
        if s.cancelled_at is not None:
            latest = min(latest, s.cancelled_at + CANCEL_PATIENCE.total_seconds())
        if s.now > latest + excused:
            raise Violation("it is not over although its deadline, or the patience with its cancel, is")
    elif s.now > seconds(s.status["finishTime"]) + s.config.ttl + 1 + excused:
        raise Violation("it is still there although its time to live is over (I-69)")


def passed(s: State, wake_in: timedelta | None) -> None:
    """A pass has ended without an error."""
    if s.there and wake_in is None and s.wake_at is None:
        raise Violation(f"it is {s.phase}, and nothing will look at it again (I-68)")


def wrote(s: State, before: State) -> None:
    """A status was written."""
    status, was = s.status, before.status
    if was.get("phase") in TERMINAL:
        if set(_changed(was, status)) <= {"observedGeneration"}:
            return  # an edit that came too late was seen
        raise Violation(f"the status of one that is {was['phase']} is changed: {_changed(was, status)}")
    if ("result" in status) != (s.phase == "Completed"):
        raise Violation("terminal phase and result are not in one update (I-65)")
    if ("finishTime" in status) != (s.phase in TERMINAL):
        raise Violation("finishTime does not go with the terminal phase")
    if any(was.get(count, 0) > status.get(count, 0) for count in ("attemptCount", "resends", "failedDeliveries")):
        raise Violation("a count went back")
    if s.phase in TERMINAL:
        _ended(s)


def _changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {key: after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _ended(s: State) -> None:
    reason = next(c["reason"] for c in s.status["conditions"] if c["type"] == "Finished")
    if not _is_true(s, reason):
        raise Violation(f"it ends as {s.phase} with reason {reason}, which is not true")
    if s.config.long and s.phase == "Completed" and not s.kept:
        raise Violation("the phase is Completed before the answer is kept (I-65)")
    if reason in ("Cancelled", "DeadlineExceeded", "SourceGone"):
        _gave_up(s)


def _is_true(s: State, reason: str) -> bool:
    if reason in _TOLD:
        return _TOLD[reason] in s.told or (reason == "TaskFailed" and "cancelled, unheard" in s.told)
    return {
        "AttemptsExhausted": s.config.max_attempts is not None,
        "DeliveryAmbiguous": not s.config.may_resend and (not s.config.lists or "ask" in s.config.faults),
        "DeadlineExceeded": s.now >= s.config.deadline,
        "Cancelled": s.desired == "Stopped" or s.deleted or "cancelled" in s.told,
        "SourceGone": not s.sender,
        "TargetGone": s.target == "gone" or s.made > 1,
        "NotPermitted": not s.related or not s.config.related,
    }.get(reason, False)


def _gave_up(s: State) -> None:
    """What became of the task at the agent is on record (I-71)."""
    task_id, cancellation = s.known_task(), s.status.get("cancellation")
    if cancellation is None:
        if task_id is not None and not TaskState(s.status["task"]["state"]).over:
            raise Violation("it is given up, and what became of its task is not on record (I-71)")
        return
    task = s.task(task_id) if task_id is not None else None
    working = task is not None and not task.state.over
    outcome = cancellation["outcome"]
    if outcome in ("Confirmed", "Finished") and working:
        raise Violation(f"the cancellation is {outcome}, and the agent works on (I-71)")
    if outcome == "Refused" and "not cancelled" not in s.told:
        raise Violation("the agent is said to have refused a cancel (I-71)")


def claimed(s: State, before: State) -> None:
    """The finalizer was put on or taken off (I-64)."""
    if before.claimed and not s.claimed and not s.over:
        raise Violation("the claim goes before the delegation is over (I-64)")
    if s.claimed and not before.claimed and (s.deleted or s.over):
        raise Violation("it is claimed although it ends")


def deletes(s: State) -> None:
    """The operator deletes the object."""
    if not s.over or s.claimed:
        raise Violation("it is deleted although it is not over")
    if s.now < seconds(s.status["finishTime"]) + s.config.ttl:
        raise Violation("it is deleted before its time to live is over (I-69)")
