"""The table alone: every situation has a row and a wake-up, and no row does what it must not."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from tests.unit.delegation_kit import (
    BUSY,
    DENIED,
    GONE,
    LOST,
    ORPHANED,
    PAUSED,
    REFUSED,
    TASK,
    attempt,
    record,
    situation,
    wish,
)
from tests.unit.kit import NOW, at

from workspace_operator.api.delegation import CancellationStatus
from workspace_operator.api.states import TERMINAL, CancelOutcome, ConditionType, DelegationPhase
from workspace_operator.lifecycle import diagram
from workspace_operator.lifecycle.delegation.facts import Goal, Sight, Situation
from workspace_operator.lifecycle.delegation.plan import GUARDS, plan
from workspace_operator.lifecycle.delegation.report import finish, report
from workspace_operator.lifecycle.delegation.table import ERRANDS, TABLE, Guard, Row, Step

PAIRS = list(product(Goal, Sight))
WISHES: list[dict[str, Any]] = [
    {},
    {"claimed": False},
    {"denied": DENIED, "permitted": False},
    {"hindrance": PAUSED},
    {"gone": GONE},
    {"cancelled": ORPHANED},
    {"turn": False},
    {"max_attempts": 1},
    {"may_resend": False},
    {"cancel_by": NOW + timedelta(seconds=5)},
    {"cancel_by": NOW - timedelta(seconds=5)},
    {"deadline": NOW - timedelta(hours=2), "claimed": False},
]
RECORDS = [
    record(),
    record(phase="Working", task=TASK, start_time=at(-500), heartbeat_time=at(-100)),
    record(phase="Stuck", task=TASK, start_time=at(-5000), heartbeat_time=at(-4000)),
    record(phase="Queued", retry_after=at(9), attempts=(attempt(),), failed_deliveries=1),
    record(phase="Queued", attempts=(attempt(failure=LOST),), attempt_count=1),
    record(phase="Cancelled", finish_time=at(-5)),
    record(phase="Cancelled", finish_time=at(-5000)),
]
CANCELLATION = CancellationStatus(time=at(-1), outcome=CancelOutcome.CONFIRMED)
LOOKS: list[dict[str, Any]] = [
    {},
    {"under_way": True, "heartbeat": NOW},
    {"cannot_ask": True},
    {"not_before": NOW + timedelta(seconds=3), "problem": BUSY},
    {"cancellation": CANCELLATION},
]
TAKEN: Counter[Row] = Counter()


def situations(goal: Goal, sight: Sight) -> list[Situation]:
    """Every combination of what guards look at."""
    problem: dict[str, Any] = {"problem": REFUSED} if sight in (Sight.REFUSED, Sight.UNUSABLE) else {}
    combined = product(WISHES, RECORDS, LOOKS)
    return [situation(sight, wish(goal, **asked), known, **{**look, **problem}) for asked, known, look in combined]


@pytest.mark.parametrize(("goal", "sight"), PAIRS)
def test_every_situation_has_a_row_and_a_wake_up(goal: Goal, sight: Sight) -> None:
    """I-68: what is not over is looked at again, by its deadline at the latest; so is what is over, for its end."""
    for case in situations(goal, sight):
        decision = plan(case)
        TAKEN[decision.row] += 1
        assert decision.message.strip()
        assert decision.wake_in is not None
        if goal in (Goal.DELIVER, Goal.HOLD) and decision.row.step in (*ERRANDS, Step.WAIT):
            assert decision.wake_in <= max(case.wish.deadline - case.now, timedelta(seconds=1))


def test_every_row_has_a_situation() -> None:
    """No row is hidden behind those above it."""
    for goal, sight in [] if TAKEN else PAIRS:  # filled by the test above, unless this one runs alone
        TAKEN.update(plan(case).row for case in situations(goal, sight))
    assert not [f"{row.goal}/{row.sight}/{row.guard}" for row in TABLE if not TAKEN[row]]


@pytest.mark.parametrize(("goal", "sight"), PAIRS)
def test_the_last_row_of_each_goal_and_sight_is_unconditional(goal: Goal, sight: Sight) -> None:
    rows = [row for row in TABLE if (row.goal, row.sight) == (goal, sight)]
    assert [row.guard is Guard.ALWAYS for row in rows] == [False] * (len(rows) - 1) + [True]
    assert len({row.guard for row in rows}) == len(rows), "a guard twice: the second row is never reached"


def test_nothing_leaves_a_terminal_phase() -> None:
    """I-65: of what is over, only the claim and then the object go, and its status is not written again."""
    assert {row.step for row in TABLE if row.goal is Goal.CLOSE} == {Step.UNCLAIM, Step.DELETE, Step.WAIT}
    assert {row.phase for row in TABLE if row.goal is Goal.CLOSE} == {None}
    for sight in Sight:
        for case in situations(Goal.CLOSE, sight):
            assert report(case, plan(case)) is case.record


def test_a_terminal_phase_is_reached_by_the_one_step_that_writes_the_result_with_it() -> None:
    """I-65."""
    for row in TABLE:
        assert (row.phase in TERMINAL) == (row.step is Step.FINISH)
    for goal, sight in product(set(Goal) - {Goal.CLOSE}, Sight):
        for case in situations(goal, sight)[::3]:
            decision = plan(case)
            if decision.step is not Step.FINISH:
                assert decision.phase not in TERMINAL or case.record.phase in TERMINAL
                continue
            ended = finish(case, decision, None)
            assert ended.phase in TERMINAL and ended.finish_time is not None and ended.retry_after is None


def test_a_message_is_sent_only_where_it_is_to_be_delivered_and_is_not_known_to_have_arrived() -> None:
    """I-61: after a claim (I-64), when it provably did not arrive, or when nobody can be asked and may double."""
    sends = {(row.goal, row.sight, row.guard) for row in TABLE if row.step is Step.SEND}
    assert sends == {
        (Goal.DELIVER, Sight.UNDELIVERED, Guard.ALWAYS),
        (Goal.DELIVER, Sight.UNSURE, Guard.CANNOT_ASK),
    }
    assert {(row.goal, row.sight) for row in TABLE if row.step is Step.CLAIM} == {(Goal.DELIVER, Sight.UNSENT)}
    unsure = [row.guard for row in TABLE if (row.goal, row.sight) == (Goal.DELIVER, Sight.UNSURE)]
    assert unsure.index(Guard.AT_MOST_ONCE) < unsure.index(Guard.CANNOT_ASK)


@pytest.mark.parametrize("goal", [Goal.CANCEL, Goal.EXPIRE])
def test_a_known_task_is_cancelled_before_it_is_given_up(goal: Goal) -> None:
    """I-71: given up only when the answer is there, was waited for, or cannot come."""
    for sight in (Sight.WORKING, Sight.ASKING, Sight.SILENT):
        rows = [row for row in TABLE if (row.goal, row.sight) == (goal, sight)]
        assert rows[-1].step is Step.CANCEL
        assert {row.guard for row in rows if row.step is Step.FINISH} == {Guard.GONE, Guard.CANCEL_OVER}


def test_stuck_is_reported_and_never_decided_on() -> None:
    """I-66: it is Working that is silent, and moves on as Working does."""
    assert DelegationPhase.STUCK not in {row.phase for row in TABLE}
    silent = record(phase="Stuck", task=TASK, start_time=at(-5000))
    stuck = plan(situation(Sight.SILENT, recorded=silent, under_way=True))
    assert stuck.phase is DelegationPhase.STUCK and stuck.row.phase is DelegationPhase.WORKING
    heard = plan(situation(Sight.WORKING, recorded=silent, under_way=True, heartbeat=NOW))
    assert heard.phase is DelegationPhase.WORKING
    assert plan(situation(Sight.SUCCEEDED, recorded=silent)).phase is DelegationPhase.COMPLETED


def test_every_guard_is_evaluated_and_used() -> None:
    assert set(GUARDS) == set(Guard) == {row.guard for row in TABLE}


def test_every_step_is_carried_out_by_someone() -> None:
    from workspace_operator.reconcile.delegation.steps import STEPS

    assert set(STEPS) == set(Step) - {Step.WAIT}
    assert set(Step) == {row.step for row in TABLE}
    assert set(STEPS) > ERRANDS


def test_conditions_say_the_same_as_the_phase() -> None:
    """I-31: recomputed from what is known, each time."""
    for goal, sight in product(set(Goal) - {Goal.CLOSE}, Sight):
        for case in situations(goal, sight)[::5]:
            decision = plan(case)
            status = report(case, decision)
            found = {condition.type: condition for condition in status.conditions}
            always = {ConditionType.ACCEPTED, ConditionType.DELIVERED, ConditionType.FINISHED}
            assert always <= set(found) <= always | {ConditionType.RECONCILING, ConditionType.STALLED}
            assert ConditionType.STALLED in found or decision.phase is not DelegationPhase.FAILED
            assert ConditionType.RECONCILING not in found or decision.phase not in TERMINAL
            assert (found[ConditionType.FINISHED].status == "True") == (decision.phase in TERMINAL)
            assert all(condition.message.strip() for condition in status.conditions)
            if case.record.task is not None:
                assert found[ConditionType.DELIVERED].status == "True"


def test_the_diagram_shows_every_phase() -> None:
    drawn = diagram.delegations()
    for phase in DelegationPhase:
        assert f"{phase}" in drawn
    for phase in TERMINAL:
        assert f"{phase} --> [*]" in drawn
        assert drawn.count(f" {phase} --> ") == 1
