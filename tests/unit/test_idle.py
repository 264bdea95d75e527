"""When a workspace has nothing to do, what is put on record of that, and what is said."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.kit import NOW, PARAMETERS, SERVES, SILENT, at, failed, instance, record, seen, situation, wish

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import DesiredState, EffectiveReason, Phase
from workspace_operator.api.workspace import IdleStatus, WorkspaceStatus
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle import idle
from workspace_operator.lifecycle.facts import Goal, Sight, Wish
from workspace_operator.lifecycle.idle import Work
from workspace_operator.lifecycle.parameters import fingerprint
from workspace_operator.lifecycle.plan import RECHECK, Situation, plan
from workspace_operator.lifecycle.report import report
from workspace_operator.lifecycle.table import Step

AFTER = timedelta(seconds=100)
FREE, AT_WORK, UNKNOWN = Work(active=False), Work(active=True), Work()
RUNNING = seen(Sight.RUNNING, SERVES)
BLOCKED = Failure(FailureClass.BAD_REQUEST, Reason.PARENT_NOT_FOUND, "Not started: the parent does not exist.")


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def wished(**more: Any) -> Wish:
    return wish(pause_after=AFTER, **more)


def known(last_task: float, *, served: bool = True, **more: Any) -> WorkspaceStatus:
    """A running workspace whose last task was so many seconds ago, by the record."""
    return record(instance(served=served), idle=IdleStatus(last_task_time=at(-last_task)), **more)


def case(last_task: float, work: Work = FREE, **more: Any) -> Situation:
    return situation(wished(), known(last_task), RUNNING, work=work, **more)


CASES: list[tuple[str, Situation, bool]] = [
    ("01 long enough without a task", case(100), True),
    ("02 not yet", case(99), False),
    ("03 never without spec.idle", situation(wish(), known(9999), RUNNING, work=FREE), False),
    ("04 it has a task", case(100, AT_WORK), False),
    ("05 nobody knows whether it has", case(100, UNKNOWN), False),
    ("06 a later task is remembered", case(100, Work(False, last=ago(99))), False),
    ("07 an earlier one is remembered", case(100, Work(False, last=ago(150))), True),
    ("08 watched for too short a time", case(100, Work(False, watched_since=ago(99))), False),
    ("09 a read has failed a moment ago", case(100, Work(False, not_before=NOW + RECHECK)), False),
    ("10 it failed long ago", case(100, Work(False, not_before=ago(1))), True),
    ("11 it has not served since this start", situation(wished(), known(100, served=False), RUNNING, work=FREE), False),
    ("12 it does not answer", situation(wished(), known(100), seen(Sight.RUNNING, SILENT), work=FREE), False),
    ("13 time was never counted", situation(wished(), record(instance(served=True)), RUNNING, work=FREE), False),
    ("14 it could not be woken", situation(wished(blocked=BLOCKED), known(100), RUNNING, work=FREE), False),
    (
        "15 a restart waits for its turn",
        situation(
            wished(parameters=fingerprint({"image": "a"}, "t"), restart_token="t"),
            known(100, failures=failed()),
            RUNNING,
            work=FREE,
        ),
        False,
    ),
]


@pytest.mark.parametrize(("asked", "expected"), [pytest.param(*row[1:], id=row[0]) for row in CASES])
def test_when_the_time_has_come(asked: Situation, expected: bool) -> None:
    """I-22: by the last task, and never for want of knowledge."""
    assert (plan(asked).step is Step.IDLE) is expected


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        pytest.param(case(40), 60, id="01 when it is due"),
        pytest.param(case(40, Work(False, last=ago(10))), 90, id="02 by the latest task known"),
        pytest.param(case(40, Work(False, watched_since=ago(20))), 80, id="03 by the time watched"),
        pytest.param(case(100, Work(False, not_before=NOW + RECHECK)), 30, id="04 after a failed read"),
        pytest.param(case(40, AT_WORK), 25, id="05 to record that it is at work"),
        pytest.param(case(40, UNKNOWN), None, id="06 when there is news"),
        pytest.param(
            situation(wished(), known(999), seen(Sight.RUNNING, SILENT), work=FREE), None, id="07 due, and silent"
        ),
        pytest.param(situation(wish(), known(40), RUNNING), None, id="08 never"),
    ],
)
def test_when_it_is_looked_at_again(asked: Situation, seconds: float | None) -> None:
    """A state that only waits for news costs no passes."""
    wake_in = plan(asked).wake_in
    assert wake_in == (timedelta(seconds=seconds) if seconds is not None else None)


# -- the record --------------------------------------------------------------------------------------------------------


def shown(asked: Situation) -> IdleStatus | None:
    return report(asked, plan(asked)).idle


@pytest.mark.parametrize(
    ("work", "last_task"),
    [
        pytest.param(FREE, -200, id="01 nothing new"),
        pytest.param(Work(False, last=ago(176)), -200, id="02 a little later: not worth a write"),
        pytest.param(Work(False, last=ago(175)), -175, id="03 later by a quarter of pauseAfter"),
        pytest.param(AT_WORK, 0, id="04 at work"),
        pytest.param(Work(False, watched_since=ago(5)), -200, id="05 a new watch is no task"),
        pytest.param(UNKNOWN, -200, id="06 unknown"),
    ],
)
def test_the_time_of_the_last_task_moves_in_steps(work: Work, last_task: float) -> None:
    """At rest nothing is written; and what a crash forgets is less than a quarter of pauseAfter."""
    assert shown(case(200, work)) == IdleStatus(last_task_time=at(last_task))


def test_time_counts_from_when_the_agent_answers() -> None:
    starting = situation(wished(), known(500, served=False), seen(Sight.RUNNING, SILENT), work=FREE)
    assert shown(starting) == IdleStatus(last_task_time=at(-500))
    answers = situation(wished(), known(500, served=False), RUNNING, work=FREE)
    assert shown(answers) == IdleStatus(last_task_time=at(0))


def test_time_counts_from_when_idleness_was_first_asked_about() -> None:
    assert shown(situation(wished(), record(instance(served=True)), RUNNING, work=FREE)) == IdleStatus(
        last_task_time=at(0)
    )
    assert shown(situation(wish(), known(500), RUNNING)) is None, "and not at all without spec.idle"


def test_the_pause_keeps_the_exact_time() -> None:
    paused = idle.paused(known(200), Work(False, last=ago(190)), NOW)
    assert paused.idle == IdleStatus(last_task_time=at(-190), paused_time=at(0))
    asleep = situation(idle.asleep(wished()), paused, RUNNING)
    assert shown(asleep) == paused.idle


@pytest.mark.parametrize("goal", [Goal.PAUSED, Goal.STOPPED, Goal.DELETED])
def test_any_other_wish_ends_an_idle_pause(goal: Goal) -> None:
    """Who wishes Paused and then Running wants it to run."""
    paused = idle.paused(known(200), FREE, NOW)
    assert shown(situation(wished(goal=goal), paused, seen(Sight.HALTED))) == IdleStatus(last_task_time=at(-200))


def test_asleep_and_awake_are_each_others_way_back() -> None:
    """I-30: only the effective state changes, and who decided it."""
    asleep = idle.asleep(wished())
    assert (asleep.goal, asleep.effective_state) == (Goal.PAUSED, DesiredState.PAUSED)
    assert idle.is_asleep(asleep) and asleep.effective_reason is EffectiveReason.IDLE_TIMEOUT
    assert idle.awake(asleep) == wished()


# -- what is said ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sight", "reason"), [(Sight.HALTED, Reason.PAUSED), (Sight.FROZEN, Reason.FROZEN)])
def test_it_is_ready_as_anything_paused_and_says_what_wakes_it(sight: Sight, reason: Reason) -> None:
    paused = idle.paused(known(200), FREE, NOW)
    status = report(s := situation(idle.asleep(wished(freeze=True)), paused, seen(sight)), plan(s))
    ready = status.conditions[0]
    assert (status.phase, ready.status, ready.reason) == (Phase.PAUSED, "True", reason)
    assert (status.effective_state, status.effective_reason) == (DesiredState.PAUSED, EffectiveReason.IDLE_TIMEOUT)
    for words in (at(-200), "delegation", "spec.restartToken", "spec.idle"):
        assert words in ready.message
    later = situation(idle.asleep(wished(freeze=True)), status, seen(sight), now=NOW + AFTER)
    assert report(later, plan(later)) == status, "and nothing more is written"
    assert plan(later).wake_in is None


def test_a_user_pause_says_nothing_of_idleness() -> None:
    asked = situation(wished(goal=Goal.PAUSED), known(200), seen(Sight.HALTED, parameters=PARAMETERS.text))
    assert "idle" not in report(asked, plan(asked)).conditions[0].message
