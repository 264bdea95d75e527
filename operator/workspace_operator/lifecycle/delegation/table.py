"""A delegation's transitions: for each goal and sight, in order, which step follows and what is reported meanwhile.

The one place that says how a delegation moves; read by the plan, the README's diagram and the exhaustive check in
``tests/model``. The first row whose guard holds is taken; the last row of each goal and sight has the guard ALWAYS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import DelegationPhase
from workspace_operator.lifecycle.delegation.facts import Goal, Sight


class Step(StrEnum):
    """What a pass does next. SEND, ASK, FOLLOW and CANCEL begin an errand to the agent, which wakes a later pass."""

    WAIT = "wait"
    CLAIM = "claim"  # put it on the object that the message may be sent from now on
    SEND = "send"
    ASK = "ask"  # whether the agent has the message
    FOLLOW = "follow"
    CANCEL = "cancel"
    FINISH = "finish"  # write the terminal phase and the result, in one update
    UNCLAIM = "unclaim"  # let the finalizer go
    DELETE = "delete"  # the time to live is over


class Guard(StrEnum):
    """Named conditions on the situation; :mod:`plan` evaluates them."""

    ALWAYS = "always"
    DENIED = "not permitted"
    SPENT = "attempts spent"
    HINDERED = "hindered"  # the target cannot be talked to now
    RESTING = "resting"  # the agent is not talked to again yet
    NO_TURN = "not its turn"
    UNDER_WAY = "talk under way"
    GONE = "target gone"
    CANNOT_ASK = "agent cannot be asked"
    LOST_FOR_GOOD = "agent lost the task, and a double is not wanted"
    AT_MOST_ONCE = "agent cannot be asked, and a double is not wanted"
    CANCEL_OVER = "cancel answered, or waited for long enough"
    CLAIMED = "claimed"
    TTL_OVER = "time to live over"


@dataclass(frozen=True)
class Row:
    """One transition. ``reason`` None: the reason comes from what denied, hindered or failed."""

    goal: Goal
    sight: Sight
    guard: Guard
    step: Step
    phase: DelegationPhase | None  # None: the one on record stays
    reason: Reason | None


_S, _G, _P, _R = Sight, Guard, DelegationPhase, Reason
_Entry = tuple[tuple[Sight, ...], Guard, Step, DelegationPhase | None, Reason | None]

_NOT_SENT = (_S.UNSENT, _S.UNDELIVERED)
_KNOWN = (_S.WORKING, _S.ASKING, _S.SILENT)  # the agent has it
_PHASE_OF = {_S.WORKING: _P.WORKING, _S.ASKING: _P.INPUT_REQUIRED, _S.SILENT: _P.WORKING}
_REASON_OF = {_S.WORKING: _R.WORKING, _S.ASKING: _R.INPUT_REQUIRED, _S.SILENT: _R.ACKNOWLEDGED}


def _rows(goal: Goal, *entries: _Entry) -> tuple[Row, ...]:
    return tuple(
        Row(goal, sight, guard, step, phase, reason)
        for sights, guard, step, phase, reason in entries
        for sight in sights
    )


_FOLLOWING: tuple[_Entry, ...] = (
    (_KNOWN, _G.GONE, Step.FINISH, _P.FAILED, None),
    *(
        ((sight,), guard, Step.WAIT, _PHASE_OF[sight], _REASON_OF[sight])
        for guard in (_G.UNDER_WAY, _G.RESTING)
        for sight in _KNOWN
    ),
    *(((sight,), _G.HINDERED, Step.WAIT, _PHASE_OF[sight], None) for sight in _KNOWN),
    *(((sight,), _G.ALWAYS, Step.FOLLOW, _PHASE_OF[sight], _REASON_OF[sight]) for sight in _KNOWN),
    ((_S.SUCCEEDED,), _G.ALWAYS, Step.FINISH, _P.COMPLETED, _R.COMPLETED),
    ((_S.CANCELED,), _G.CANCEL_OVER, Step.FINISH, _P.CANCELLED, _R.CANCELLED),  # the wish was taken back too late
    ((_S.FAILED, _S.CANCELED), _G.ALWAYS, Step.FINISH, _P.FAILED, _R.TASK_FAILED),
    ((_S.REFUSED, _S.UNUSABLE), _G.ALWAYS, Step.FINISH, _P.FAILED, None),
)

_SENDING: tuple[_Entry, ...] = (
    ((_S.SENDING,), _G.ALWAYS, Step.WAIT, _P.DISPATCHED, _R.SENDING),
    ((_S.UNSURE,), _G.UNDER_WAY, Step.WAIT, _P.DISPATCHED, _R.DELIVERY_UNKNOWN),
    ((_S.UNSURE,), _G.RESTING, Step.WAIT, _P.DISPATCHED, _R.DELIVERY_UNKNOWN),
    ((_S.UNSURE,), _G.HINDERED, Step.WAIT, _P.DISPATCHED, None),
)

_DELIVER = _rows(
    Goal.DELIVER,
    (_NOT_SENT, _G.DENIED, Step.FINISH, _P.FAILED, None),
    (_NOT_SENT, _G.SPENT, Step.FINISH, _P.FAILED, _R.ATTEMPTS_EXHAUSTED),
    ((_S.UNDELIVERED,), _G.LOST_FOR_GOOD, Step.FINISH, _P.FAILED, _R.TASK_LOST),
    (_NOT_SENT, _G.HINDERED, Step.WAIT, _P.QUEUED, None),
    (_NOT_SENT, _G.RESTING, Step.WAIT, _P.QUEUED, None),
    (_NOT_SENT, _G.NO_TURN, Step.WAIT, _P.QUEUED, _R.TARGET_BUSY),
    ((_S.UNSENT,), _G.ALWAYS, Step.CLAIM, _P.QUEUED, _R.SENDING),
    ((_S.UNDELIVERED,), _G.ALWAYS, Step.SEND, _P.DISPATCHED, _R.SENDING),
    *_FOLLOWING,
    *_SENDING,
    ((_S.UNSURE,), _G.AT_MOST_ONCE, Step.FINISH, _P.FAILED, _R.DELIVERY_AMBIGUOUS),
    ((_S.UNSURE,), _G.CANNOT_ASK, Step.SEND, _P.DISPATCHED, _R.SENDING),
    ((_S.UNSURE,), _G.ALWAYS, Step.ASK, _P.DISPATCHED, _R.DELIVERY_UNKNOWN),
)

_HOLD = _rows(
    Goal.HOLD,
    (_NOT_SENT, _G.DENIED, Step.FINISH, _P.FAILED, None),
    (_NOT_SENT, _G.ALWAYS, Step.WAIT, _P.QUEUED, _R.HELD),
    *_FOLLOWING,
    *_SENDING,
    ((_S.UNSURE,), _G.CANNOT_ASK, Step.WAIT, _P.DISPATCHED, _R.DELIVERY_UNKNOWN),
    ((_S.UNSURE,), _G.ALWAYS, Step.ASK, _P.DISPATCHED, _R.DELIVERY_UNKNOWN),
)


def _ending(goal: Goal, phase: DelegationPhase, reason: Reason) -> tuple[Row, ...]:
    """Cancel and expire differ in what is reported at the end only."""
    told = (_S.UNSURE, *_KNOWN)
    return _rows(
        goal,
        (_NOT_SENT, _G.ALWAYS, Step.FINISH, phase, reason),
        ((_S.SUCCEEDED,), _G.ALWAYS, Step.FINISH, _P.COMPLETED, _R.COMPLETED),
        ((_S.FAILED,), _G.ALWAYS, Step.FINISH, _P.FAILED, _R.TASK_FAILED),
        ((_S.UNUSABLE,), _G.ALWAYS, Step.FINISH, _P.FAILED, None),
        ((_S.CANCELED, _S.REFUSED), _G.ALWAYS, Step.FINISH, phase, reason),
        (_KNOWN, _G.GONE, Step.FINISH, phase, reason),
        ((_S.SENDING, *told), _G.CANCEL_OVER, Step.FINISH, phase, reason),
        ((_S.SENDING,), _G.ALWAYS, Step.WAIT, None, _R.CANCELLING),
        (told, _G.UNDER_WAY, Step.WAIT, None, _R.CANCELLING),
        (told, _G.RESTING, Step.WAIT, None, _R.CANCELLING),
        (told, _G.HINDERED, Step.WAIT, None, _R.CANCELLING),
        ((_S.UNSURE,), _G.CANNOT_ASK, Step.FINISH, phase, reason),
        ((_S.UNSURE,), _G.ALWAYS, Step.ASK, None, _R.CANCELLING),
        (_KNOWN, _G.ALWAYS, Step.CANCEL, None, _R.CANCELLING),
    )


_CLOSE = _rows(
    Goal.CLOSE,
    (tuple(Sight), _G.CLAIMED, Step.UNCLAIM, None, None),
    (tuple(Sight), _G.TTL_OVER, Step.DELETE, None, None),
    (tuple(Sight), _G.ALWAYS, Step.WAIT, None, None),
)

TABLE: Final[tuple[Row, ...]] = (
    _DELIVER
    + _HOLD
    + _ending(Goal.CANCEL, _P.CANCELLED, _R.CANCELLED)
    + _ending(Goal.EXPIRE, _P.FAILED, _R.DEADLINE_EXCEEDED)
    + _CLOSE
)

#: Steps that begin to talk to the agent.
ERRANDS: Final = frozenset({Step.SEND, Step.ASK, Step.FOLLOW, Step.CANCEL})
