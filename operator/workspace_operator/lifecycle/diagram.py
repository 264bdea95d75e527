"""The documentation's diagrams and tables, drawn from the transition tables and the reasons."""

from __future__ import annotations

import re

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import TERMINAL, DelegationPhase
from workspace_operator.lifecycle.delegation import facts as task
from workspace_operator.lifecycle.delegation import table as tasks
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.table import TABLE, Step

_PART = re.compile(r"(<!-- generated: (\w+) -->)\n.*?(<!-- end -->)", re.DOTALL)

_LEADS_TO: dict[tuple[Step, Goal], tuple[Sight, ...]] = {
    (Step.PROVISION, Goal.RUNNING): (Sight.RUNNING,),
    (Step.RESTART, Goal.RUNNING): (Sight.RUNNING,),
    (Step.STOP, Goal.RUNNING): (Sight.HALTED,),
    (Step.STOP, Goal.PAUSED): (Sight.HALTED, Sight.FROZEN),
}

#: Reasons of rows that take theirs from what stands in the way.
_OTHERWISE: dict[tasks.Guard | task.Sight, Reason] = {
    tasks.Guard.DENIED: Reason.NOT_PERMITTED,
    tasks.Guard.GONE: Reason.TARGET_GONE,
    task.Sight.REFUSED: Reason.DELIVERY_REFUSED,
    task.Sight.UNUSABLE: Reason.ANSWER_UNUSABLE,
}
#: What the agent's answers make of what is known of a task. Nothing is said of what is over: it has no phase before.
_NEWS: tuple[tuple[task.Sight, task.Sight, str], ...] = (
    (task.Sight.SENDING, task.Sight.WORKING, "the agent has it"),
    (task.Sight.SENDING, task.Sight.UNDELIVERED, "undelivered, or the agent is busy"),
    (task.Sight.WORKING, task.Sight.UNDELIVERED, "the agent has lost it"),
    (task.Sight.WORKING, task.Sight.ASKING, "the agent asks"),
    (task.Sight.ASKING, task.Sight.WORKING, "it goes on"),
    (task.Sight.SENDING, task.Sight.REFUSED, ""),
    *((here, task.Sight.SUCCEEDED, "") for here in (task.Sight.SENDING, task.Sight.WORKING, task.Sight.ASKING)),
    *((task.Sight.WORKING, over, "") for over in (task.Sight.FAILED, task.Sight.UNUSABLE)),
)


def fill(markdown: str) -> str:
    """Replace the parts between ``<!-- generated: NAME -->`` and ``<!-- end -->``.

    Raises KeyError for a name that nothing generates.
    """
    parts = {"states": mermaid, "delegations": delegations, "reasons": reasons}

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


def delegations() -> str:
    """How the phase of a delegation moves: by the agent's answers, and by how it ends."""
    edges: dict[tuple[DelegationPhase, DelegationPhase], list[str]] = {}

    def draw(before: DelegationPhase, after: DelegationPhase, label: str) -> None:
        labels = edges.setdefault((before, after), [])
        if before is not after and label not in labels:
            labels.append(label)

    phases: dict[task.Sight, set[DelegationPhase]] = {}
    for row in tasks.TABLE:
        if row.goal is task.Goal.DELIVER and row.step is tasks.Step.WAIT and row.phase is not None:
            phases.setdefault(row.sight, set()).add(row.phase)
    for before, after, label in _NEWS:
        if label:
            draw(min(phases[before]), min(phases[after]), label)
        else:
            phases.setdefault(after, set()).update(phases[before])
    for row in tasks.TABLE:
        if row.phase is not None and row.step in (tasks.Step.FINISH, tasks.Step.SEND):
            label = row.reason or _OTHERWISE.get(row.guard) or _OTHERWISE[row.sight]
            for phase in sorted(phases.get(row.sight, ()), key=list(DelegationPhase).index):
                draw(phase, row.phase, "sent" if row.step is tasks.Step.SEND else label)
    draw(DelegationPhase.WORKING, DelegationPhase.STUCK, "silent for stuckAfter")
    draw(DelegationPhase.STUCK, DelegationPhase.WORKING, "a sign of life")
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {DelegationPhase.QUEUED}"]
    lines += [f"    {before} --> {after}: {', '.join(labels)}" for (before, after), labels in edges.items() if labels]
    return "\n".join([*lines, *(f"    {end} --> [*]" for end in DelegationPhase if end in TERMINAL), "```", ""])


def reasons() -> str:
    """Every reason with its meaning, as a Markdown table."""
    rows = [f"| {reason} | {reason.meaning} |" for reason in Reason]
    return "\n".join(["| Reason | Meaning |", "|---|---|", *rows, ""])
