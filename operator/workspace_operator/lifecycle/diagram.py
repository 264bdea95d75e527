"""The documentation's diagram and tables, drawn from the transition table and the reasons."""

from __future__ import annotations

import re

from workspace_operator.api.reasons import Reason
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.table import TABLE, Step

_PART = re.compile(r"(<!-- generated: (\w+) -->)\n.*?(<!-- end -->)", re.DOTALL)

_LEADS_TO: dict[tuple[Step, Goal], tuple[Sight, ...]] = {
    (Step.PROVISION, Goal.RUNNING): (Sight.RUNNING,),
    (Step.RESTART, Goal.RUNNING): (Sight.RUNNING,),
    (Step.STOP, Goal.RUNNING): (Sight.HALTED,),
    (Step.STOP, Goal.PAUSED): (Sight.HALTED, Sight.FROZEN),
}


def fill(markdown: str) -> str:
    """Replace the parts between ``<!-- generated: NAME -->`` and ``<!-- end -->``.

    Raises KeyError for a name that nothing generates.
    """
    parts = {"states": mermaid, "reasons": reasons}

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}\n{parts[found[2]]()}{found[3]}"

    return _PART.sub(part, markdown)


def mermaid() -> str:
    """What is seen of the compute, and which verb takes it where for which wish."""
    edges: dict[tuple[Sight, Sight, Step], list[Goal]] = {}
    for row in TABLE:
        targets = _LEADS_TO.get((row.step, row.goal), (Sight.ABSENT,) if row.step is Step.RELEASE else ())
        for target in targets:
            goals = edges.setdefault((row.sight, target, row.step), [])
            if target is not row.sight and row.goal not in goals:
                goals.append(row.goal)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> Absent"]
    for (source, target, step), goals in edges.items():
        if goals:
            lines.append(f"    {source} --> {target}: {step} ({', '.join(goals)})")
    return "\n".join([*lines, "    Absent --> [*]: finish (Deleted)", "```", ""])


def reasons() -> str:
    """Every reason with its meaning, as a Markdown table."""
    rows = [f"| {reason} | {reason.meaning} |" for reason in Reason]
    return "\n".join(["| Reason | Meaning |", "|---|---|", *rows, ""])
