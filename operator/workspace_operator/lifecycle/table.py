"""The transition table: for each goal and sight, in order, which step follows and what is reported meanwhile.

This is the one place that says how a workspace moves. The plan reads it, the README's diagram is drawn from it
(:mod:`diagram`), and ``tests/model`` explores it exhaustively. The first row whose guard holds is taken; the last row
of each goal and sight has the guard ALWAYS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Phase
from workspace_operator.lifecycle.facts import Goal, Sight


class Step(StrEnum):
    """What a pass does next. Only PROVISION, STOP, RELEASE and RESTART are verbs towards the backend."""

    WAIT = "wait"  # nothing to do; the goal is reached, or something else must happen first
    INTEND = "intend"  # record the decision to start before anything is created
    PROVISION = "provision"  # verb: make the recorded incarnation run
    STOP = "stop"  # verb: halt in place, or freeze
    RELEASE = "release"  # verb: stop with release
    RESTART = "restart"  # verb: replace older incarnations by the recorded one
    IDLE = "idle"  # record the pause of what has nothing to do
    FAIL = "fail"  # record a failure with its back-off
    REVOKE = "revoke"  # delete the Secret that keeps the token valid
    RENEW = "renew"  # deliver a fresh token to the running instance
    DELETE_DATA = "delete data"  # remove the data volume
    FINISH = "finish"  # let the finalizer go


class Guard(StrEnum):
    """Named conditions on the situation; :mod:`plan` evaluates them."""

    ALWAYS = "always"
    BLOCKED = "blocked"  # something must exist or be fixed before a start
    BACKING_OFF = "backing off"  # the last attempt failed a short while ago
    GIVEN_UP = "given up"  # the start is over and the next one has to wait; one that may still succeed is adopted
    UNDECIDED = "start undecided"  # no recorded intent that fits the wish
    RESTART_WANTED = "restart wanted"  # a new restart token, or a changed template with updatePolicy Automatic
    OVERDUE = "start overdue"  # the provision timeout is over and the agent never answered
    UNSERVED = "not yet serving"  # the agent has not answered since this start
    ENDED = "ended by itself"  # it ran since this start was decided, and no longer does
    LOST = "vanished"  # it ran since this start was decided, and is gone
    RENEWAL_DUE = "token renewal due"
    IDLE = "idle"  # no task for as long as spec.idle says
    FREEZE_WANTED = "freeze wanted"  # the class pauses by freezing
    NOT_KEPT = "nothing halted is kept"  # e.g. a pod that was created and never started
    ENDING = "ending in grace"  # told to stop, and its grace period is not over
    CREDENTIALS_VALID = "token still valid"
    DATA_UNREACHABLE = "data out of reach"  # data must be deleted and there is no backend to ask
    DATA_DOOMED = "data to be deleted"


@dataclass(frozen=True)
class Row:
    """One transition. ``reason`` None: the reason comes from the blocker, the failure or the observation."""

    goal: Goal
    sight: Sight
    guard: Guard
    step: Step
    phase: Phase
    reason: Reason | None
    reached: bool = False  # the goal is reached: Ready is True


def _rows(goal: Goal, *entries: tuple[tuple[Sight, ...], Guard, Step, Phase, Reason | None]) -> tuple[Row, ...]:
    reached = (Phase.RUNNING, Phase.PAUSED, Phase.STOPPED)
    return tuple(
        Row(goal, sight, guard, step, phase, reason, reached=step is Step.WAIT and phase in reached)
        for sights, guard, step, phase, reason in entries
        for sight in sights
    )


_S, _G, _P, _R = Sight, Guard, Phase, Reason

_RUNNING = _rows(
    Goal.RUNNING,
    ((_S.UNKNOWN,), _G.ALWAYS, Step.WAIT, _P.UNKNOWN, None),
    ((_S.OUTDATED,), _G.BACKING_OFF, Step.WAIT, _P.FAILED, None),
    ((_S.OUTDATED,), _G.ENDING, Step.WAIT, _P.RESTARTING, _R.RESTARTING),
    ((_S.OUTDATED,), _G.ALWAYS, Step.RESTART, _P.RESTARTING, _R.RESTARTING),
    ((_S.ABSENT,), _G.LOST, Step.FAIL, _P.FAILED, _R.INSTANCE_LOST),
    ((_S.HALTED,), _G.ENDED, Step.FAIL, _P.FAILED, _R.INSTANCE_EXITED),
    ((_S.ABSENT, _S.HALTED, _S.FROZEN), _G.BLOCKED, Step.WAIT, _P.PENDING, None),
    ((_S.ABSENT, _S.HALTED, _S.FROZEN), _G.BACKING_OFF, Step.WAIT, _P.FAILED, None),
    ((_S.ABSENT, _S.HALTED, _S.FROZEN), _G.UNDECIDED, Step.INTEND, _P.STARTING, _R.PROVISIONING),
    ((_S.ABSENT, _S.HALTED, _S.FROZEN), _G.ALWAYS, Step.PROVISION, _P.STARTING, _R.PROVISIONING),
    ((_S.FAILED,), _G.BACKING_OFF, Step.RELEASE, _P.FAILED, None),
    ((_S.FAILED,), _G.ALWAYS, Step.FAIL, _P.FAILED, _R.INSTANCE_FAILED),
    ((_S.STARTING, _S.RUNNING), _G.RESTART_WANTED, Step.INTEND, _P.RESTARTING, _R.RESTARTING),
    ((_S.STARTING, _S.RUNNING), _G.OVERDUE, Step.FAIL, _P.FAILED, _R.PROVISION_TIMEOUT),
    ((_S.STARTING, _S.RUNNING), _G.GIVEN_UP, Step.RELEASE, _P.FAILED, None),
    ((_S.STARTING,), _G.ALWAYS, Step.WAIT, _P.STARTING, _R.PROVISIONING),
    ((_S.RUNNING,), _G.UNDECIDED, Step.INTEND, _P.STARTING, _R.WAITING_FOR_AGENT),
    ((_S.RUNNING,), _G.RENEWAL_DUE, Step.RENEW, _P.RUNNING, _R.RUNNING),
    ((_S.RUNNING,), _G.UNSERVED, Step.WAIT, _P.STARTING, _R.WAITING_FOR_AGENT),
    ((_S.RUNNING,), _G.IDLE, Step.IDLE, _P.RUNNING, _R.RUNNING),
    ((_S.RUNNING,), _G.ALWAYS, Step.WAIT, _P.RUNNING, _R.RUNNING),
    ((_S.HALTING,), _G.ENDING, Step.WAIT, _P.STARTING, _R.PAUSING),
    ((_S.HALTING,), _G.ALWAYS, Step.STOP, _P.STARTING, _R.PAUSING),
)

_PAUSED = _rows(
    Goal.PAUSED,
    ((_S.UNKNOWN,), _G.ALWAYS, Step.WAIT, _P.UNKNOWN, None),
    ((_S.OUTDATED, _S.HALTING), _G.ENDING, Step.WAIT, _P.PAUSING, _R.PAUSING),
    ((_S.OUTDATED,), _G.ALWAYS, Step.RELEASE, _P.PAUSING, _R.PAUSING),
    ((_S.STARTING, _S.RUNNING, _S.HALTING), _G.ALWAYS, Step.STOP, _P.PAUSING, _R.PAUSING),
    ((_S.FROZEN,), _G.FREEZE_WANTED, Step.WAIT, _P.PAUSED, _R.FROZEN),
    ((_S.FROZEN,), _G.ALWAYS, Step.STOP, _P.PAUSING, _R.PAUSING),
    ((_S.FAILED,), _G.ALWAYS, Step.RELEASE, _P.PAUSING, _R.PAUSING),  # it can never run again
    ((_S.HALTED,), _G.NOT_KEPT, Step.RELEASE, _P.PAUSING, _R.PAUSING),
    ((_S.ABSENT, _S.HALTED), _G.CREDENTIALS_VALID, Step.REVOKE, _P.PAUSING, _R.PAUSING),
    ((_S.ABSENT, _S.HALTED), _G.ALWAYS, Step.WAIT, _P.PAUSED, _R.PAUSED),
)

_LEFT = (_S.OUTDATED, _S.STARTING, _S.HALTING, _S.RUNNING, _S.FROZEN, _S.HALTED, _S.FAILED)

_STOPPED = _rows(
    Goal.STOPPED,
    ((_S.UNKNOWN,), _G.ALWAYS, Step.WAIT, _P.UNKNOWN, None),
    ((_S.OUTDATED, _S.HALTING), _G.ENDING, Step.WAIT, _P.STOPPING, _R.STOPPING),
    (_LEFT, _G.ALWAYS, Step.RELEASE, _P.STOPPING, _R.STOPPING),
    ((_S.ABSENT,), _G.CREDENTIALS_VALID, Step.REVOKE, _P.STOPPING, _R.STOPPING),
    ((_S.ABSENT,), _G.ALWAYS, Step.WAIT, _P.STOPPED, _R.STOPPED),
)

_DELETED = _rows(
    Goal.DELETED,
    ((_S.UNKNOWN,), _G.ALWAYS, Step.WAIT, _P.DELETING, None),
    ((_S.OUTDATED, _S.HALTING), _G.ENDING, Step.WAIT, _P.DELETING, _R.RELEASING),
    (_LEFT, _G.ALWAYS, Step.RELEASE, _P.DELETING, _R.RELEASING),
    ((_S.ABSENT,), _G.CREDENTIALS_VALID, Step.REVOKE, _P.DELETING, _R.RELEASING),
    ((_S.ABSENT,), _G.DATA_UNREACHABLE, Step.WAIT, _P.DELETING, None),
    ((_S.ABSENT,), _G.DATA_DOOMED, Step.DELETE_DATA, _P.DELETING, _R.DELETING_DATA),
    ((_S.ABSENT,), _G.ALWAYS, Step.FINISH, _P.DELETING, _R.DELETED),
)

TABLE: Final[tuple[Row, ...]] = _RUNNING + _PAUSED + _STOPPED + _DELETED

#: Steps that talk to the backend; a pass makes at most one of them.
VERBS: Final = frozenset({Step.PROVISION, Step.STOP, Step.RELEASE, Step.RESTART, Step.RENEW, Step.DELETE_DATA})
