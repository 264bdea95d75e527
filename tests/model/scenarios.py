"""What is explored: several small worlds, each to closure, instead of one that nobody can wait for."""

from __future__ import annotations

from tests.model.world import Config, State

_STATES = ("Running", "Paused", "Stopped", "delete")

CONFIGS = (
    Config("edits of every kind, twice", faults=(), edit_budget=2, fault_budget=0, patient=False),
    Config("edits of the wish, three times", edits=_STATES, faults=(), edit_budget=3, fault_budget=0, patient=False),
    Config("instances and objects come to grief, two edits", edits=_STATES, edit_budget=2, patient=False,
           faults=("exits", "fails", "vanishes", "class", "references", "silent")),
    Config("calls fail, two edits", edits=_STATES, faults=("look", "verb"), edit_budget=2, patient=False),
    Config("crashes at every point, two edits", edits=_STATES, edit_budget=2, faults=("crash",), patient=False),
    Config("calls fail or the operator crashes, twice, one edit", edits=("Stopped", "Paused"), fault_budget=2,
           patient=False, faults=("verb", "crash")),
    Config("an agent that may stay silent, one fault", edits=(), edit_budget=0),
    Config("an agent that may stay silent, one edit", faults=(), fault_budget=0),
    Config("a new restart token, two crashes or lost answers", edits=("token",), patient=False, fault_budget=2,
           faults=("crash", "verb")),
    Config("two new restart tokens, one crash or lost answer", edits=("token",), edit_budget=2, patient=False,
           faults=("crash", "verb")),
    Config("a changed template, Automatic", automatic=True, edits=("template", "Stopped"), edit_budget=2,
           patient=False, faults=("crash", "verb")),
    Config("freezing", freeze=True, edits=("Paused", "Running", "Stopped", "token"), edit_budget=2, patient=False,
           faults=("verb", "crash"), credentials=False),
    Config("freezing with a token", freeze=True, edits=("Paused", "Running", "delete"), edit_budget=2, patient=False,
           faults=("verb", "crash", "references")),
    Config("nothing stays of what is stopped", halts=False, edit_budget=2, patient=False,
           edits=("Paused", "Running", "Stopped", "token"), faults=("verb", "crash", "fails", "vanishes")),
    Config("data that goes with the workspace", delete_data=True, edits=("delete",), patient=False, fault_budget=2,
           faults=("verb", "crash", "look", "vanishes", "class")),
    Config("someone wipes the status", edits=("Stopped", "token", "delete"), edit_budget=2, faults=("wipe",),
           patient=False),
    Config("listings older than the truth", edits=("Paused", "Running", "delete"), faults=("stale", "exits", "crash"),
           edit_budget=2, fault_budget=2, patient=False, credentials=False),
    Config("idle, tasks and delegations", pause_after=100, task_budget=2, edits=(), edit_budget=0, faults=(),
           fault_budget=0, patient=False),
    Config("idle, a task and edits of every kind", pause_after=100, task_budget=1, faults=(), fault_budget=0,
           edits=("Paused", "Running", "Stopped", "delete", "token", "idle"), edit_budget=1, patient=False,
           credentials=False),
    Config("idle, a task and two edits", pause_after=100, task_budget=1, faults=(), fault_budget=0, edit_budget=2,
           edits=("Paused", "Running", "idle"), patient=False, credentials=False),
    Config("idle, a task, calls fail and things come to grief", pause_after=100, task_budget=1, edits=(), edit_budget=0,
           faults=("verb", "read", "silent", "exits", "references"), patient=False),
    Config("idle, a task, and the operator crashes", pause_after=100, task_budget=1, edits=(), edit_budget=0,
           faults=("crash",), patient=False),
    Config("idle, edits, and the operator crashes", pause_after=100, edits=("token", "Paused", "Running"),
           edit_budget=1, faults=("crash",), patient=False),
    Config("idle, freezing with a token", pause_after=100, task_budget=1, freeze=True, edits=(), edit_budget=0,
           faults=("verb", "crash"), patient=False),
)  # fmt: skip


def starts(config: Config) -> tuple[State, ...]:
    """A new object with each wish."""
    wishes = ("Running", "Paused", "Stopped")
    return tuple(
        State(config, config.fault_budget, config.edit_budget, desired=wish, tasks=config.task_budget)
        for wish in wishes
    )
