"""The short table for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.bench import sweep

Row = tuple[str, str, str, str]  # what, measured, beside, aim


def table(document: dict[str, Any]) -> str:
    """All figures that have an aim, each beside its baseline."""
    rows: list[Row] = [("figure", "measured", "baseline, same run", "aim")]
    for name, render in _RENDER.items():
        part = document.get(name)
        if part is not None:
            rows += [(f"{name}: failed", part["error"][:60], "", "")] if "error" in part else render(part)
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"


def _latency(part: dict[str, Any]) -> Iterator[Row]:
    ours, base = part["verb_after_accepted"], part["baseline_event_after_accepted"]
    for share in ("p50", "p99"):
        aim = f"≤ {part['aim_ms'][share]:.0f} ms"
        yield f"wish accepted → verb, {share}", f"{ours['all'][share]} ms", f"bare kopf event {base[share]} ms", aim
    for wish in ("to Paused", "to Running"):
        yield f"  {wish}, p50 / p99", f"{ours[wish]['p50']} / {ours[wish]['p99']} ms", "", ""
    sent, base = part["verb_after_sent"]["all"], part["baseline_event_after_sent"]
    yield (
        "  from sending the change, p50 / p99",
        f"{sent['p50']} / {sent['p99']} ms",
        f"{base['p50']} / {base['p99']} ms",
        "",
    )


def _throughput(part: dict[str, Any]) -> Iterator[Row]:
    for mode in ("None", "Token"):
        one = part[f"identity {mode}"]
        beside = f"floor {one['floor_per_second']:.0f}/s ({one['share_of_floor']:.0%})"
        aim = "≥ 60 % of the floor" if mode == "None" else ""
        yield f"apply → Ready, identity {mode}", f"{one['per_second']:.0f}/s", beside, aim
        cpu, passes = one["operator_cpu_ms_per_workspace"], one["passes_per_workspace"]
        yield (
            "  operator CPU per workspace",
            f"{cpu:.2f} ms",
            f"{passes:.1f} passes, {one['conflicts']:.0f} conflicts",
            "",
        )


def _writes(part: dict[str, Any]) -> Iterator[Row]:
    for mode in ("None", "Token"):
        one = part[f"identity {mode}"]
        beside = f"Events {one['events']}, identity {sum(one['identity'].values()) + one['leases_created']:.1f}"
        yield f"writes on a workspace to Ready, {mode}", f"{one['writes_on_workspace']}", beside, "≤ 3"
    for what in ("at rest", "re-applied every second"):
        one = part[what]
        calls = ", ".join(f"{count} {call}" for call, count in sorted(one["backend_calls"].items()))
        yield (
            f"{part['workspaces']} {what}, {one['seconds']} s",
            f"{one['writes_on_workspaces']} writes",
            calls,
            "0, listings only",
        )


def _memory(part: dict[str, Any]) -> Iterator[Row]:
    ours, base = part["operator"], part["baseline kopf informer"]
    beside = f"bare kopf informer {base['rss_kb_per_workspace']} KB"
    yield "memory per workspace (RSS)", f"{ours['rss_kb_per_workspace']} KB", beside, f"≤ {part['aim_kb']:.0f} KB"


_RENDER = {"latency": _latency, "throughput": _throughput, "writes": _writes, "memory": _memory, "sweep": sweep.rows}
