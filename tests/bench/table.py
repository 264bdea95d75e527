"""The short table for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.bench import delegations, pods, sweep

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


def _ec2(part: dict[str, Any]) -> Iterator[Row]:
    yield "EC2 is moto's server behind our proxy, no AWS: all times and the number of looks depend on it", "", "", ""
    yield from _ec2_verbs(part["verbs"])
    yield from _ec2_life(part["life"], part["verbs"]["bare boto3 changes per life"])
    yield from _ec2_rest(part["rest"])
    yield from _ec2_rush(part["rush"])


def _ec2_verbs(part: dict[str, Any]) -> Iterator[Row]:
    for verb, ours in part["verbs"].items():
        bare = part["bare boto3"][verb]
        beside = f"bare boto3 {_two(bare['own_ms'])}, calls {_two(bare['calls_ms'])}"
        yield f"{verb}: operator's own time in the verb, p50 / p99", f"{_two(ours['own_ms'])} ms", f"{beside} ms", ""
        yield "  its EC2 calls meanwhile", f"{_two(ours['calls_ms'])} ms", "", ""
        wish = part["wishes"][verb]
        yield "  wish accepted → EC2's call arrives", f"{_two(wish['to_the_call_ms'])} ms", "", ""
        yield "  EC2 has arrived → status says so", f"{_two(wish['to_be_noticed_ms'])} ms", "", ""


def _two(figures: dict[str, float]) -> str:
    return f"{figures['p50']:.1f} / {figures['p99']:.1f}"


def _ec2_life(part: dict[str, Any], bare: float) -> Iterator[Row]:
    yield f"EC2 calls of a life, changes of state {part['state_changes_take_seconds']:.0f} s each", "", "", ""
    for name, one in part.items():
        if isinstance(one, dict):
            changes, looks = (_listed(one[kind]) for kind in ("changes", "looks"))
            yield (
                f"  changes each, {name}",
                f"{one['changes_per_workspace']:.2f}",
                f"{changes}; bare boto3, no volume: {bare:g}",
                "",
            )
            yield "  looks each, class's listing besides", f"{one['looks_per_workspace']:.2f}", looks, ""


def _listed(calls: dict[str, int]) -> str:
    return ", ".join(f"{count} {call.removesuffix('Instances')}" for call, count in calls.items())


def _ec2_rest(part: dict[str, Any]) -> Iterator[Row]:
    for one in (value for value in part.values() if isinstance(value, dict)):
        what = f"{part['workspaces']} at rest, pages of {one['page_size']}, {one['seconds']:.0f} s"
        pages = "/".join(str(number) for number in one["pages_each"])
        beside = f"boto3's paginator {one['boto3_paginator_pages']}"
        measured = f"{one['calls']} calls in {one['listings']} listings: {pages} each"
        yield what, measured, beside, f"{one['pages_aimed']} per interval"
        checks = ", ".join(f"{count} {call}" for call, count in sorted(one["class_checks"].items()))
        others = sum(one["any_other_call"].values())
        yield "  any other call", f"{others}", f"beside the class's check: {checks or 'none'}", "0"


def _ec2_rush(part: dict[str, Any]) -> Iterator[Row]:
    ours, bare = part["launches"], part["bare boto3"]
    limit = f"{part['per_second']}/s, burst {part['burst']}"
    number, seconds = part["workspaces"], part["seconds"]
    what = f"{number} starts at once, {part['refused']:.0%} of calls refused"
    gave_up = f"boto3 adaptive: {number - bare['gave_up']} in {bare['seconds']:.0f} s"
    yield what, f"{part['ready']} Ready in {seconds:.0f} s", gave_up, f"{number} Ready"
    duplicates = part["duplicates"]
    alive = f"{duplicates['most_alive_at_once']} alive at most"
    yield "  machines beyond one per workspace", f"{duplicates['beyond_one_each']}, {alive}", "", "0, 1"
    calls, beside = f"{ours['calls']} in {ours['seconds']:.0f} s", f"boto3 adaptive {bare['calls']}"
    yield f"  launches within {limit}", calls, f"{beside} in {bare['seconds']:.0f} s", f"≤ {ours['budget']}"
    busiest = f"boto3 adaptive {bare['busiest_second']}"
    yield "  in the busiest second", f"{ours['busiest_second']}", busiest, f"≤ {ours['busiest_second_allowed']}"
    pause = part["pause"]["calls"]
    yield (
        f"{number} pauses at once, default rates, none refused",
        f"all Paused in {part['pause']['seconds']:.0f} s",
        ", ".join(f"{pause.get(call, 0)} {call}" for call in ("StopInstances", "look", "GetConsoleOutput")),
        "",
    )


_RENDER = {
    "latency": _latency,
    "throughput": _throughput,
    "writes": _writes,
    "memory": _memory,
    "sweep": sweep.rows,
    "delegations": delegations.rows,
    "ec2": _ec2,
    "pods": pods.rows,
}
