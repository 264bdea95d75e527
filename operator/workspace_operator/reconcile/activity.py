"""What delegations ask of a workspace: whether it is busy for them, and whether one waits that may wake it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from workspace_operator.api.delegation import Delegation
from workspace_operator.api.meta import CLAIM_FINALIZER
from workspace_operator.api.states import TERMINAL, ConditionType, DelegationPhase, DesiredState
from workspace_operator.lifecycle import moments


@dataclass(frozen=True)
class Activity:
    """Of one workspace, as the target of delegations."""

    in_flight: int = 0  # sent, or about to be sent, and not over
    wakers: int = 0  # permitted, waiting, and allowed to wake it
    last: datetime | None = None  # when the newest one finished


NOTHING = Activity()


def is_in_flight(delegation: Delegation) -> bool:
    """Its message may have been sent, and it is not over."""
    return delegation.status.phase not in TERMINAL and CLAIM_FINALIZER in delegation.metadata.finalizers


def wakes(delegation: Delegation) -> bool:
    """It waits for its target and may wake it. One that was never accepted may not (I-22 works both ways)."""
    accepted = any(c.type == ConditionType.ACCEPTED and c.status == "True" for c in delegation.status.conditions)
    return (
        accepted
        and delegation.spec.wake
        and delegation.spec.desired_state is DesiredState.RUNNING
        and delegation.status.phase is DelegationPhase.QUEUED
        and delegation.metadata.deletion_timestamp is None
    )


def activity_of(delegations: Iterable[Delegation]) -> Activity:
    """Add up the delegations to one workspace."""
    in_flight, waking, last = 0, 0, None
    for delegation in delegations:
        in_flight += is_in_flight(delegation)
        waking += wakes(delegation)
        finished = delegation.status.finish_time
        if finished is not None and delegation.status.start_time is not None:
            moment = moments.parse(finished)
            last = moment if last is None else max(last, moment)
    return Activity(in_flight, waking, last)
