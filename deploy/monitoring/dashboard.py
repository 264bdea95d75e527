"""The Grafana dashboard: a table of rows and panels, and the little JSON around it.

``W_`` stands for ``workspace_operator_``, ``[R]`` for Grafana's rate interval; ``{C}`` selects namespace and class,
``{N`` the namespace alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_NAMESPACE = 'namespace=~"$namespace"'
_CLASS = f'{_NAMESPACE}, class=~"$class"'
_WIDTH, _HEIGHT = 8, 8  # three panels in each line of Grafana's 24 columns
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One graph: an expression for each line that its legend names. ``unit`` is one of Grafana's."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]  # legend, expression


def _panel(title: str, unit: str, *lines: tuple[str, str]) -> Panel:
    return Panel(title, unit, lines)


def _labels(by: str) -> str:
    return " ".join("{{" + label + "}}" for label in by.split(", "))


def _failures(counter: str, by: str) -> tuple[str, str]:
    """What went wrong per second. A pass that another writer overtook did not."""
    return _labels(by), f'sum by ({by}) (rate({counter}{{N, outcome!~"ok|overtaken"}}[R]))'


def _quantiles(histogram: str, by: str) -> tuple[tuple[str, str], ...]:
    """Median and tail of a histogram."""
    return tuple(
        (
            f"p{round(share * 100)} {_labels(by)}",
            f"histogram_quantile({share}, sum by (le, {by}) (rate({histogram}_bucket{{N}}[R])))",
        )
        for share in (0.5, 0.99)
    )


ROWS: dict[str, tuple[Panel, ...]] = {
    "Fleet": (
        _panel("Workspaces by phase", "short", ("{{phase}}", "sum by (phase) (W_workspaces{C})")),
        _panel("Workspaces by class", "short", ("{{class}}", "sum by (class) (W_workspaces{C})")),
        _panel("Not well", "short", ("{{class}} {{phase}}", 'W_workspaces{C, phase=~"Failed|Unknown|Pending"} > 0')),
        _panel("Wish to effect", "s", *_quantiles("W_wish_to_effect_seconds", "goal")),
        _panel("Classes that are usable", "short", ("{{class}}", "W_class_ready{C}")),
        _panel("Leader", "short", ("{{instance}}", "W_leader{N}"), ("version {{version}}", "W_build_info{N}")),
    ),
    "Passes and queues": (
        _panel("Passes", "ops", ("{{resource}}", "sum by (resource) (rate(W_pass_seconds_count{N}[R]))")),
        _panel("Duration of passes", "s", *_quantiles("W_pass_seconds", "resource")),
        _panel("Failed passes", "ops", _failures("W_pass_seconds_count", "resource, outcome")),
        _panel("Keys that wait", "short", ("{{queue}}", "sum by (queue) (W_queue_depth{N})")),
        _panel("Wait for a worker", "s", *_quantiles("W_queue_delay_seconds", "queue")),
        _panel(
            "Oldest",
            "s",
            ("waiting {{queue}}", "max by (queue) (W_queue_oldest_seconds{N})"),
            ("running {{queue}}", "max by (queue) (W_pass_longest_running_seconds{N})"),
        ),
    ),
    "Backends": (
        _panel("Calls", "ops", ("{{backend}} {{verb}}", "sum by (backend, verb) (rate(W_verbs_total{N}[R]))")),
        _panel("Duration of calls", "s", *_quantiles("W_verb_seconds", "backend, verb")),
        _panel("Failed calls", "ops", _failures("W_verbs_total", "backend, verb, outcome, failure_class")),
        _panel("Age of the observation", "s", ("{{loop}}", 'max by (loop) (W_loop_age_seconds{N, loop=~"list/.*"})')),
        _panel("Age of the last event", "s", ("{{loop}}", 'W_loop_age_seconds{N, loop=~"(watch|event)/.*"}')),
        _panel("Tokens", "ops", ("{{operation}} {{outcome}}", "rate(W_identity_operations_total{N}[R])")),
    ),
    "Sweeps": (
        _panel("Orphans", "short", ("{{class}} {{kind}}", "sum by (class, kind) (W_orphans{C})")),
        _panel(
            "Longest known orphan",
            "s",
            ("{{class}} {{kind}}", "max by (class, kind) (W_orphan_oldest_seconds{C})"),
            ("bound of {{class}}", "max by (class) (W_sweep_bound_seconds{C})"),
        ),
        _panel("Removed", "short", ("{{class}}", "sum by (class) (increase(W_orphans_removed_total{C}[R]))")),
        _panel("Spared", "short", ("{{class}} {{reason}}", "increase(W_orphans_spared_total{C}[R])")),
        _panel("Time from sight to gone", "s", *_quantiles("W_orphan_age_seconds", "class")),
        _panel(
            "Since the last complete sweep",
            "s",
            ("{{class}}", "time() - max by (class) (W_sweep_completed_timestamp_seconds{C})"),
            ("fuse of {{class}}", "max by (class) (W_sweep_fuse_blown{C})"),
        ),
    ),
    "Delegations": (
        _panel("By phase", "short", ("{{phase}}", "sum by (phase) (W_delegations{N})")),
        _panel(
            "Ended", "ops", ("{{phase}} {{reason}}", "sum by (phase, reason) (rate(W_delegations_ended_total{N}[R]))")
        ),
        _panel(
            "Talks and streams", "short", ("talks", "sum(W_delegation_talks{N})"), ("streams", "sum(W_a2a_streams{N})")
        ),
        _panel(
            "Wait for the first sending",
            "s",
            ("p50", "histogram_quantile(0.5, sum by (le) (rate(W_delegation_wait_seconds_bucket{N}[R])))"),
            ("p99", "histogram_quantile(0.99, sum by (le) (rate(W_delegation_wait_seconds_bucket{N}[R])))"),
            ("oldest queued", "max(W_delegation_oldest_queued_seconds{N})"),
        ),
        _panel("From creation to the end", "s", *_quantiles("W_delegation_seconds", "phase")),
        _panel(
            "Sendings",
            "ops",
            ("{{outcome}}", "sum by (outcome) (rate(W_delegation_sendings_total{N}[R]))"),
            ("possible doubles", "sum(rate(W_delegation_resends_total{N}[R]))"),
        ),
        _panel(
            "Requests to agents",
            "ops",
            ("{{operation}} {{outcome}}", "sum by (operation, outcome) (rate(W_a2a_requests_total{N}[R]))"),
        ),
        _panel("Duration of requests to agents", "s", *_quantiles("W_a2a_request_seconds", "operation")),
    ),
    "Process and Kubernetes API": (
        _panel(
            "Age of the last success of loops",
            "s",
            ("{{loop}}", 'W_loop_age_seconds{N, loop!~"(list|watch|event)/.*"}'),
            ("limit of {{loop}}", 'W_loop_overdue_after_seconds{N, loop!~"(list|watch|event)/.*"}'),
        ),
        _panel("Failed rounds of loops", "short", ("{{loop}}", "increase(W_loop_failures_total{N}[R])")),
        _panel("Events not posted", "short", ("dropped", "sum(increase(W_events_dropped_total{N}[R]))")),
        _panel("Requests", "ops", ("{{verb}} {{code}}", "sum by (verb, code) (rate(W_kube_requests_total{N}[R]))")),
        _panel(
            "Requests by resource", "ops", ("{{resource}}", "sum by (resource) (rate(W_kube_requests_total{N}[R]))")
        ),
        _panel("Duration of requests", "s", *_quantiles("W_kube_request_seconds", "verb")),
        _panel("CPU", "short", ("{{instance}}", 'rate(process_cpu_seconds_total{N, job="workspace-operator"}[R])')),
        _panel("Memory", "bytes", ("{{instance}}", 'process_resident_memory_bytes{N, job="workspace-operator"}')),
        _panel("Open files", "short", ("{{instance}}", 'process_open_fds{N, job="workspace-operator"}')),
    ),
}


def expand(expression: str) -> str:
    """An expression as Grafana gets it."""
    for short, long in (("W_", "workspace_operator_"), ("[R]", "[$__rate_interval]"), ("{C", "{" + _CLASS)):
        expression = expression.replace(short, long)
    return expression.replace("{N", "{" + _NAMESPACE)


def expressions() -> list[str]:
    """Every expression of the dashboard."""
    return [expand(expression) for panels in ROWS.values() for panel in panels for _, expression in panel.lines]


def document() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        y += 1
        for position, panel in enumerate(row):
            line, column = divmod(position, 24 // _WIDTH)
            place = {"x": column * _WIDTH, "y": y + line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            panels.append(_graph(panel, place))
        y += -(-len(row) // (24 // _WIDTH)) * _HEIGHT
    return {
        "title": "workspace-operator",
        "uid": "workspace-operator",
        "schemaVersion": 39,
        "tags": ["workspace-operator"],
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def _graph(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": expand(expression), "legendFormat": legend}
        for number, (legend, expression) in enumerate(panel.lines)
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "gridPos": place,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": targets,
    }


def _variables() -> list[dict[str, Any]]:
    """``namespace`` is the operator's own; a scrape that sets none is found with All."""
    source = {"name": "datasource", "type": "datasource", "query": "prometheus"}
    queries = {"namespace": "workspace_operator_leader", "class": "workspace_operator_class_ready"}
    labels = [
        {
            "name": label,
            "type": "query",
            "datasource": _SOURCE,
            "query": f"label_values({metric}, {label})",
            "refresh": 2,  # whenever the time range changes
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        }
        for label, metric in queries.items()
    ]
    return [source, *labels]
