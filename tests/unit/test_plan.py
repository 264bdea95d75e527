"""The plan, case by case: which step follows, and when it is looked at again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.kit import NOW, SERVES, at, failed, instance, record, seen, situation, wish

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Phase
from workspace_operator.api.workspace import CredentialsStatus
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.parameters import fingerprint
from workspace_operator.lifecycle.plan import RECHECK, Situation, plan
from workspace_operator.lifecycle.table import Step

NEW_TOKEN: dict[str, Any] = {"parameters": fingerprint({"image": "a"}, "now"), "restart_token": "now"}
NEW_TEMPLATE: dict[str, Any] = {"parameters": fingerprint({"image": "b"}, None)}
AWAY = Failure(FailureClass.BACKEND, Reason.BACKEND_UNREACHABLE, "The backend did not answer.")
BLOCKED = Failure(FailureClass.BAD_REQUEST, Reason.PARENT_NOT_FOUND, "Not started: the parent does not exist.")
STARTED, SECOND, UNSEEN = record(instance()), record(instance(2)), seen(Sight.UNKNOWN, problem=AWAY)
TOKEN = CredentialsStatus(secret_name="workspace-w", expires=at(3600))

CASES: list[tuple[str, Situation, Step, Phase]] = [
    ("01 new: the decision comes before the create", situation(), Step.INTEND, Phase.STARTING),
    ("02 decided: create", situation(None, record(instance())), Step.PROVISION, Phase.STARTING),
    ("03 booting: wait", situation(None, record(instance()), seen(Sight.STARTING)), Step.WAIT, Phase.STARTING),
    ("04 runs, agent silent", situation(None, record(instance()), seen(Sight.RUNNING)), Step.WAIT, Phase.STARTING),
    ("05 serves", situation(None, record(instance()), seen(Sight.RUNNING, SERVES)), Step.WAIT, Phase.RUNNING),
    (
        "06 silent long after it served: silence alone never restarts",
        situation(None, record(instance(since=at(-9999), served=True)), seen(Sight.RUNNING)),
        Step.WAIT,
        Phase.RUNNING,
    ),
    (
        "07 silent within its start budget: no restart",
        situation(None, record(instance(since=at(-299))), seen(Sight.RUNNING)),
        Step.WAIT,
        Phase.STARTING,
    ),
    (
        "08 silent past its start budget: given up",
        situation(None, record(instance(since=at(-300))), seen(Sight.RUNNING)),
        Step.FAIL,
        Phase.FAILED,
    ),
    (
        "09 given up: its compute is released, whatever it does",
        situation(None, record(instance(since=None), failures=failed()), seen(Sight.RUNNING)),
        Step.RELEASE,
        Phase.FAILED,
    ),
    (
        "10 seen alive although the call failed: adopted",
        situation(None, record(instance(), failures=failed()), seen(Sight.RUNNING, SERVES)),
        Step.WAIT,
        Phase.RUNNING,
    ),
    ("11 backend away", situation(None, STARTED, UNSEEN), Step.WAIT, Phase.UNKNOWN),
    (
        "12 backend away, to be paused",
        situation(wish(Goal.PAUSED), STARTED, UNSEEN),
        Step.WAIT,
        Phase.UNKNOWN,
    ),
    (
        "13 exited: counted, with a back-off",
        situation(None, record(instance(served=True)), seen(Sight.HALTED)),
        Step.FAIL,
        Phase.FAILED,
    ),
    ("14 vanished", situation(None, record(instance(served=True))), Step.FAIL, Phase.FAILED),
    ("15 backing off", situation(None, record(instance(since=None), failures=failed())), Step.WAIT, Phase.FAILED),
    (
        "16 backing off, but the spec was edited",
        situation(wish(generation=2), record(instance(since=None), failures=failed())),
        Step.INTEND,
        Phase.STARTING,
    ),
    (
        "17 a frozen one that cannot be thawed backs off",
        situation(None, record(instance(), failures=failed()), seen(Sight.FROZEN)),
        Step.WAIT,
        Phase.FAILED,
    ),
    (
        "18 blocked: not started",
        situation(wish(blocked=BLOCKED)),
        Step.WAIT,
        Phase.PENDING,
    ),
    (
        "19 blocked: what runs is left running",
        situation(wish(blocked=BLOCKED, **NEW_TOKEN), record(instance()), seen(Sight.RUNNING, SERVES)),
        Step.WAIT,
        Phase.RUNNING,
    ),
    (
        "20 new restart token",
        situation(wish(**NEW_TOKEN), record(instance()), seen(Sight.RUNNING, SERVES)),
        Step.INTEND,
        Phase.RESTARTING,
    ),
    (
        "21 changed template, OnRestart",
        situation(wish(**NEW_TEMPLATE), record(instance()), seen(Sight.RUNNING, SERVES)),
        Step.WAIT,
        Phase.RUNNING,
    ),
    (
        "22 changed template, Automatic",
        situation(wish(automatic_update=True, **NEW_TEMPLATE), record(instance()), seen(Sight.RUNNING, SERVES)),
        Step.INTEND,
        Phase.RESTARTING,
    ),
    ("23 an old one is still there", situation(None, SECOND, seen(Sight.OUTDATED)), Step.RESTART, Phase.RESTARTING),
    ("24 pause", situation(wish(Goal.PAUSED), record(instance()), seen(Sight.RUNNING)), Step.STOP, Phase.PAUSING),
    (
        "25 pausing within grace: wait",
        situation(wish(Goal.PAUSED), record(instance()), seen(Sight.HALTING, halting_since=NOW)),
        Step.WAIT,
        Phase.PAUSING,
    ),
    (
        "26 pausing past grace: again, which kills",
        situation(wish(Goal.PAUSED), STARTED, seen(Sight.HALTING, halting_since=NOW - timedelta(seconds=10))),
        Step.STOP,
        Phase.PAUSING,
    ),
    (
        "27 halted, token still valid",
        situation(wish(Goal.PAUSED), record(instance(), credentials=TOKEN), seen(Sight.HALTED)),
        Step.REVOKE,
        Phase.PAUSING,
    ),
    ("28 paused", situation(wish(Goal.PAUSED), record(instance()), seen(Sight.HALTED)), Step.WAIT, Phase.PAUSED),
    (
        "28 created and never started, where a pause keeps nothing",
        situation(wish(Goal.PAUSED, halts=False), record(instance()), seen(Sight.HALTED)),
        Step.RELEASE,
        Phase.PAUSING,
    ),
    ("29 stop: released", situation(wish(Goal.STOPPED), None, seen(Sight.HALTED)), Step.RELEASE, Phase.STOPPING),
    ("30 deleted, never created", situation(wish(Goal.DELETED)), Step.FINISH, Phase.DELETING),
    ("31 deleted, still seen", situation(wish(Goal.DELETED), None, seen(Sight.HALTED)), Step.RELEASE, Phase.DELETING),
    (
        "32 deleted with its data, seen gone",
        situation(wish(Goal.DELETED, delete_data=True), record(incarnation=1)),
        Step.DELETE_DATA,
        Phase.DELETING,
    ),
    (
        "33 deleted with its data, no backend to ask",
        situation(wish(Goal.DELETED, delete_data=True, backend=None, blocked=BLOCKED), record(incarnation=1)),
        Step.WAIT,
        Phase.DELETING,
    ),
    (
        "34 token renewal due",
        situation(
            wish(wants_credentials=True, renews_credentials=True),
            record(instance(), credentials=CredentialsStatus(secret_name="s", expires=at(1199))),
            seen(Sight.RUNNING, SERVES),
        ),
        Step.RENEW,
        Phase.RUNNING,
    ),
    (
        "35 resumed while it still halts: its end is waited for",
        situation(None, None, seen(Sight.HALTING, halting_since=NOW)),
        Step.WAIT,
        Phase.STARTING,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("case", "step", "phase"), [pytest.param(*row[1:], id=row[0]) for row in CASES])
def test_the_plan(case: Situation, step: Step, phase: Phase) -> None:
    """I-14 (08, 09), I-25 (07), I-26 (15, 17), I-40 (11, 12), I-41 (06), I-84 (21), I-17 (30), I-10 (30, 31)."""
    decision = plan(case)
    assert (decision.step, decision.phase) == (step, phase)
    assert decision.message.strip()


@pytest.mark.parametrize("case", [pytest.param(row[1], id=row[0]) for row in CASES])
def test_whatever_is_not_reached_has_a_time_to_be_looked_at_again(case: Situation) -> None:
    decision = plan(case)
    assert decision.row.reached or decision.wake_in is not None


def test_a_start_is_looked_at_again_when_its_budget_is_over() -> None:
    wake = plan(situation(None, record(instance(since=at(-290))), seen(Sight.STARTING))).wake_in
    assert wake == timedelta(seconds=10)


def test_a_back_off_is_waited_for_to_the_second() -> None:
    decision = plan(situation(None, record(instance(since=None), failures=failed(retry_in=17))))
    assert decision.wake_in == timedelta(seconds=17)


def test_what_may_still_be_applied_is_waited_for_to_the_second() -> None:
    """A pipeline sees progress until then, and a problem from then on."""
    new = wish(created=NOW - timedelta(seconds=7), blocked=BLOCKED)
    assert plan(situation(new)).wake_in == timedelta(seconds=3)
    old = wish(created=NOW - timedelta(seconds=11), blocked=BLOCKED)
    assert plan(situation(old)).wake_in == RECHECK


def test_an_edit_during_a_back_off_leads_to_one_decision_and_then_a_start() -> None:
    """I-26: without this, the decision was taken again and again until the back-off was over."""
    from workspace_operator.lifecycle.report import intend

    edited = situation(wish(generation=2), record(instance(since=None), failures=failed(5, retry_in=16)))
    decided = situation(edited.wish, intend(edited, "process", restart=False))
    assert plan(decided).step is Step.PROVISION


def test_a_reason_of_another_release_does_not_stop_the_pass() -> None:
    decision = plan(situation(None, record(instance(since=None), failures=failed(reason="FromTheFuture"))))
    assert decision.reason is Reason.INTERNAL_ERROR
    assert "The backend refused." in decision.message


def test_a_restart_that_cannot_get_its_token_backs_off() -> None:
    """The restart of an instance that still boots; otherwise eight token requests per pass, without end."""
    case = situation(wish(**NEW_TOKEN), record(instance(), failures=failed()), seen(Sight.STARTING))
    assert plan(case).step is Step.WAIT


def test_a_backend_may_say_more_precisely_what_is_waited_for() -> None:
    """I-28, I-32: of a state that the table names, and not in place of what the table decides."""
    told = {"why": Reason.UNSCHEDULABLE, "message": "No node can take it."}
    waits = plan(situation(None, record(instance()), seen(Sight.STARTING, **told)))
    assert (waits.reason, waits.message) == (Reason.UNSCHEDULABLE, "No node can take it.")
    overdue = plan(situation(None, record(instance(since=at(-300))), seen(Sight.STARTING, **told)))
    assert overdue.reason is Reason.PROVISION_TIMEOUT
    serves = plan(situation(None, record(instance()), seen(Sight.RUNNING, SERVES, **told)))
    assert serves.reason is Reason.RUNNING
