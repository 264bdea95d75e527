"""Argo CD and Flux see the same in every state, and what a person should be told: by the code that they run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.gitops import customizations, states, table
from tests.gitops.judge import Judge, Verdict
from tests.gitops.states import State
from tests.model import test_table as workspace_table
from tests.model.delegations import test_table as delegation_table
from tests.support.fleet import Object

from controlplane import binaries
from workspace_operator.api.states import TERMINAL
from workspace_operator.lifecycle import plan, report
from workspace_operator.lifecycle.delegation import facts as task
from workspace_operator.lifecycle.delegation import plan as task_plan
from workspace_operator.lifecycle.delegation import report as task_report
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.reconcile.statuswrite import wire

pytestmark = pytest.mark.timeout(1800)  # the first run of a machine builds the program

SAME = {"Healthy": {"Current"}, "Progressing": {"InProgress", "Terminating"}, "Degraded": {"Failed"}}
STEP = 13  # of the situations, and prime to the number of each of their parts
EVERY = states.every()


@pytest.fixture(scope="session")
def verdicts(judge: Judge) -> list[Verdict]:
    """On each of the named states."""
    return judge([state.object for state in EVERY])


def test_both_say_of_each_state_what_a_person_should_be_told(verdicts: list[Verdict]) -> None:
    """I-89."""
    wrong = [
        f"{state.kind}, {state.name}: {verdict.argo} and {verdict.kstatus} instead of {state.expected}"
        for state, verdict in zip(EVERY, verdicts, strict=True)
        if verdict.argo != state.expected or verdict.kstatus not in SAME[state.expected] or not verdict.message
    ]
    assert not wrong


def test_the_committed_files_are_current(verdicts: list[Verdict]) -> None:
    assert customizations.CONFIG_MAP.read_text() == customizations.render(), "run `make generate`"
    filled = table.filled(table.render(EVERY, verdicts))
    assert table.README.read_text() == filled, "run `make generate`"


def essence(status: Object) -> tuple[Any, ...]:
    """What a verdict may depend on."""
    return status.get("phase"), *((c["type"], c["status"], c["reason"]) for c in status["conditions"])


def reported_of_workspaces() -> list[State]:
    """Each different status that the table can lead to, over all that its guards look at."""
    found: dict[str, State] = {}
    for goal, sight in product(Goal, Sight):
        for case in workspace_table.situations(goal, sight)[::STEP]:
            decision = plan.plan(case)
            status = wire(report.report(case, decision))
            reached = decision.row.reached and (goal is not Goal.RUNNING or case.seen.serving.answers is True)
            name, deleted = f"{goal}, {essence(status)}", goal is Goal.DELETED
            expected = "Healthy" if reached else ""
            found[name] = State("Workspace", name, expected, status, {}, deleted, case.wish.generation)
    return list(found.values())


def reported_of_delegations() -> list[State]:
    """The same for delegations; one that is over shows what was written at its end."""
    found: dict[str, State] = {}
    for goal, sight in product(set(task.Goal) - {task.Goal.CLOSE}, task.Sight):
        for case in delegation_table.situations(goal, sight):
            decision = task_plan.plan(case)
            over = decision.phase in TERMINAL
            status = wire(task_report.finish(case, decision, None) if over else task_report.report(case, decision))
            expected = {"Completed": "Healthy", "Failed": "Degraded"}.get(decision.phase, "")
            name = f"{goal}, {essence(status)}"
            found[name] = State("Delegation", name, expected, status)
    return list(found.values())


@pytest.mark.parametrize("reported", [reported_of_workspaces, reported_of_delegations])
def test_they_agree_on_everything_that_the_tables_can_report(judge: Judge, reported: Callable[[], list[State]]) -> None:
    """I-89: Healthy is exactly what is reached and serves, and no status is both or neither."""
    found = reported()
    assert len(found) > 50
    judged = judge([state.object for state in found])
    for state, verdict in zip(found, judged, strict=True):
        assert verdict.kstatus in SAME[verdict.argo], (state.name, verdict)
        assert verdict.message
        kinds = {c["type"]: c["status"] for c in state.status["conditions"]}
        assert not {"Reconciling", "Stalled"} <= set(kinds), state.name
        if not state.deleted:
            assert (verdict.argo == "Degraded") == (kinds.get("Stalled") == "True"), (state.name, verdict)
            if state.kind == "Workspace":
                assert (verdict.argo == "Healthy") == (kinds["Ready"] == "True") == bool(state.expected), state.name
            elif state.expected:
                assert verdict.argo == state.expected, (state.name, verdict)


@pytest.mark.parametrize("kind", ["Workspace", "WorkspaceClass", "Delegation"])
def test_objects_that_nobody_foresaw_are_progressing(judge: Judge, kind: str) -> None:
    """No script may fail: Argo CD would show Unknown, which fails a sync."""
    odd: list[Object] = [{}, {"conditions": []}, {"observedGeneration": 1}, {"observedGeneration": 1, "conditions": []}]
    odd.append({"observedGeneration": 1, "conditions": [{"type": "Other", "status": "True"}]})
    judged = judge([State(kind, "odd", "", status).object for status in odd])
    assert {verdict.argo for verdict in judged} == {"Progressing"}


def offered(verdict: Verdict) -> set[str]:
    return {name for name, action in verdict.actions.items() if not action["disabled"]}


def test_actions_are_offered_by_what_is_declared(verdicts: list[Verdict]) -> None:
    of = {(state.kind, state.name): offered(verdict) for state, verdict in zip(EVERY, verdicts, strict=True)}
    assert of["Workspace", "running and serving"] == {"pause", "stop", "restart"}
    assert of["Workspace", "paused"] == {"resume", "stop"}
    assert of["Workspace", "stopped"] == {"pause", "resume"}
    assert of["Workspace", "paused because it was idle"] == {"pause", "stop", "restart"}, "restart wakes it"
    assert of["Workspace", "deleted, compute still seen"] == set()
    assert of["Delegation", "working"] == {"cancel", "hold"}
    assert of["Delegation", "held"] == {"cancel", "release"}
    assert of["Delegation", "being cancelled"] == of["Delegation", "completed"] == set()
    assert all(not actions for (kind, _), actions in of.items() if kind == "WorkspaceClass")


def without_empties(value: Any) -> Any:
    """Lua does not know an empty list from an empty map; Argo CD puts back what was there."""
    if isinstance(value, dict):
        return {key: without_empties(item) for key, item in value.items() if item not in ({}, [])}
    return [without_empties(item) for item in value] if isinstance(value, list) else value


def test_an_action_changes_the_one_field_that_it_is_about(verdicts: list[Verdict]) -> None:
    """I-30: people and pipelines write spec, and nothing else of the object is touched."""
    wished = {"pause": "Paused", "resume": "Running", "stop": "Stopped"}
    wished |= {"hold": "Paused", "release": "Running", "cancel": "Stopped"}
    for state, verdict in zip(EVERY, verdicts, strict=True):
        for name, action in verdict.actions.items():
            spec = dict(action["after"]["spec"])
            if name == "restart":
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", spec.pop("restartToken"))
            expected = {**state.object["spec"], **({"desiredState": wished[name]} if name in wished else {})}
            before = without_empties({**state.object, "spec": expected})
            assert without_empties({**action["after"], "spec": spec}) == before


def test_the_component_merges_into_argo_cds_own_config_map(tmp_path: Path) -> None:
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": "argocd"}}
    (tmp_path / "cm.yaml").write_text(yaml.safe_dump({**own, "data": {"url": "https://argocd.example"}}))
    component = os.path.relpath(customizations.ARGOCD, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["cm.yaml"], "components": [component]}))
    kubectl = binaries.ensure().kubectl
    built = subprocess.run([kubectl, "kustomize", tmp_path], capture_output=True, text=True, check=True).stdout
    data = yaml.safe_load(built)["data"]
    assert data == {"url": "https://argocd.example", **yaml.safe_load(customizations.CONFIG_MAP.read_text())["data"]}
