"""Each alert fires when it should and then alone, and not just below its threshold; promtool evaluates the rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.monitoring.conftest import Promtool
from tests.monitoring.rules import ALERTS, ALERTS_FILE

Series = dict[str, str]  # series → values in promtool's notation, one each minute

_AT = 'job="workspace-operator", namespace="s", instance="a"'
_B = 'job="workspace-operator", namespace="s", instance="b"'


def _own(name: str, labels: str = "", where: str = _AT) -> str:
    return f"workspace_operator_{name}{{{', '.join(part for part in (labels, where) if part)}}}"


_BUILD, _LEADER, _UP = _own("build_info", 'version="1"'), _own("leader"), f"up{{{_AT}}}"
HEALTHY: Series = {_BUILD: "1x120", _LEADER: "1x120", _UP: "1x120"}
_OK, _ERROR = 'resource="workspace", outcome="ok"', 'resource="workspace", outcome="error"'
_VERB = 'backend="docker", verb="stop", outcome="{}"'
_API = 'verb="GET", resource="workspaces", code="{}"'
_SWEEP_BOUND = _own("sweep_bound_seconds", 'class="c"')
_ORPHAN = _own("orphan_oldest_seconds", 'class="c", kind="NoWorkspace"')


def _loop(name: str, limit: int) -> tuple[str, Series]:
    return _own("loop_age_seconds", f'loop="{name}"'), {
        _own("loop_overdue_after_seconds", f'loop="{name}"'): f"{limit}x120"
    }


def _ratio(name: str, good: str, bad: str, number: int) -> Series:
    """A hundred per minute, of which so many are bad."""
    return {_own(name, good): f"0+{100 - number}x120", _own(name, bad): f"0+{number}x120"}


@dataclass(frozen=True)
class Case:
    """When an alert fires, and when it just does not. What is not named is healthy."""

    alert: str
    fires: Series
    quiet: Series
    after: int = 60  # minutes


def _threshold(alert: str, series: str, fires: float, quiet: float, more: Series | None = None) -> Case:
    return Case(alert, {**(more or {}), series: f"{fires}x120"}, {**(more or {}), series: f"{quiet}x120"})


_RESYNC, _RESYNC_LIMIT = _loop("resync", 900)
_SWEEP, _SWEEP_LIMIT = _loop("sweep/c", 600)
_LIST, _LIST_LIMIT = _loop("list/c", 210)
_OTHER = f"workspace_operator_leader{{{_B}}}"
_START = f"process_start_time_seconds{{{_AT}}}"
_TOKENS = _own("identity_operations_total", 'operation="renew", outcome="error"')
_DEPTH = _own("queue_depth", 'queue="workspace"')

CASES = [
    Case("WorkspaceOperatorAbsent", {_BUILD: "1x20 stale", _LEADER: "1x20 stale", _UP: "_x120"}, {_BUILD: "1x120"}, 40),
    _threshold("WorkspaceOperatorReplicaDown", _UP, 0, 1),
    Case("WorkspaceOperatorRestarting", {_START: "0x40 5x5 9x5 12x60"}, {_START: "0x40 5x5 9x65"}),
    _threshold("WorkspaceOperatorNoLeader", _LEADER, 0, 1, {_OTHER: "0x120"}),
    _threshold("WorkspaceOperatorManyLeaders", _OTHER, 1, 0),
    _threshold("WorkspaceOperatorLoopOverdue", _RESYNC, 901, 899, _RESYNC_LIMIT),
    _threshold("WorkspaceOperatorPassStuck", _own("pass_longest_running_seconds", 'queue="workspace"'), 301, 299),
    Case(
        "WorkspaceOperatorPassesFailing",
        _ratio("pass_seconds_count", _OK, _ERROR, 6),
        _ratio("pass_seconds_count", _OK, _ERROR, 4),
    ),
    Case("WorkspaceOperatorQueueBacklog", {_DEPTH: "33x120"}, {_DEPTH: "900x50 10 900x60"}),
    _threshold("WorkspaceOperatorQueueSlow", _own("queue_oldest_seconds", 'queue="workspace"'), 121, 119),
    Case(
        "WorkspaceOperatorAPIErrors",
        _ratio("kube_requests_total", _API.format("200"), _API.format("503"), 6),
        {
            **_ratio("kube_requests_total", _API.format("200"), _API.format("none"), 4),
            _own("kube_requests_total", _API.format("409")): "0+50x120",
        },
    ),
    Case(
        "WorkspaceOperatorAPIRefused",
        {
            _own("kube_requests_total", _API.format("403")): "0+1x120",
            _own("kube_requests_total", 'verb="POST", resource="events", code="403"'): "0+9x120",
        },
        {_own("kube_requests_total", 'verb="POST", resource="events", code="403"'): "0+9x120"},
    ),
    _threshold("WorkspaceLeak", _ORPHAN, 661, 659, {_SWEEP_BOUND: "360x120"}),
    _threshold("WorkspaceSweepOverdue", _SWEEP, 601, 599, _SWEEP_LIMIT),
    Case(
        "WorkspaceSweepFuseBlown",
        {_own("sweep_fuse_blown", 'class="c"'): "1x120", _ORPHAN: "9000x120", _SWEEP_BOUND: "360x120"},
        {_own("sweep_fuse_blown", 'class="c"'): "0x120"},
    ),
    _threshold("WorkspaceBackendUnreachable", _LIST, 211, 209, _LIST_LIMIT),
    Case(
        "WorkspaceBackendErrors",
        _ratio("verbs_total", _VERB.format("ok"), _VERB.format("error"), 11),
        _ratio("verbs_total", _VERB.format("ok"), _VERB.format("timeout"), 9),
    ),
    _threshold("WorkspaceClassNotReady", _own("class_ready", 'class="c"'), 0, 1),
    Case(
        "WorkspacesFailed",
        {_own("workspaces", 'class="c", phase="Failed"'): "2x120"},
        {
            _own("workspaces", 'class="c", phase="Failed"'): "2x50 0 1x60",
            _own("workspaces", 'phase="Running"'): "9x120",
        },
    ),
    Case(
        "WorkspacesUnknown",
        {_own("workspaces", 'class="c", phase="Unknown"'): "2x120"},
        {_own("workspaces", 'class="c", phase="Unknown"'): "2x54 0 1x60"},
    ),
    Case("WorkspaceTokensFailing", {_TOKENS: "0+2x120"}, {_TOKENS: "0x30 1x90"}),
    _threshold("DelegationsWaiting", _own("delegation_oldest_queued_seconds"), 10801, 10799),
    Case(
        "DelegationsStuck",
        {_own("delegations", 'phase="Stuck"'): "1x120"},
        {_own("delegations", 'phase="Stuck"'): "0x40 1x80"},
    ),
    Case(
        "DelegationsFailing",
        _ratio("delegations_ended_total", 'phase="Completed"', 'phase="Failed"', 11),
        _ratio("delegations_ended_total", 'phase="Completed"', 'phase="Failed"', 9),
    ),
]


def test_every_alert_has_a_case() -> None:
    assert [case.alert for case in CASES] == list(ALERTS)


def _test(series: Series, after: int, firing: list[str]) -> dict[str, object]:
    present = {**HEALTHY, **series}
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in present.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{after}m",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing],
            }
        ],
    }


@pytest.mark.parametrize("case", CASES, ids=[case.alert for case in CASES])
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "quiet"])
def test_an_alert_fires_alone_and_only_beyond_its_threshold(
    promtool: Promtool, tmp_path: Path, case: Case, fires: bool
) -> None:
    series = case.fires if fires else case.quiet
    tests = [_test(series, case.after, [case.alert] if fires else [])]
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS_FILE)], "evaluation_interval": "1m", "tests": tests}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
