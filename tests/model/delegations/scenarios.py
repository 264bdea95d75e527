"""What is explored: several small worlds, each to closure."""

from __future__ import annotations

from typing import Any

from tests.model.delegations.world import Config, State

_PLAIN: Any = {"knows_doubles": False}
_UNASKABLE: Any = {"knows_doubles": False, "lists": False}

CONFIGS = (
    Config("nothing goes wrong", asks=True, stuck_after=9),
    Config("sendings fail, the operator crashes", faults=("send", "crash"), fault_budget=2, stuck_after=9),
    Config("a plain agent: sendings and questions fail, crashes", **_PLAIN, faults=("send", "ask", "crash"),
           fault_budget=2),
    Config("a plain agent that cannot be asked: sendings fail, crashes", **_UNASKABLE, faults=("send", "crash"),
           fault_budget=2),
    Config("a plain agent that cannot be asked: sendings fail, the API server too", **_UNASKABLE,
           faults=("send", "api"), fault_budget=2),
    Config("at most once: sendings and questions fail, crashes", **_PLAIN, may_resend=False,
           faults=("send", "ask", "crash"), fault_budget=2),
    Config("at most once, and it cannot be asked: sendings fail, crashes", **_UNASKABLE, may_resend=False,
           faults=("send", "crash"), fault_budget=2),
    Config("an agent that answers with messages: sendings fail, crashes", **_PLAIN, keeps_tasks=False,
           faults=("send", "crash"), fault_budget=2),
    Config("the agent restarts and forgets, answers are lost", **_PLAIN, faults=("forgets", "send", "follow"),
           fault_budget=2),
    Config("it restarts, and knows doubles by its memory", faults=("forgets", "rejects", "send", "ask"),
           fault_budget=2),
    Config("at most once, and it forgets", **_PLAIN, may_resend=False, faults=("forgets", "send"), fault_budget=2),
    Config("tasks fail and ask, answers are lost", asks=True, faults=("fails", "follow"), fault_budget=1,
           stuck_after=9),
    Config("few attempts", max_attempts=2, faults=("send", "crash", "occupied"), fault_budget=2),
    Config("the user edits twice", edits=("Running", "Paused", "Stopped", "delete"), edit_budget=2),
    Config("the user edits in the middle of passes", edits=("Running", "Paused", "Stopped", "delete"), edit_budget=2,
           races=True),
    Config("the user deletes, cancels fail, crashes", edits=("delete",), edit_budget=1, faults=("cancel", "crash"),
           fault_budget=2),
    Config("the user takes a cancel back, cancels fail", edits=("Stopped", "Running", "Paused"), edit_budget=2,
           faults=("cancel",), fault_budget=1, deadline=45),
    Config("the user edits, tasks ask and fail, answers are lost", asks=True, edits=("Stopped", "Paused"),
           edit_budget=1, faults=("fails", "follow"), fault_budget=1, ttl=0),
    Config("the user holds it, sendings fail", edits=("Running", "Paused"), edit_budget=2, faults=("send", "ask"),
           fault_budget=1, ttl=0),
    Config("an agent that cannot be asked is held and cancelled", **_UNASKABLE, edits=("Paused", "Stopped"),
           edit_budget=1, faults=("send", "crash"), fault_budget=1, deadline=45),
    Config("the target comes and goes", fault_budget=2, faults=("silent", "idle", "occupied")),
    Config("the target comes and goes, an edit", edits=("Stopped", "Paused"), edit_budget=1, fault_budget=1,
           faults=("paused", "starting", "stopped")),
    Config("the target comes and goes, sendings fail, it is cancelled", edits=("Stopped",), edit_budget=1,
           faults=("paused", "send"), fault_budget=2),
    Config("the target comes and goes, questions fail, it is held", edits=("Paused",), edit_budget=1,
           faults=("paused", "ask", "crash"), fault_budget=2),
    Config("the target pauses and forgets, answers are lost", **_PLAIN, forgets=True, faults=("paused", "send"),
           fault_budget=2),
    Config("the target or the sender goes, an edit", edits=("Stopped", "Paused"), edit_budget=1, fault_budget=1,
           faults=("gone", "deleting", "sender")),
    Config("the target of a task that asks goes, an edit", asks=True, edits=("Stopped", "Paused"), edit_budget=1,
           faults=("gone", "paused"), fault_budget=1, deadline=45),
    Config("the target or the sender goes, crashes", fault_budget=2, faults=("gone", "sender", "crash")),
    Config("the target is made anew, sendings fail", faults=("gone", "send"), fault_budget=2),
    Config("the operator has not heard of everything", faults=("unheard", "gone", "sender"), fault_budget=2),
    Config("the family changes", faults=("moves", "send"), fault_budget=2, edits=("Paused", "Running"), edit_budget=1),
    Config("no relation", related=False, edits=("Paused", "Stopped", "delete"), edit_budget=1, faults=("api", "crash"),
           fault_budget=1),
    Config("the API server fails, a long answer", long=True, faults=("api", "crash"), fault_budget=2),
    Config("the API server fails, an edit", edits=("Stopped", "delete"), edit_budget=1, faults=("api", "leads"),
           fault_budget=1),
    Config("a long silence", faults=("silent",), fault_budget=1, deadline=80, stuck_after=50),
)  # fmt: skip


def starts(config: Config) -> tuple[State, ...]:
    """A new object."""
    return (State(config, config.fault_budget, config.edit_budget),)
