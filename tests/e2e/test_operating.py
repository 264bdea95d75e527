"""What a person at 3 a.m. has: metrics, probes, and logs that name what they speak of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fleet import Fleet, until, workspace
from tests.support.operator import Operator

pytestmark = pytest.mark.cluster

METRICS = (
    "workspace_operator_build_info",
    "workspace_operator_leader",
    "workspace_operator_workspaces",
    "workspace_operator_pass_seconds_bucket",
    "workspace_operator_queue_delay_seconds_bucket",
    "workspace_operator_queue_depth",
    "workspace_operator_verb_seconds_bucket",
    "workspace_operator_verbs_total",
    "workspace_operator_wish_to_effect_seconds_bucket",
    "workspace_operator_kube_requests_total",
    "workspace_operator_kube_request_seconds_bucket",
    "workspace_operator_loop_age_seconds",
    "workspace_operator_sweep_completed_timestamp_seconds",
    "workspace_operator_orphans",
    "workspace_operator_orphan_oldest_seconds",
    "workspace_operator_sweep_bound_seconds",
    "workspace_operator_class_ready",
    "workspace_operator_loop_overdue_after_seconds",
    "workspace_operator_queue_oldest_seconds",
    "workspace_operator_pass_longest_running_seconds",
)


@pytest.fixture
def json_operator(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[Operator]:
    """An operator that logs JSON."""
    command = ("run", "--log-format", "json")
    with Operator(operator_kubeconfig, tmp_path, command=command) as running:
        yield running


def test_probes_metrics_and_logs(json_operator: Operator, fleet: Fleet, process_class: str) -> None:
    """Every loop has an age (I-44, I-46); the running version is told (I-85); logs name namespace, name and class."""
    operator = json_operator
    fleet.apply(workspace("watched", className=process_class, image="sleep"), workspace("bad", className="nowhere"))
    fleet.wait_ready("watched")
    fleet.wait_reason("bad", "ClassNotFound")
    fleet.desire("watched", "Paused")
    fleet.wait_phase("watched", "Paused")
    paused = {"class": process_class, "phase": "Paused"}
    until(lambda: operator.metric("workspace_operator_workspaces", **paused) == 1)  # counted every other second
    until(lambda: operator.metric("workspace_operator_sweep_completed_timestamp_seconds") > 0)
    assert operator.get("/healthz") == (200, "ok\n")
    assert operator.get("/readyz") == (200, "ok\n")
    text = operator.get("/metrics")[1]
    assert [name for name in METRICS if not re.search(rf"^{name}[{{ ]", text, re.MULTILINE)] == []
    assert operator.metric("workspace_operator_leader") == 1
    assert 'version="' in next(line for line in text.splitlines() if line.startswith("workspace_operator_build_info{"))
    labels = {"backend": "process", "verb": "provision", "outcome": "ok"}
    assert operator.metric("workspace_operator_verbs_total", **labels) == 1
    for operation in ("issue", "revoke"):
        done = {"operation": operation, "outcome": "ok"}
        assert operator.metric("workspace_operator_identity_operations_total", **done) >= 1
    loops = set(re.findall(r'workspace_operator_loop_age_seconds\{loop="([^"]+)"\}', text))
    expected = {f"sweep/{process_class}", "resync", "events", f"list/{process_class}", f"watch/{process_class}"}
    assert loops >= expected | {"event/workspaces", "event/workspaceclasses", "event/leases"}
    assert fleet.namespace not in text, "no label of unbounded cardinality"

    records = [json.loads(line) for line in operator.log.read_text().splitlines()]
    told = [r for r in records if "→" in r["message"] and r.get("workspace_name") == "watched"]
    assert told
    for record in told:
        assert {"time", "level", "logger"} <= set(record)
        assert (record["namespace"], record["class"]) == (fleet.namespace, process_class)
