"""What is known of a task, from the record and from what this process has heard."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delegation_kit import BUSY, LOST, REFUSED, TASK, UNREACHED, attempt, record
from tests.unit.kit import NOW, at

from workspace_operator.a2a.values import Answer, TaskState, TaskView
from workspace_operator.api.delegation import DelegationStatus
from workspace_operator.api.reasons import Reason
from workspace_operator.lifecycle.delegation.facts import Goal, Sight
from workspace_operator.lifecycle.delegation.table import Step
from workspace_operator.reconcile.delegation.errands import Talk
from workspace_operator.reconcile.delegation.sight import absorb, see
from workspace_operator.reconcile.world import Clock


class _Clock(Clock):
    def now(self) -> datetime:
        return NOW


CLOCK = _Clock()
WORKING = TaskView("t1", "c", TaskState.WORKING)
DONE = TaskView("t1", "c", TaskState.COMPLETED, answer=Answer(b"done"))
SAID = TaskView("", "", TaskState.COMPLETED, answer=Answer(b"done"))  # a plain message, no task
ASKS = TaskView("t1", "c", TaskState.INPUT_REQUIRED, "Which one?")
KNOWN = record(task=TASK, start_time=at(-9))


def talk(**heard: Any) -> Talk:
    return Talk(target_uid="b-1", **heard)


SIGHTS: list[tuple[str, Talk, DelegationStatus, bool, Sight]] = [
    ("01 never claimed", talk(), record(), False, Sight.UNSENT),
    ("02 claimed, and the process restarted", talk(), record(), True, Sight.UNSURE),
    ("03 claimed a moment ago", talk(undelivered=True), record(), True, Sight.UNDELIVERED),
    ("04 on its way", talk(under_way=Step.SEND), record(), True, Sight.SENDING),
    ("05 its answer was lost", talk(unanswered=1, failed=UNREACHED), record(), True, Sight.UNSURE),
    ("06 asked for", talk(under_way=Step.ASK), record(), True, Sight.UNSURE),
    ("07 known, and the process restarted", talk(), KNOWN, True, Sight.SILENT),
    ("08 heard of", talk(view=WORKING), KNOWN, True, Sight.WORKING),
    ("09 heard of once, not any more", talk(view=WORKING, unanswered=1), KNOWN, True, Sight.SILENT),
    ("10 over, whatever follows", talk(view=DONE, unanswered=3), KNOWN, True, Sight.SUCCEEDED),
    ("11 answered at once", talk(view=SAID), record(), True, Sight.SUCCEEDED),
    ("12 asks", talk(view=ASKS), KNOWN, True, Sight.ASKING),
    ("13 failed", talk(view=replace(WORKING, state=TaskState.FAILED)), KNOWN, True, Sight.FAILED),
    ("14 cancelled", talk(view=replace(WORKING, state=TaskState.CANCELED)), KNOWN, True, Sight.CANCELED),
    ("15 refused", talk(refused=REFUSED), record(), True, Sight.REFUSED),
    ("16 unusable", talk(unusable=UNREACHED, view=WORKING), KNOWN, True, Sight.UNUSABLE),
    ("17 lost by the agent", talk(undelivered=True, failed=LOST), record(), True, Sight.UNDELIVERED),
]


@pytest.mark.parametrize(("heard", "known", "claimed", "sight"), [pytest.param(*row[1:], id=row[0]) for row in SIGHTS])
def test_what_is_known_of_the_task(heard: Talk, known: DelegationStatus, claimed: bool, sight: Sight) -> None:
    """I-61, I-62: after a restart the claim says that it may have arrived, and the agent is asked."""
    assert see(known, heard, Goal.DELIVER, claimed=claimed).sight is sight


def test_the_claim_is_what_a_restart_goes_by() -> None:
    """I-62: the record alone, which may not have been written yet, would take it for new."""
    assert see(record(phase="Queued"), talk(), Goal.DELIVER, claimed=True).sight is Sight.UNSURE
    assert see(record(phase="Queued"), talk(), Goal.DELIVER, claimed=False).sight is Sight.UNSENT


@pytest.mark.parametrize("goal", [Goal.CANCEL, Goal.EXPIRE])
def test_a_cancel_breaks_off_the_following_and_nothing_else(goal: Goal) -> None:
    """I-71."""
    for kind in (Step.SEND, Step.ASK, Step.CANCEL, Step.FOLLOW):
        heard = talk(under_way=kind, view=WORKING)
        assert see(KNOWN, heard, goal, claimed=True).under_way is (kind is not Step.FOLLOW)
        assert see(KNOWN, heard, Goal.DELIVER, claimed=True).under_way


def test_the_agents_words_are_what_is_said() -> None:
    question = see(KNOWN, talk(view=ASKS), Goal.DELIVER, claimed=True).problem
    assert question is not None and (question.reason, question.message) == (Reason.INPUT_REQUIRED, "Which one?")
    failed = talk(view=TaskView("t1", "c", TaskState.FAILED, "no disk left"))
    why = see(KNOWN, failed, Goal.DELIVER, claimed=True).problem
    assert why is not None and (why.reason, why.message) == (Reason.TASK_FAILED, "no disk left")


def test_after_a_restart_the_latest_attempt_says_why_it_waits() -> None:
    waits = record(attempts=(attempt(1, UNREACHED), attempt(2, BUSY)))
    problem = see(waits, talk(undelivered=True), Goal.DELIVER, claimed=True).problem
    assert problem is not None and (problem.reason, problem.message) == (Reason.TARGET_BUSY, BUSY.message)
    assert see(waits, talk(view=WORKING), Goal.DELIVER, claimed=True).problem is None


# -- from what was heard to the record ---------------------------------------------------------------------------------


def test_a_task_that_was_heard_of_is_on_record_with_who_has_it() -> None:
    found = absorb(record(retry_after=at(9)), talk(view=WORKING, attempt=1), CLOCK)
    assert found.task is not None and found.task.model_dump() == {
        "id": "t1",
        "context_id": "c",
        "state": "Working",
        "target_uid": "b-1",
    }
    assert (found.start_time, found.attempt_count, found.retry_after) == (at(0), 1, None)


def test_an_answer_without_a_task_leaves_none_on_record() -> None:
    assert absorb(record(), talk(view=SAID, attempt=1), CLOCK).task is None


def test_a_lost_task_leaves_the_record_and_is_an_attempt() -> None:
    """So that it is sent again, and nobody follows what does not exist."""
    found = absorb(KNOWN, talk(undelivered=True, failed=LOST, attempt=1), CLOCK)
    assert found.task is None and found.attempts[0].reason == Reason.TASK_LOST
    assert see(found, talk(undelivered=True, failed=LOST), Goal.DELIVER, claimed=True).sight is Sight.UNDELIVERED


def test_a_task_that_is_rejected_late_leaves_the_record_also_after_a_restart() -> None:
    """The number of its sending was not written: the record has a failed attempt of that number already."""
    known = record(task=TASK, attempt_count=1, attempts=(attempt(1, BUSY),))
    assert absorb(known, talk(undelivered=True, failed=BUSY), CLOCK).task is None


_EITHER: Any = st.sampled_from((WORKING, DONE, SAID, ASKS, None, True, False)).map(
    lambda known: {"undelivered": known} if isinstance(known, bool) else {"view": known}  # a task, or none
)
_HEARD = st.builds(
    lambda either, **heard: talk(**either, **heard),
    _EITHER,
    under_way=st.sampled_from((None, Step.SEND, Step.ASK, Step.FOLLOW, Step.CANCEL)),
    attempt=st.integers(0, 3),
    failed=st.sampled_from((None, UNREACHED, BUSY, LOST)),
    refused=st.sampled_from((None, None, REFUSED)),
    unanswered=st.integers(0, 2),
    heartbeat=st.sampled_from((None, NOW, NOW - timedelta(hours=1))),
)
_RECORDS = st.sampled_from((record(), KNOWN, record(attempt_count=2, attempts=(attempt(1), attempt(2, BUSY)))))


@given(_HEARD, _RECORDS)
def test_hearing_twice_is_hearing_once(heard: Talk, known: DelegationStatus) -> None:
    """So that a status write that was lost, or was in conflict, is done again without harm."""
    once = absorb(known, heard, CLOCK)
    assert absorb(once, heard, CLOCK) == once
    assert len(once.attempts) <= len(known.attempts) + 1
    assert once.attempt_count == max(known.attempt_count, heard.attempt)


@given(_HEARD, _RECORDS, st.sampled_from(Goal), st.booleans())
def test_whatever_was_heard_there_is_a_sight(heard: Talk, known: DelegationStatus, goal: Goal, claimed: bool) -> None:
    """Nothing that is claimed is taken for unsent (I-62), and nothing unclaimed for sent (I-64)."""
    seen = see(absorb(known, heard, CLOCK), heard, goal, claimed=claimed)
    assert (seen.sight is Sight.UNSENT) is not claimed
    assert seen.heartbeat is heard.heartbeat
