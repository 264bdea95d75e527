"""What comes next for a delegation, in what words, and when it is looked at again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.delegation_kit import (
    BUSY,
    DENIED,
    GONE,
    LOST,
    ORPHANED,
    PAUSED,
    TASK,
    UNREACHED,
    attempt,
    record,
    situation,
    wish,
)
from tests.unit.kit import NOW, at

from workspace_operator.api.delegation import CancellationStatus
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import CancelOutcome, DelegationPhase
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle.delegation.facts import Goal, Sight, Situation
from workspace_operator.lifecycle.delegation.plan import RECHECK, SOON, cancel_by, plan
from workspace_operator.lifecycle.delegation.table import Step

_PHASE = DelegationPhase
CANCELLED = CancellationStatus(time=at(-1), outcome=CancelOutcome.CONFIRMED)
RESTING = record(retry_after=at(9), attempts=(attempt(),))
SPENT = record(failed_deliveries=2, attempts=(attempt(2),))
FORGOTTEN = record(attempts=(attempt(failure=LOST),))
SAYS = Failure(FailureClass.BACKEND, Reason.TASK_FAILED, "no disk left")

#: situation → step, phase, reason
CASES: list[tuple[str, Situation, Step, DelegationPhase, Reason]] = [
    ("01 new", situation(Sight.UNSENT, wish(claimed=False)), Step.CLAIM, _PHASE.QUEUED, Reason.SENDING),
    ("02 denied", situation(Sight.UNSENT, wish(denied=DENIED)), Step.FINISH, _PHASE.FAILED, Reason.NOT_PERMITTED),
    ("03 paused target", situation(Sight.UNSENT, wish(hindrance=PAUSED)), Step.WAIT, _PHASE.QUEUED,
     Reason.TARGET_PAUSED),
    ("04 not its turn", situation(Sight.UNSENT, wish(turn=False)), Step.WAIT, _PHASE.QUEUED, Reason.TARGET_BUSY),
    ("05 rests", situation(Sight.UNDELIVERED, recorded=RESTING, problem=UNREACHED), Step.WAIT, _PHASE.QUEUED,
     Reason.DELIVERY_FAILED),
    ("06 attempts spent", situation(Sight.UNDELIVERED, wish(max_attempts=2), SPENT), Step.FINISH, _PHASE.FAILED,
     Reason.ATTEMPTS_EXHAUSTED),
    ("07 lost: again", situation(Sight.UNDELIVERED, None, FORGOTTEN), Step.SEND, _PHASE.DISPATCHED, Reason.SENDING),
    ("08 lost, at most once", situation(Sight.UNDELIVERED, wish(may_resend=False), FORGOTTEN), Step.FINISH,
     _PHASE.FAILED, Reason.TASK_LOST),
    ("09 unsure: asks", situation(Sight.UNSURE), Step.ASK, _PHASE.DISPATCHED, Reason.DELIVERY_UNKNOWN),
    ("10 cannot be asked: again", situation(Sight.UNSURE, cannot_ask=True), Step.SEND, _PHASE.DISPATCHED,
     Reason.SENDING),
    ("11 cannot be asked, at most once", situation(Sight.UNSURE, wish(may_resend=False), cannot_ask=True), Step.FINISH,
     _PHASE.FAILED, Reason.DELIVERY_AMBIGUOUS),
    ("12 works", situation(), Step.FOLLOW, _PHASE.WORKING, Reason.WORKING),
    ("13 asks for input", situation(Sight.ASKING, under_way=True), Step.WAIT, _PHASE.INPUT_REQUIRED,
     Reason.INPUT_REQUIRED),
    ("14 target gone", situation(Sight.SILENT, wish(gone=GONE)), Step.FINISH, _PHASE.FAILED, Reason.TARGET_GONE),
    ("15 done", situation(Sight.SUCCEEDED), Step.FINISH, _PHASE.COMPLETED, Reason.COMPLETED),
    ("16 held", situation(Sight.UNDELIVERED, wish(Goal.HOLD)), Step.WAIT, _PHASE.QUEUED, Reason.HELD),
    ("17 held, and sent already", situation(Sight.UNSURE, wish(Goal.HOLD)), Step.ASK, _PHASE.DISPATCHED,
     Reason.DELIVERY_UNKNOWN),
    ("18 held, cannot be asked: not sent", situation(Sight.UNSURE, wish(Goal.HOLD), cannot_ask=True), Step.WAIT,
     _PHASE.DISPATCHED, Reason.DELIVERY_UNKNOWN),
    ("19 cancelled unsent", situation(Sight.UNSENT, wish(Goal.CANCEL)), Step.FINISH, _PHASE.CANCELLED,
     Reason.CANCELLED),
    ("20 cancelled: told", situation(wished=wish(Goal.CANCEL), recorded=record(phase="Working", task=TASK)),
     Step.CANCEL, _PHASE.WORKING, Reason.CANCELLING),
    ("21 cancelled: answered", situation(Sight.CANCELED, wish(Goal.CANCEL), cancellation=CANCELLED), Step.FINISH,
     _PHASE.CANCELLED, Reason.CANCELLED),
    ("22 cancelled, and done before", situation(Sight.SUCCEEDED, wish(Goal.CANCEL)), Step.FINISH, _PHASE.COMPLETED,
     Reason.COMPLETED),
    ("23 the sender is gone", situation(Sight.UNSENT, wish(Goal.CANCEL, cancelled=ORPHANED)), Step.FINISH,
     _PHASE.CANCELLED, Reason.SOURCE_GONE),
    ("24 a cancel taken back too late", situation(Sight.CANCELED, cancellation=CANCELLED), Step.FINISH,
     _PHASE.CANCELLED, Reason.CANCELLED),
    ("25 cancelled by its agent", situation(Sight.CANCELED), Step.FINISH, _PHASE.FAILED, Reason.TASK_FAILED),
    ("26 deadline, queued", situation(Sight.UNSENT, wish(Goal.EXPIRE)), Step.FINISH, _PHASE.FAILED,
     Reason.DEADLINE_EXCEEDED),
    ("27 deadline, sending", situation(Sight.SENDING, wish(Goal.EXPIRE, cancel_by=NOW + SOON)), Step.WAIT,
     _PHASE.QUEUED, Reason.CANCELLING),
    ("28 deadline, waited long enough", situation(Sight.SENDING, wish(Goal.EXPIRE, cancel_by=NOW)), Step.FINISH,
     _PHASE.FAILED, Reason.DEADLINE_EXCEEDED),
    ("29 over, still claimed", situation(Sight.UNSENT, wish(Goal.CLOSE), record(phase="Failed")), Step.UNCLAIM,
     _PHASE.FAILED, Reason.DELIVERY_FAILED),
]  # fmt: skip


@pytest.mark.parametrize(("case", "step", "phase", "reason"), [pytest.param(*row[1:], id=row[0]) for row in CASES])
def test_what_comes_next(case: Situation, step: Step, phase: DelegationPhase, reason: Reason) -> None:
    """I-60, I-61, I-64, I-71."""
    decision = plan(case)
    assert (decision.step, decision.phase, decision.reason) == (step, phase, reason)
    assert decision.message.strip()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (situation(Sight.UNSENT, wish(Goal.EXPIRE, hindrance=PAUSED)), ("by its deadline", PAUSED.message)),
        (situation(Sight.UNSENT, wish(Goal.EXPIRE, denied=DENIED)), ("by its deadline", DENIED.message)),
        (situation(Sight.UNDELIVERED, wish(Goal.EXPIRE, hindrance=PAUSED), problem=BUSY), (BUSY.message,)),
        (situation(Sight.UNDELIVERED, wish(max_attempts=2), SPENT, problem=UNREACHED), (UNREACHED.message,)),
        (situation(Sight.FAILED, problem=SAYS), ("reports that the task failed: no disk left",)),
        (situation(Sight.FAILED), ("reports that the task failed.",)),
        (situation(Sight.CANCELED), ("cancelled the task by itself.",)),
        (situation(Sight.UNDELIVERED, wish(may_resend=False), FORGOTTEN), ("whenAmbiguous is Fail",)),
        (situation(Sight.UNSENT, wish(turn=False)), ("Workspace 'b' has as many tasks", "maxConcurrentTasks")),
    ],
)
def test_the_words(case: Situation, words: tuple[str, ...]) -> None:
    """I-81: the last sentence says what stood in the way."""
    message = plan(case).message
    assert [part for part in words if part not in message] == []


# -- silence -----------------------------------------------------------------------------------------------------------


def test_silence_is_reported_after_stuck_after_and_says_since_when() -> None:
    """I-66."""
    known = record(task=TASK, start_time=at(-5000), heartbeat_time=at(-1200))
    decision = plan(situation(Sight.SILENT, recorded=known, under_way=True))
    assert (decision.phase, decision.reason) == (_PHASE.STUCK, Reason.AGENT_SILENT)
    assert at(-1200) in decision.message and "may still finish" in decision.message


@pytest.mark.parametrize(
    ("sight", "seen", "known"),
    [
        (Sight.SILENT, {"under_way": True}, {"heartbeat_time": at(-1199)}),
        (Sight.WORKING, {"heartbeat": NOW}, {"heartbeat_time": at(-5000)}),
        (Sight.SILENT, {"under_way": True}, {"start_time": at(-60)}),
        (Sight.ASKING, {"under_way": True}, {"heartbeat_time": at(-5000)}),  # it waits for someone: it is not silent
        (Sight.UNSURE, {"under_way": True}, {}),
    ],
)
def test_who_is_heard_of_or_waited_for_is_not_stuck(sight: Sight, seen: dict[str, Any], known: dict[str, Any]) -> None:
    """I-66."""
    assert plan(situation(sight, recorded=record(task=TASK, **known), **seen)).phase is not _PHASE.STUCK


# -- when it is looked at again ----------------------------------------------------------------------------------------

_SOONER = NOW + timedelta(seconds=7)


@pytest.mark.parametrize(
    ("case", "again"),
    [
        pytest.param(situation(Sight.UNSENT, wish(turn=False)), RECHECK, id="01 waits for others"),
        pytest.param(
            situation(Sight.UNSENT, wish(turn=False, deadline=_SOONER)), timedelta(seconds=7), id="02 its deadline"
        ),
        pytest.param(
            situation(Sight.UNDELIVERED, recorded=RESTING, problem=BUSY), timedelta(seconds=9), id="03 its rest"
        ),
        pytest.param(situation(Sight.UNSURE, not_before=_SOONER), timedelta(seconds=7), id="04 the agent's rest"),
        pytest.param(
            situation(recorded=record(task=TASK, heartbeat_time=at(-1190)), under_way=True),
            timedelta(seconds=10),
            id="05 its silence",
        ),
        pytest.param(
            situation(Sight.SENDING, wish(Goal.CANCEL, cancel_by=_SOONER)), timedelta(seconds=7), id="06 its cancel"
        ),
        pytest.param(situation(Sight.UNSURE, wish(deadline=NOW)), SOON, id="07 never at once for ever"),
        pytest.param(
            situation(Sight.UNSENT, wish(Goal.CLOSE, claimed=False), record(phase="Failed", finish_time=at(-600))),
            timedelta(minutes=50),
            id="08 its time to live",
        ),
        pytest.param(situation(Sight.SUCCEEDED), timedelta(0), id="09 there is something to do"),
    ],
)
def test_when_it_is_looked_at_again(case: Situation, again: timedelta) -> None:
    """I-68, I-69: whatever else wakes it."""
    assert plan(case).wake_in == again


@pytest.mark.parametrize(("age", "step"), [(3599, Step.WAIT), (3600, Step.DELETE), (9999, Step.DELETE)])
def test_the_time_to_live_counts_from_the_end(age: int, step: Step) -> None:
    """I-69: from the record, so that no restart makes it longer."""
    over = record(phase="Completed", finish_time=at(-age))
    assert plan(situation(Sight.UNSENT, wish(Goal.CLOSE, claimed=False), over)).step is step
    assert plan(situation(Sight.UNSENT, wish(Goal.CLOSE), over)).step is Step.UNCLAIM, "the claim goes first"


@pytest.mark.parametrize(
    ("wished", "deadline", "until"),
    [(0, 3600, 30), (0, 25, 30), (0, 15, 25), (0, 0, 10), (0, -500, 10)],
    ids=["01 far", "02 near", "03 shorter", "04 now", "05 the operator was away"],
)
def test_a_cancel_waits_for_its_answer_and_not_past_the_deadline(wished: int, deadline: int, until: int) -> None:
    """I-71: 30 s, and 10 s after the deadline at most."""
    seconds = timedelta(seconds=1)
    assert cancel_by(NOW + wished * seconds, NOW + deadline * seconds) == NOW + until * seconds
