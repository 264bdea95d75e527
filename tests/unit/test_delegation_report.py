"""What is put on record of a delegation: attempts, the answer, conditions, signs of life, the end."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delegation_kit import (
    BUSY,
    DENIED,
    HOUR,
    LOST,
    PAUSED,
    TASK,
    UNREACHED,
    attempt,
    record,
    situation,
    wish,
)
from tests.unit.kit import NOW, at

from workspace_operator.api.base import Condition
from workspace_operator.api.delegation import ATTEMPTS_KEPT, PREVIEW_BYTES, DelegationStatus, ResultStatus
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import CancelOutcome, ConditionType, DelegationPhase
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.delegation.facts import Goal, Sight, Situation
from workspace_operator.lifecycle.delegation.plan import plan
from workspace_operator.lifecycle.delegation.report import (
    HEARTBEAT_WRITTEN,
    acknowledged,
    closed,
    cut,
    finish,
    preview,
    report,
    sent,
    unanswered,
    undelivered,
)

# -- the answer --------------------------------------------------------------------------------------------------------


@given(st.text(), st.integers(0, 40))
def test_text_is_cut_between_characters_and_no_shorter_than_needed(text: str, limit: int) -> None:
    """I-70."""
    data = text.encode()
    found = cut(data, limit)
    assert text.startswith(found) and len(found.encode()) <= limit
    if found != text:
        assert len((found + text[len(found)]).encode()) > limit


@given(st.text(st.characters(min_codepoint=0x10000, max_codepoint=0x1F9FF), min_size=1000, max_size=1100))
def test_a_preview_says_whether_it_is_all(text: str) -> None:
    """I-70: also where every character has four bytes."""
    shown = preview(text.encode(), "text/markdown")
    assert text.startswith(shown.preview) and len(shown.preview.encode()) <= PREVIEW_BYTES
    assert (shown.bytes, shown.media_type) == (len(text.encode()), "text/markdown")
    assert shown.complete == (shown.preview == text) == (len(text.encode()) <= PREVIEW_BYTES)


# -- attempts ----------------------------------------------------------------------------------------------------------


def test_a_failed_sending_is_on_record_and_the_next_one_waits() -> None:
    failed = undelivered(record(task=TASK, attempt_count=2), 3, UNREACHED, NOW)
    assert (failed.attempt_count, failed.failed_deliveries, failed.task) == (3, 1, None)
    assert failed.attempts[-1].reason == Reason.DELIVERY_FAILED and failed.attempts[-1].number == 3
    assert moments.parse(failed.retry_after or "") >= NOW + timedelta(seconds=1)


def test_the_same_failed_sending_twice_is_once() -> None:
    """So that a status write that was lost costs nothing."""
    once = undelivered(record(), 1, UNREACHED, NOW)
    assert undelivered(once, 1, UNREACHED, NOW + HOUR) == once
    assert undelivered(once.model_copy(update={"task": TASK}), 1, UNREACHED, NOW) == once


def test_the_rests_between_sendings_double_up_to_a_minute() -> None:
    """I-68."""
    status, rests, now = record(), [], NOW
    for number in range(1, 13):
        status = undelivered(status, number, UNREACHED, now)
        until = moments.parse(status.retry_after or "")
        rests.append((until - now).total_seconds())
        now = until
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]


def test_a_rest_is_never_shorter_than_what_is_meant() -> None:
    """Times are stored in whole seconds."""
    now = NOW + timedelta(milliseconds=300)
    until = moments.parse(undelivered(record(), 1, UNREACHED, now).retry_after or "")
    assert timedelta(seconds=1) <= until - now < timedelta(seconds=2)


@given(st.lists(st.sampled_from((UNREACHED, BUSY, LOST)), max_size=30))
def test_attempts_are_bounded_and_only_failed_deliveries_are_counted(failures: list[Failure]) -> None:
    status = record()
    for number, failure in enumerate(failures, 1):
        status = sent(status, number, again=False)
        status = undelivered(status, number, failure, NOW)
    assert len(status.attempts) == min(len(failures), ATTEMPTS_KEPT)
    assert [past.number for past in status.attempts] == list(range(1, len(failures) + 1))[-ATTEMPTS_KEPT:]
    assert status.attempt_count == len(failures)
    assert status.failed_deliveries == failures.count(UNREACHED)


def test_a_long_message_is_shortened() -> None:
    failure = Failure(FailureClass.BACKEND, Reason.DELIVERY_FAILED, "x" * 5000)
    assert len(undelivered(record(), 1, failure, NOW).attempts[0].message) == 1024


def test_resends_count_what_may_be_a_double_only() -> None:
    """I-61."""
    status = sent(sent(sent(record(), 1, again=False), 2, again=True), 3, again=True)
    assert (status.attempt_count, status.resends) == (3, 2)
    assert sent(record(retry_after=at(9)), 1, again=False).retry_after is None


def test_the_first_time_that_the_agent_had_it_stays() -> None:
    first = acknowledged(record(retry_after=at(5)), TASK, NOW)
    assert (first.start_time, first.retry_after, first.task) == (at(0), None, TASK)
    assert acknowledged(first, TASK, NOW + HOUR) is first
    other = acknowledged(first, TASK.model_copy(update={"state": "InputRequired"}), NOW + HOUR)
    assert other.start_time == at(0)


# -- the status --------------------------------------------------------------------------------------------------------


def shown(case: Situation) -> DelegationStatus:
    return report(case, plan(case))


def test_what_waits_says_why() -> None:
    waiting = shown(situation(Sight.UNSENT, wish(claimed=False, hindrance=PAUSED)))
    assert (waiting.phase, waiting.queued_reason) == (DelegationPhase.QUEUED, "TargetPaused")
    assert (waiting.message_id, waiting.deadline, waiting.observed_generation) == ("dlg-u", at(3600), 1)
    assert shown(situation(recorded=waiting)).queued_reason is None


def test_the_question_is_shown_while_the_agent_asks() -> None:
    question = Failure(FailureClass.BACKEND, Reason.INPUT_REQUIRED, "Which one?")
    asking = shown(situation(Sight.ASKING, recorded=record(task=TASK), problem=question))
    assert (asking.phase, asking.question) == (DelegationPhase.INPUT_REQUIRED, "Which one?")
    again = shown(situation(Sight.ASKING, recorded=asking))
    assert again.question == "Which one?", "after a restart nothing is heard yet"
    assert shown(situation(Sight.WORKING, recorded=asking)).question is None


@pytest.mark.parametrize(("age", "written"), [(59, False), (60, True), (61, True)])
def test_a_sign_of_life_is_written_once_a_minute(age: int, written: bool) -> None:
    assert timedelta(seconds=60) == HEARTBEAT_WRITTEN
    known = record(task=TASK, start_time=at(-900), heartbeat_time=at(-age))
    status = shown(situation(recorded=known, heartbeat=NOW))
    assert status.heartbeat_time == (at(0) if written else at(-age))


def test_the_first_sign_of_life_is_written_at_once() -> None:
    assert shown(situation(recorded=record(task=TASK, start_time=at(-5)), heartbeat=NOW)).heartbeat_time == at(0)
    assert shown(situation(Sight.UNSENT, wish(claimed=False))).heartbeat_time is None


def conditions(status: DelegationStatus) -> dict[str, Condition]:
    return {condition.type: condition for condition in status.conditions}


@pytest.mark.parametrize(
    ("case", "accepted", "delivered", "finished"),
    [
        (situation(Sight.UNSENT, wish(claimed=False)), "True Permitted", "False NotDelivered", "False Sending"),
        (
            situation(Sight.UNSENT, wish(claimed=False, permitted=False, denied=DENIED)),
            *("False NotPermitted", "False NotDelivered", "True NotPermitted"),
        ),
        (
            situation(Sight.UNSENT, wish(claimed=False, permitted=False, hindrance=PAUSED)),
            *("Unknown TargetPaused", "False NotDelivered", "False TargetPaused"),
        ),
        (situation(Sight.SENDING), "True Permitted", "Unknown DeliveryUnknown", "False Sending"),
        (situation(Sight.UNSURE), "True Permitted", "Unknown DeliveryUnknown", "False DeliveryUnknown"),
        (situation(recorded=record(task=TASK)), "True Permitted", "True Acknowledged", "False Working"),
        (situation(Sight.SUCCEEDED), "True Permitted", "True Acknowledged", "True Completed"),
        (
            situation(Sight.REFUSED, problem=Failure(FailureClass.BAD_REQUEST, Reason.DELIVERY_REFUSED, "No.")),
            *("True Permitted", "False NotDelivered", "True DeliveryRefused"),
        ),
    ],
)
def test_conditions(case: Situation, accepted: str, delivered: str, finished: str) -> None:
    """I-31."""
    found = conditions(shown(case))
    kinds = (ConditionType.ACCEPTED, ConditionType.DELIVERED, ConditionType.FINISHED)
    assert [f"{c.status} {c.reason}" for c in (found[kind] for kind in kinds)] == [accepted, delivered, finished]
    assert all(condition.observed_generation == 1 for condition in found.values())


def test_the_time_of_a_transition_moves_only_when_a_status_flips() -> None:
    """I-31: not with a reason, a message or a pass."""
    before = shown(situation(Sight.SENDING))
    later = Situation(wish(), before, situation(Sight.UNSURE).seen, NOW + HOUR / 2)
    doubtful = report(later, plan(later))
    assert conditions(doubtful)[ConditionType.FINISHED].reason != conditions(before)[ConditionType.FINISHED].reason
    assert {c.last_transition_time for c in doubtful.conditions} == {at(0)}
    known = Situation(
        wish(), doubtful.model_copy(update={"task": TASK}), situation(Sight.WORKING).seen, NOW + timedelta(minutes=40)
    )
    delivered = conditions(report(known, plan(known)))
    assert delivered[ConditionType.DELIVERED].last_transition_time == at(2400)
    assert delivered[ConditionType.ACCEPTED].last_transition_time == at(0)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_the_end_has_phase_result_and_time_in_one_value() -> None:
    """I-65."""
    case = situation(Sight.SUCCEEDED, recorded=record(phase="Working", task=TASK, start_time=at(-9), retry_after=at(9)))
    ended = finish(case, plan(case), ResultStatus(preview="done", bytes=4))
    assert (ended.phase, ended.finish_time, ended.retry_after) == (DelegationPhase.COMPLETED, at(0), None)
    assert ended.result is not None and ended.result.preview == "done"
    assert (ended.start_time, ended.queued_reason) == (at(-9), None)


def test_one_that_was_answered_at_once_had_a_beginning() -> None:
    answered = situation(Sight.SUCCEEDED)
    assert finish(answered, plan(answered), None).start_time == at(0)
    never = situation(Sight.UNDELIVERED, wish(Goal.CANCEL))
    assert finish(never, plan(never), None).start_time is None


def test_a_cancel_without_an_answer_is_said_to_have_none() -> None:
    """I-71: and why, as far as it is known."""
    told = unanswered(situation(Sight.SILENT, wish(Goal.CANCEL), problem=UNREACHED))
    assert told.outcome is CancelOutcome.UNANSWERED
    assert "may go on" in told.message and UNREACHED.message in told.message
    assert PAUSED.message in unanswered(situation(Sight.SILENT, wish(Goal.CANCEL, hindrance=PAUSED))).message
    assert unanswered(situation(Sight.SILENT, wish(Goal.CANCEL))).message.endswith("go on.")


def test_of_what_is_over_nothing_is_written() -> None:
    over = record(phase="Failed", finish_time=at(-5), attempts=(attempt(),))
    assert shown(situation(Sight.WORKING, wish(Goal.CLOSE), over, heartbeat=NOW)) is over


def test_an_edit_of_what_is_over_is_seen_and_changes_nothing_else() -> None:
    """I-32: or a pipeline would wait for it for ever."""
    over = record(phase="Completed", finish_time=at(-5), observed_generation=1)
    assert closed(over, 1) == over
    assert closed(over, 2) == over.model_copy(update={"observed_generation": 2})


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (situation(Sight.UNSENT, wish(claimed=False)), "Reconciling"),
        (situation(Sight.UNSENT, wish(Goal.HOLD, claimed=False)), None),
        (situation(Sight.WORKING, wish(Goal.HOLD), record(task=TASK)), "Reconciling"),
        (situation(Sight.SUCCEEDED), None),
        (situation(Sight.UNDELIVERED, wish(Goal.CANCEL)), None),
        (situation(Sight.UNDELIVERED, wish(Goal.EXPIRE)), "Stalled"),
    ],
)
def test_whether_it_is_under_way_or_has_failed_or_is_as_declared(case: Situation, expected: str | None) -> None:
    """I-89: what is held or cancelled as declared is neither."""
    found = conditions(shown(case))
    abnormal = {ConditionType.RECONCILING, ConditionType.STALLED} & set(found)
    assert abnormal == ({expected} if expected else set())
