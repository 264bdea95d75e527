"""What the operator exports, read from the code: names as Prometheus stores them, labels, meanings."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Info
from prometheus_client.metrics import MetricWrapperBase

from workspace_operator.telemetry import metrics

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",), "gauge": ("",)}
_INFO_LABELS = ("version", "commit")  # an Info's labels are the keys of its value, which app.py sets
#: Of prometheus_client's own collector for processes; Linux only.
PROCESS = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
)


@dataclass(frozen=True)
class Metric:
    """One family of samples."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def samples(self) -> dict[str, frozenset[str]]:
        """The names that can be queried, with their labels."""
        return {
            f"{self.name}{suffix}": frozenset((*self.labels, "le") if suffix == "_bucket" else self.labels)
            for suffix in _SUFFIXES[self.kind]
        }


def catalogue() -> list[Metric]:
    """Every metric of telemetry/metrics.py, in its order."""
    found = []
    for collector in vars(metrics).values():
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            labels = _INFO_LABELS if isinstance(collector, Info) else tuple(collector._labelnames)
            found.append(Metric(family.name, family.type, labels, family.documentation))
    return found


def samples() -> dict[str, frozenset[str]]:
    """Every name that can be queried, with its labels."""
    own = {name: labels for metric in catalogue() for name, labels in metric.samples.items()}
    return own | dict.fromkeys((*PROCESS, "up"), frozenset())


def table() -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for metric in catalogue():
        name = metric.name + (_SUFFIXES[metric.kind][0] if metric.kind in ("counter", "info") else "")
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
        lines.append(f"| `{name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return lines
