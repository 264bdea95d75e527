"""The values that a delegation's plan decides on: the wish, what is known of the task, and what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from workspace_operator.api.delegation import CancellationStatus, DelegationStatus
from workspace_operator.errors import Failure


class Goal(StrEnum):
    """What is to become of it now."""

    DELIVER = "Deliver"  # and follow to its end
    HOLD = "Hold"  # do not send; what was sent goes on
    CANCEL = "Cancel"  # the user's wish, or the object is being deleted, or its sender is gone
    EXPIRE = "Expire"  # the deadline is over
    CLOSE = "Close"  # a terminal phase is on record


class Sight(StrEnum):
    """What is known of the task at the agent."""

    UNSENT = "Unsent"  # never claimed, so never sent
    UNDELIVERED = "Undelivered"  # claimed, and the agent provably has not got it
    SENDING = "Sending"
    UNSURE = "Unsure"  # it may have arrived: an answer was lost, or the operator restarted
    REFUSED = "Refused"  # the agent does not accept it, now or later
    WORKING = "Working"
    ASKING = "Asking"  # it needs input
    SILENT = "Silent"  # the task is known, and the agent has not been heard of it yet, or any more
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"
    UNUSABLE = "Unusable"  # it is over, and its answer cannot be used


@dataclass(frozen=True)
class Wish:
    """What is asked, and what stands in the way."""

    goal: Goal
    generation: int
    message_id: str
    created: datetime
    deadline: datetime
    stuck_after: timedelta
    ttl: timedelta
    target: str  # how the target is called in sentences
    max_attempts: int | None = None
    may_resend: bool = True  # when nobody knows whether it arrived
    claimed: bool = False  # the message may have been sent
    permitted: bool = False
    denied: Failure | None = None  # it may not be delivered, and that is final
    hindrance: Failure | None = None  # it cannot be delivered now
    gone: Failure | None = None  # the workspace that has the task does not exist any more
    turn: bool = False  # a place at the target is free for it
    cancelled: Failure | None = None  # why it is cancelled, when it is not the user's wish
    cancel_by: datetime | None = None  # how long a cancel waits for the agent's answer


@dataclass(frozen=True)
class Seen:
    """One look at the task."""

    sight: Sight
    problem: Failure | None = None
    under_way: bool = False  # the agent is being talked to about it
    cannot_ask: bool = False  # the agent does not tell which tasks it has
    heartbeat: datetime | None = None
    not_before: datetime | None = None  # the agent is not talked to again before this
    cancellation: CancellationStatus | None = None


@dataclass(frozen=True)
class Situation:
    """All that a decision depends on."""

    wish: Wish
    record: DelegationStatus
    seen: Seen
    now: datetime
