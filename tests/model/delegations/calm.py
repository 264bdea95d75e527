"""A world in which nothing goes wrong any more, and how a delegation must end in it."""

from __future__ import annotations

from dataclasses import replace

from tests.model.backend import Violation
from tests.model.delegations.world import State, seconds, since_epoch

from workspace_operator.a2a.values import TaskState
from workspace_operator.lifecycle.delegation.plan import CANCEL_PATIENCE, EXPIRY_PATIENCE

SOON = 4.0  # seconds within which what is possible is done, a task that is found lost included


def calm(s: State) -> State:
    """Fate and user have spent their budgets; the target serves; a task that is worked on gets done."""
    after = s.copy()
    after.faults = after.edits = 0
    if s.target != "serves":
        if s.target == "gone":
            after.made, after.elsewhere = s.made + 1, s.worked
        after.target, after.wake_at = "serves", s.now
    if s.occupied or s.desired == "Paused":
        after.occupied, after.desired, after.wake_at = False, "Stopped" if s.desired == "Stopped" else "Running", s.now
    if not s.ends_early:
        for task in s.alive:
            after.put(replace(task, state=TaskState.COMPLETED))
            after.told |= {"completed"}
    return after


def rests_until(s: State) -> float:
    """When the agent may be talked to again."""
    times = [s.now]
    if "retryAfter" in s.status:
        times.append(seconds(s.status["retryAfter"]))
    if s.talk is not None and s.talk.not_before is not None:
        times.append(since_epoch(s.talk.not_before))
    return max(times)


def expect(s: State, start: State) -> None:
    """It has just ended, after it was calm from ``start`` on: as well as it could."""
    if not s.over or start.over:
        return
    reason = next(c["reason"] for c in s.status["conditions"] if c["type"] == "Finished")
    soonest = rests_until(start) + SOON
    if reason == "DeadlineExceeded" and soonest < s.config.deadline and not start.ends_early:
        raise Violation("it could have been delivered before its deadline, and was not (I-60)")
    if reason in ("Cancelled", "DeadlineExceeded", "SourceGone") and soonest < _patience_ends(start):
        outcome = (s.status.get("cancellation") or {}).get("outcome")
        findable = s.config.lists or s.known_task() is not None
        if s.alive and outcome == "Unanswered" and findable:
            raise Violation("a task that could have been cancelled goes on at the agent (I-71)")


def _patience_ends(s: State) -> float:
    """Until when the operator waits for what becomes of a cancel."""
    talk, deadline = s.talk, float(s.config.deadline)
    began = since_epoch(talk.cancel_since) if talk is not None and talk.cancel_since is not None else s.now
    return min(began + CANCEL_PATIENCE.total_seconds(), max(began, deadline) + EXPIRY_PATIENCE.total_seconds())
