"""Small builders for delegations, so that a test says only what it is about."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.unit.kit import NOW, at

from workspace_operator.api.delegation import AttemptStatus, DelegationStatus, TaskStatus
from workspace_operator.api.reasons import Reason
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle.delegation.facts import Goal, Seen, Sight, Situation, Wish

HOUR = timedelta(hours=1)
TASK = TaskStatus(id="t1", context_id="c", state="Working", target_uid="b-1")
BUSY = Failure(FailureClass.BACKEND, Reason.TARGET_BUSY, "The agent is busy.")
UNREACHED = Failure(FailureClass.BACKEND, Reason.DELIVERY_FAILED, "The agent does not accept connections.")
LOST = Failure(FailureClass.BACKEND, Reason.TASK_LOST, "The agent no longer knows the task.")
REFUSED = Failure(FailureClass.BAD_REQUEST, Reason.DELIVERY_REFUSED, "The agent does not take it.")
PAUSED = Failure(FailureClass.BACKEND, Reason.TARGET_PAUSED, "The target is paused.")
DENIED = Failure(FailureClass.BAD_REQUEST, Reason.NOT_PERMITTED, "Workspace 'a' may not delegate to 'b'.")
GONE = Failure(FailureClass.BACKEND, Reason.TARGET_GONE, "The workspace that had the task was deleted.")
ORPHANED = Failure(FailureClass.BACKEND, Reason.SOURCE_GONE, "The workspace that delegated was deleted.")


def wish(goal: Goal = Goal.DELIVER, **more: Any) -> Wish:
    """Created ten minutes ago, due in an hour; permitted, claimed, and its turn."""
    values: dict[str, Any] = {
        "generation": 1,
        "message_id": "dlg-u",
        "created": NOW - timedelta(minutes=10),
        "deadline": NOW + HOUR,
        "stuck_after": timedelta(minutes=20),
        "ttl": HOUR,
        "target": "Workspace 'b'",
        "permitted": True,
        "claimed": True,
        "turn": True,
    }
    return Wish(goal=goal, **{**values, **more})


def record(**more: Any) -> DelegationStatus:
    return DelegationStatus(**more)


def attempt(number: int = 1, failure: Failure = UNREACHED) -> AttemptStatus:
    return AttemptStatus(number=number, time=at(-60), reason=failure.reason, message=failure.message)


def situation(
    sight: Sight = Sight.WORKING, wished: Wish | None = None, recorded: DelegationStatus | None = None, **seen: Any
) -> Situation:
    return Situation(wished or wish(), recorded or record(), Seen(sight, **seen), NOW)
