"""Pausing what has nothing to do, and waking it: lowered and raised in status alone, the wish stays the user's (I-30).

Counted from the last task, never from signs of life. Not knowing is not idleness: where an agent was to tell of its
tasks and has not, it is left running (I-22).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from workspace_operator.api.states import DesiredState, EffectiveReason
from workspace_operator.api.workspace import IdleStatus, WorkspaceStatus
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.facts import Goal, Seen, Wish

EXACTNESS = 1 / 4  # of pauseAfter: so far the recorded time of the last task may lag behind, to save writes


@dataclass(frozen=True)
class Work:
    """What is known of an agent's tasks at one moment."""

    active: bool | None = None  # whether it has one; None: nobody knows
    last: datetime | None = None  # when one was last known, as far as this process remembers
    watched_since: datetime | None = None  # those that the agent had before may have come and gone unseen
    not_before: datetime | None = None  # nothing is decided before: what had to be asked did not answer


UNKNOWN = Work()

# -- asleep or awake ---------------------------------------------------------------------------------------------------


def lowered(wish: Wish, record: WorkspaceStatus, *, wanted: bool) -> Wish:
    """The wish of a workspace that was paused for being idle, unless something wakes it; any other wish as it is.

    ``wanted``: a delegation is under way to it, or waits and may wake it.
    """
    if wish.goal is not Goal.RUNNING or wish.pause_after is None or not is_paused(record):
        return wish
    return wish if wanted or _restart_asked(wish, record) else asleep(wish)


def asleep(wish: Wish) -> Wish:
    """Paused for being idle."""
    return _as(wish, Goal.PAUSED, DesiredState.PAUSED, EffectiveReason.IDLE_TIMEOUT)


def awake(wish: Wish) -> Wish:
    """What :func:`asleep` was made from."""
    return _as(wish, Goal.RUNNING, DesiredState.RUNNING, EffectiveReason.USER)


def is_asleep(wish: Wish) -> bool:
    """Whether the effective state was lowered for being idle."""
    return wish.effective_reason is EffectiveReason.IDLE_TIMEOUT


def is_paused(record: WorkspaceStatus) -> bool:
    """Whether an idle pause is on record."""
    return record.idle is not None and record.idle.paused_time is not None


def _as(wish: Wish, goal: Goal, state: DesiredState, reason: EffectiveReason) -> Wish:
    return replace(wish, goal=goal, effective_state=state, effective_reason=reason)


def _restart_asked(wish: Wish, record: WorkspaceStatus) -> bool:
    return wish.restart_token is not None and wish.restart_token != record.restart_token


# -- the decision ------------------------------------------------------------------------------------------------------


def is_idle(wish: Wish, record: WorkspaceStatus, seen: Seen, work: Work, now: datetime) -> bool:
    """Whether the time has come. What could not be woken at once is not paused, nor what has not served yet."""
    if wish.blocked is not None or _restart_asked(wish, record):
        return False
    if record.instance is None or not record.instance.served or not seen.serving.answers:
        return False
    at = due(wish, record, work)
    return at is not None and now >= at


def due(wish: Wish, record: WorkspaceStatus, work: Work) -> datetime | None:
    """When the time will have come if no task does; None while there is one, and while nobody knows."""
    if wish.pause_after is None or record.idle is None or work.active is not False:
        return None
    idle_since = _latest(moments.parse(record.idle.last_task_time), work.last, work.watched_since)
    return _latest(idle_since + wish.pause_after, work.not_before)


def next_look(wish: Wish, record: WorkspaceStatus, work: Work, now: datetime) -> datetime | None:
    """When a running workspace is to be looked at again for this: at the time due, or to record that it is at work.

    None when the time has come and something else stands against it, whose end wakes a pass by itself.
    """
    if wish.pause_after is None:
        return None
    at = now + wish.pause_after * EXACTNESS if work.active else due(wish, record, work)
    return at if at is not None and at > now else None


# -- the record --------------------------------------------------------------------------------------------------------


def paused(record: WorkspaceStatus, work: Work, now: datetime) -> WorkspaceStatus:
    """The record of an idle pause."""
    last = _latest(moments.parse(record.idle.last_task_time) if record.idle is not None else now, work.last)
    idle = IdleStatus(last_task_time=moments.text(last), paused_time=moments.text(now))
    return record.model_copy(update={"idle": idle})


def status(wish: Wish, record: WorkspaceStatus, work: Work, now: datetime, *, starts: bool) -> IdleStatus | None:
    """What is to be shown. ``starts``: the agent answers for the first time since its start, and time counts anew.

    The last task's time moves in steps, so that tasks do not cost a write each.
    """
    known = record.idle
    if wish.pause_after is None:
        return None
    if is_asleep(wish):
        return known
    if wish.goal is Goal.RUNNING and (known is None or starts):
        return IdleStatus(last_task_time=moments.text(now))
    if known is None:
        return None
    last = now if work.active else work.last
    if last is None or last - moments.parse(known.last_task_time) < wish.pause_after * EXACTNESS:
        return known.model_copy(update={"paused_time": None})
    return IdleStatus(last_task_time=moments.text(last))


def _latest(moment: datetime, *others: datetime | None) -> datetime:
    return max([moment, *(other for other in others if other is not None)])


def sentence(record: WorkspaceStatus) -> str:
    """Why it is paused although Running is wished for, and what wakes it."""
    since = f"It had no task since {record.idle.last_task_time}" if record.idle is not None else "It had no task"
    return f"{since} and is paused until a delegation or a new spec.restartToken wakes it, or spec.idle is removed."
