"""The table alone: every situation has a row, every row a situation, and no row does what it must not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from tests.unit.kit import NOW, SERVES, SILENT, at, failed, instance, record, seen, wish

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Phase
from workspace_operator.api.workspace import CredentialsStatus, IdleStatus
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle import diagram
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.idle import Work
from workspace_operator.lifecycle.parameters import fingerprint
from workspace_operator.lifecycle.plan import GUARDS, Situation, plan
from workspace_operator.lifecycle.report import report
from workspace_operator.lifecycle.table import TABLE, VERBS, Guard, Row, Step

PAIRS = list(product(Goal, Sight))
AWAY = Failure(FailureClass.BACKEND, Reason.BACKEND_UNREACHABLE, "The backend did not answer.")
BLOCKED = Failure(FailureClass.BAD_REQUEST, Reason.PARENT_NOT_FOUND, "Not started: the parent does not exist.")

WISHES: list[dict[str, Any]] = [
    {},
    {"blocked": BLOCKED},
    {"blocked": BLOCKED, "backend": None},
    {"parameters": fingerprint({"image": "a"}, "t"), "restart_token": "t"},
    {"parameters": fingerprint({"image": "b"}, None), "automatic_update": True},
    {"freeze": True, "wants_credentials": True, "renews_credentials": True, "generation": 2},
    {"delete_data": True, "has_references": True},
    {"delete_data": True, "blocked": BLOCKED, "backend": None},
    {"pause_after": timedelta(seconds=60)},
    {"halts": False},
]
INSTANCES: list[dict[str, Any] | None] = [
    None,
    {"since": None},
    {},
    {"since": at(-999)},
    {"served": True},
    {"incarnation": 2},
]
FAILURES = [None, failed(1, 5), failed(7, -5)]
CREDENTIALS = [
    None,
    CredentialsStatus(secret_name="s", expires=at(3600)),
    CredentialsStatus(secret_name="s", expires=at(1)),
]
LOOKS: list[dict[str, Any]] = [
    {},
    {"ran": True},
    {"data_gone": True},
    {"halting_since": NOW},
    {"halting_since": NOW - timedelta(seconds=60)},
]
IDLE_SINCE = IdleStatus(last_task_time=at(-999))
TAKEN: Counter[Row] = Counter()


def situations(goal: Goal, sight: Sight) -> list[Situation]:
    """Every combination of what guards look at."""
    found = []
    for asked, known, failures, token, look, serving in product(
        WISHES, INSTANCES, FAILURES, CREDENTIALS, LOOKS, (SERVES, SILENT)
    ):
        known_instance = None if known is None else instance(**known)
        recorded = record(known_instance, failures=failures, credentials=token, idle=IDLE_SINCE)
        problem = {"problem": AWAY} if sight is Sight.UNKNOWN else {}
        sighted = replace(seen(sight, serving, **problem), **look)
        found.append(Situation(wish(goal, **asked), recorded, sighted, NOW, work=Work(active=False)))
    return found


@pytest.mark.parametrize(("goal", "sight"), PAIRS)
def test_every_situation_has_a_row_and_a_wake_up(goal: Goal, sight: Sight) -> None:
    """I-81: Failed never without a sentence. I-40: an Unknown sight leads to nothing."""
    for situation in situations(goal, sight):
        decision = plan(situation)
        TAKEN[decision.row] += 1
        assert decision.message.strip()
        assert decision.row.reached or decision.wake_in is not None
        if sight is Sight.UNKNOWN:
            assert decision.step is Step.WAIT


def test_every_row_has_a_situation() -> None:
    """No row is hidden behind those above it."""
    for goal, sight in [] if TAKEN else PAIRS:  # filled by the test above, unless this one runs alone
        TAKEN.update(plan(situation).row for situation in situations(goal, sight))
    assert not [f"{row.goal}/{row.sight}/{row.guard}" for row in TABLE if not TAKEN[row]]


@pytest.mark.parametrize(("goal", "sight"), PAIRS)
def test_the_last_row_of_each_goal_and_sight_is_unconditional(goal: Goal, sight: Sight) -> None:
    rows = [row for row in TABLE if (row.goal, row.sight) == (goal, sight)]
    assert [row.guard is Guard.ALWAYS for row in rows] == [False] * (len(rows) - 1) + [True]
    assert len({row.guard for row in rows}) == len(rows), "a guard twice: the second row is never reached"


def test_no_verb_without_a_reading() -> None:
    """I-40."""
    assert {row.step for row in TABLE if row.sight is Sight.UNKNOWN} == {Step.WAIT}


def test_only_what_is_seen_absent_is_finished() -> None:
    """I-10."""
    assert {(row.goal, row.sight) for row in TABLE if row.step is Step.FINISH} == {(Goal.DELETED, Sight.ABSENT)}
    assert {row.sight for row in TABLE if row.step is Step.DELETE_DATA} == {Sight.ABSENT}


def test_nothing_is_started_that_is_not_to_run() -> None:
    starts = (Step.INTEND, Step.PROVISION, Step.RESTART, Step.RENEW)
    assert {row.goal for row in TABLE if row.step in starts} == {Goal.RUNNING}


def test_a_state_without_compute_is_only_claimed_for_a_reading_without_compute() -> None:
    """I-01, I-14: Paused and Stopped are claimed for what executes nothing; Stopped only for what is gone."""
    paused = {row.sight for row in TABLE if row.reached and row.phase is Phase.PAUSED}
    stopped = {row.sight for row in TABLE if row.reached and row.phase is Phase.STOPPED}
    assert (paused, stopped) == ({Sight.ABSENT, Sight.HALTED, Sight.FROZEN}, {Sight.ABSENT})


def test_every_guard_is_evaluated_and_used() -> None:
    assert set(GUARDS) == set(Guard) == {row.guard for row in TABLE}


def test_every_step_is_carried_out_by_someone() -> None:
    from workspace_operator.reconcile.steps import STEPS

    assert set(STEPS) == set(Step) - {Step.WAIT}
    assert set(Step) == {row.step for row in TABLE}
    assert set(STEPS) > VERBS


@pytest.mark.parametrize("goal", list(Goal))
def test_failed_is_never_reported_without_its_failure(goal: Goal) -> None:
    """I-81: an empty red card; by the status itself, whatever was on record before."""
    for sight in Sight:
        for situation in situations(goal, sight)[::7]:
            decision = plan(situation)
            if decision.phase is Phase.FAILED and decision.step is not Step.FAIL:
                status = report(situation, decision)
                assert status.failures is not None and status.failures.message


def test_the_diagram_shows_every_verb_that_moves_compute() -> None:
    drawn = diagram.mermaid()
    for row in TABLE:
        if row.step in (Step.PROVISION, Step.RESTART, Step.RELEASE):
            assert f"{row.sight} --> " in drawn
