"""The documentation's diagram and tables, drawn from the transition table and the reasons."""

from __future__ import annotations

from workspace_operator.api.reasons import Reason
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.table import TABLE, Step

_LEADS_TO: dict[tuple[Step, Goal], Sight] = {
    (Step.PROVISION, Goal.RUNNING): Sight.RUNNING,
    (Step.RESTART, Goal.RUNNING): Sight.RUNNING,
    (Step.STOP, Goal.RUNNING): Sight.HALTED,
    (Step.STOP, Goal.PAUSED): Sight.HALTED,
}


def render() -> str:
    """Markdown: the diagram, then every reason with its meaning."""
    return f"{mermaid()}\n{reasons()}"


def mermaid() -> str:
    """What is seen of the compute, and which verb takes it where for which wish."""
    edges: dict[tuple[Sight, Sight, Step], list[Goal]] = {}
    for row in TABLE:
        target = _LEADS_TO.get((row.step, row.goal), Sight.ABSENT if row.step is Step.RELEASE else None)
        if target is None or target is row.sight:
            continue
        goals = edges.setdefault((row.sight, target, row.step), [])
        if row.goal not in goals:
            goals.append(row.goal)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> Absent"]
    for (source, target, step), goals in edges.items():
        lines.append(f"    {source} --> {target}: {step} ({', '.join(goals)})")
    return "\n".join([*lines, "    Absent --> [*]: finish (Deleted)", "```", ""])


def reasons() -> str:
    """Every reason with its meaning, as a Markdown table."""
    rows = [f"| {reason} | {reason.meaning} |" for reason in Reason]
    return "\n".join(["| Reason | Meaning |", "|---|---|", *rows, ""])
