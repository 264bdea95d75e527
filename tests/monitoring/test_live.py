"""A real Prometheus beside a running operator, and the runbook's commands as a person would type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.monitoring import dashboard
from tests.monitoring.rules import ALERTS, ALERTS_FILE, FOLDER
from tests.support.fleet import Fleet, until, workspace
from tests.support.operator import Operator

from controlplane import binaries
from controlplane.cluster import LocalCluster
from controlplane.processes import free_port, spawn, tail

pytestmark = pytest.mark.cluster


class Prometheus:
    """Speaks Prometheus' HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer; None when there is none yet."""
        try:
            with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}") as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:  # it is still starting
                    return None
                raise AssertionError(f"{query}: {error.read().decode()}") from None
        except OSError:
            return None

    def query(self, expression: str) -> list[Any]:
        found = self.ask("query", query=expression)
        return list(found["result"]) if found else []


@pytest.fixture
def prometheus(prometheus_binaries: dict[str, Path], operator: Operator, tmp_path: Path) -> Iterator[Prometheus]:
    """It scrapes the operator and evaluates the rules every second."""
    target = {"targets": [operator.address.removeprefix("http://")], "labels": {"namespace": "here"}}
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS_FILE)],
        "scrape_configs": [{"job_name": "workspace-operator", "static_configs": [target]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address, log = f"127.0.0.1:{free_port()}", tmp_path / "prometheus.log"
    command = [
        *(str(prometheus_binaries["prometheus"]), f"--config.file={tmp_path / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={address}"),
    ]
    process = spawn(command, log, die_with_parent=True)
    try:
        made = Prometheus(f"http://{address}")
        until(lambda: made.query("workspace_operator_leader == 1"), 60, lambda: tail(log))
        yield made
    finally:
        process.end(grace=5)


#: Panels that show nothing while nothing is wrong, nothing was removed and nothing was delegated.
SILENT = {
    *("Not well", "Failed passes", "Failed calls", "Failed rounds of loops"),
    *("Removed", "Spared", "Time from sight to gone"),
    *("Ended", "From creation to the end", "Requests to agents", "Duration of requests to agents"),
}


def _empty_panels(prometheus: Prometheus) -> set[str]:
    """Titles of the panels of which no line has a value; raises for an expression that Prometheus refuses."""
    return {
        panel.title
        for panels in dashboard.ROWS.values()
        for panel in panels
        if not sum(len(prometheus.query(_filled(expression))) for _, expression in panel.lines)
    }


def _filled(expression: str) -> str:
    """An expression as Grafana asks it."""
    shown = dashboard.expand(expression).replace("$__rate_interval", "1m")
    return shown.replace("$namespace", "here").replace("$class", ".*")


def test_on_a_healthy_fleet_every_panel_answers_and_no_alert_is_even_pending(
    prometheus: Prometheus, fleet: Fleet, process_class: str
) -> None:
    """What the linter says of names holds for what a running operator exports."""
    fleet.apply(workspace("well", className=process_class, image="sleep"))
    fleet.wait_ready("well")
    running = f'workspace_operator_workspaces{{class="{process_class}", phase="Running"}} >= 1'
    until(lambda: prometheus.query(running), 60)
    until(lambda: prometheus.query("workspace_operator_sweep_completed_timestamp_seconds"), 60)
    until(lambda: _empty_panels(prometheus) <= SILENT, 60, lambda: str(_empty_panels(prometheus) - SILENT))

    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(ALERTS)
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []
    until(lambda: prometheus.ask("alerts")["alerts"] == [], 120, lambda: str(prometheus.ask("alerts")))


COMMANDS = sorted(
    {
        line
        for block in re.findall(r"```bash\n(.*?)```", (FOLDER / "RUNBOOK.md").read_text(), re.DOTALL)
        for line in block.splitlines()
    }
)


def test_every_command_of_the_runbook_works(
    cluster: LocalCluster, operator: Operator, fleet: Fleet, process_class: str
) -> None:
    fleet.apply(workspace("seen", className=process_class, image="sleep"))
    fleet.wait_ready("seen")
    until(lambda: operator.metric("workspace_operator_sweep_completed_timestamp_seconds") > 0)
    environment = {
        **os.environ,
        "PATH": f"{binaries.find_kubectl().parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(cluster.kubeconfig),
        "CLASS": process_class,
        "METRICS": operator.address,
    }
    failed = []
    for command in COMMANDS:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], env=environment, capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            failed.append(f"{command}: {done.stderr}")
    assert failed == []


def test_the_kustomization_has_every_object(cluster: LocalCluster) -> None:
    objects = list(yaml.safe_load_all(cluster.kubectl("kustomize", str(FOLDER))))
    assert sorted(found["kind"] for found in objects) == ["ConfigMap", "PrometheusRule", "ServiceMonitor"]
    assert {found["metadata"]["namespace"] for found in objects} == {"workspace-operator-system"}
