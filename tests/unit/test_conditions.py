"""Conditions, case by case."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.kit import NOW, SERVES, SILENT, at, failed, instance, record, seen, situation, wish

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle.facts import Goal, Serving, Sight
from workspace_operator.lifecycle.plan import Situation, plan
from workspace_operator.lifecycle.report import report

AWAY = Failure(FailureClass.BACKEND, Reason.BACKEND_UNREACHABLE, "The backend did not answer.")
NO_CLASS = Failure(FailureClass.BAD_REQUEST, Reason.CLASS_NOT_FOUND, "WorkspaceClass 'c' does not exist; create it.")
NO_PARENT = Failure(FailureClass.BAD_REQUEST, Reason.PARENT_NOT_FOUND, "The parent does not exist.")
TOO_LARGE = Failure(FailureClass.BAD_REQUEST, Reason.RESOURCES_EXCEED_CLASS, "Lower it.")
NO_SECRET = Failure(FailureClass.BAD_REQUEST, Reason.REFERENCE_NOT_FOUND, "Secret 's' does not exist; create it.")
WEDGED = Serving(False, Reason.AGENT_WEDGED, "The loop hangs.")
SERVED = record(instance(served=True))
RUNNING, UNKNOWN = seen(Sight.RUNNING, SERVES), seen(Sight.UNKNOWN, problem=AWAY)


def shown(case: Situation) -> dict[str, str]:
    return {c.type: f"{c.status} {c.reason}" for c in report(case, plan(case)).conditions}


CASES: list[tuple[str, Situation, dict[str, Any]]] = [
    ("01 running and serving", situation(None, SERVED, RUNNING), {
        "Ready": "True Running", "Available": "True Serving", "BackendReachable": "True BackendReachable",
        "Reconciling": None, "Stalled": None, "StopConfirmed": None, "Deleting": None}),
    ("02 starting", situation(None, record(instance()), seen(Sight.STARTING)), {
        "Ready": "Unknown Provisioning", "Available": "Unknown Provisioning", "Reconciling": "True Provisioning"}),
    ("03 served and fell silent", situation(None, SERVED, seen(Sight.RUNNING, SILENT)), {
        "Ready": "False AgentNotAnswering", "Available": "False AgentNotAnswering",
        "Stalled": "True AgentNotAnswering", "Reconciling": None}),
    ("04 wedged by its own word", situation(None, SERVED, seen(Sight.RUNNING, WEDGED)), {
        "Available": "False AgentWedged", "Stalled": "True AgentWedged"}),
    ("05 paused is ready, and not available", situation(wish(Goal.PAUSED), SERVED, seen(Sight.HALTED)), {
        "Ready": "True Paused", "Available": "False NotRunning", "StopConfirmed": "True ComputeStopped",
        "Reconciling": None, "Stalled": None}),
    ("06 stopped is ready", situation(wish(Goal.STOPPED)), {
        "Ready": "True Stopped", "StopConfirmed": "True ComputeStopped"}),
    ("07 pausing: not confirmed yet", situation(wish(Goal.PAUSED), SERVED, seen(Sight.HALTING, halting_since=NOW)), {
        "Ready": "Unknown Pausing", "StopConfirmed": "Unknown ComputeSeen", "Reconciling": "True Pausing"}),
    ("08 pausing, backend away: not claimed", situation(wish(Goal.PAUSED), SERVED, UNKNOWN), {
        "Ready": "Unknown BackendUnreachable", "StopConfirmed": "False StopUnconfirmed",
        "BackendReachable": "False BackendUnreachable"}),
    ("09 running, backend away: nothing is said of the instance", situation(None, SERVED, UNKNOWN), {
        "Ready": "Unknown BackendUnreachable", "Available": "Unknown BackendUnreachable",
        "BackendReachable": "False BackendUnreachable"}),
    ("10 no class, nothing to stop", situation(wish(Goal.STOPPED, backend=None, blocked=NO_CLASS)), {
        "Ready": "True Stopped", "BackendReachable": "Unknown ClassNotFound"}),
    ("11 no class, to be started", situation(wish(backend=None, blocked=NO_CLASS)), {
        "Ready": "False ClassNotFound", "Stalled": "True ClassNotFound", "Reconciling": None}),
    ("12 backing off", situation(None, record(instance(since=None), failures=failed())), {
        "Ready": "False ProvisionFailed", "Reconciling": "True ProvisionFailed", "Stalled": None}),
    ("13 failed again and again", situation(None, record(instance(since=None), failures=failed(5))), {
        "Reconciling": None, "Stalled": "True ProvisionFailed"}),
    ("14 failed for the user's reason", situation(None, record(failures=failed(1, 5, **{"class": "BadRequest"}))), {
        "Reconciling": None, "Stalled": "True ProvisionFailed"}),
    ("15 a Secret is missing", situation(wish(has_references=True, blocked=NO_SECRET)), {
        "SecretsResolved": "False ReferenceNotFound", "Ready": "False ReferenceNotFound"}),
    ("16 every reference was found", situation(wish(has_references=True), SERVED, RUNNING), {
        "SecretsResolved": "True Resolved"}),
    ("17 frozen, as the class asks", situation(wish(Goal.PAUSED, freeze=True), SERVED, seen(Sight.FROZEN)), {
        "Ready": "True Frozen", "StopConfirmed": "True ComputeStopped"}),
    ("18 being deleted", situation(wish(Goal.DELETED), SERVED, seen(Sight.RUNNING)), {
        "Deleting": "True Releasing", "Ready": "Unknown Releasing", "StopConfirmed": "Unknown ComputeSeen"}),
    ("19 running, and its class is gone", situation(
        wish(backend=None, blocked=NO_CLASS), SERVED, seen(Sight.UNKNOWN, problem=NO_CLASS)), {
        "Ready": "Unknown ClassNotFound", "Stalled": "True ClassNotFound", "Reconciling": None}),
    ("20 new, and its parent may be the next to be applied", situation(
        wish(created=NOW - timedelta(seconds=9), blocked=NO_PARENT)), {
        "Ready": "Unknown ParentNotFound", "Stalled": None, "Reconciling": "True ParentNotFound"}),
    ("21 its parent did not come", situation(wish(created=NOW - timedelta(seconds=10), blocked=NO_PARENT)), {
        "Ready": "False ParentNotFound", "Stalled": "True ParentNotFound", "Reconciling": None}),
    ("22 new, and wrong by itself", situation(wish(created=NOW, blocked=TOO_LARGE)), {
        "Ready": "False ResourcesExceedClass", "Stalled": "True ResourcesExceedClass", "Reconciling": None}),
    ("23 new, stopped, and no class", situation(wish(Goal.STOPPED, created=NOW, backend=None, blocked=NO_CLASS)), {
        "Ready": "True Stopped", "Stalled": None, "Reconciling": None}),
    ("24 made by a clock that is far ahead", situation(wish(created=NOW + timedelta(hours=1), blocked=NO_PARENT)), {
        "Ready": "False ParentNotFound", "Stalled": "True ParentNotFound"}),
]  # fmt: skip


@pytest.mark.parametrize(("case", "expected"), [pytest.param(*row[1:], id=row[0]) for row in CASES])
def test_conditions(case: Situation, expected: dict[str, str | None]) -> None:
    """I-42 (04), I-89 (05, 06), I-04 (07, 08), I-23 (07), I-40 (09), I-54 (15)."""
    actual = shown(case)
    assert {kind: actual.get(kind) for kind in expected} == expected


@pytest.mark.parametrize("case", [pytest.param(row[1], id=row[0]) for row in CASES])
def test_never_working_and_stalled_at_once_and_every_message_says_something(case: Situation) -> None:
    conditions = report(case, plan(case)).conditions
    kinds = [c.type for c in conditions]
    assert not {"Reconciling", "Stalled"} <= set(kinds)
    assert len(kinds) == len(set(kinds))
    assert all(c.message.strip() for c in conditions)


def test_conditions_are_taken_back() -> None:
    """I-31: nothing of an earlier state is left after a resume."""
    failing = situation(None, record(instance(since=None), failures=failed(9)))
    before = report(failing, plan(failing))
    healed = Situation(wish(), before.model_copy(update={"instance": SERVED.instance}), RUNNING, NOW)
    after = shown(healed)
    assert "Stalled" not in after and after["Ready"] == "True Running"


def test_each_condition_carries_the_generation_it_speaks_of() -> None:
    """I-32."""
    old = situation(wish(generation=3), SERVED, RUNNING)
    first = report(old, plan(old))
    new = Situation(wish(generation=4), first, RUNNING, NOW)
    assert {c.observed_generation for c in first.conditions} == {3}
    assert {c.observed_generation for c in report(new, plan(new)).conditions} == {4}


def test_last_transition_time_moves_only_when_the_status_flips() -> None:
    """I-31."""
    first = report(situation(None, SERVED, RUNNING), plan(situation(None, SERVED, RUNNING)))
    later = NOW + timedelta(seconds=60)
    for sight, moved in ((RUNNING, False), (seen(Sight.RUNNING, SILENT), True)):
        case = Situation(wish(), first, sight, later)
        ready = report(case, plan(case)).conditions[0]
        assert (ready.last_transition_time == at(60)) is moved
