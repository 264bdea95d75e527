"""What people and fate do to a delegation and to its target between the operator's steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.model.delegations.agent import take
from tests.model.delegations.world import State

from workspace_operator.a2a.values import TaskState
from workspace_operator.lifecycle.delegation.table import Step

Change = Callable[[State], None]


def edits(s: State) -> list[tuple[str, State]]:
    """What the user may do to the object now, at the cost of the budget."""
    found = []
    for kind in s.config.edits if s.edits and s.there else ():
        if s.deleted or (kind == s.desired) or (s.over and kind != "delete"):
            continue
        after = s.copy()
        after.edits, after.version, after.generation = s.edits - 1, s.version + 1, s.generation + 1
        after.wake_at = s.now
        if kind == "delete":
            after.deleted, after.there = True, s.claimed
        else:
            after.desired = kind
        _mind_the_end(s, after)
        found.append((f"the user edits: {kind}", after))
    return found


def faults(s: State) -> Iterator[tuple[str, State]]:
    """What may go wrong by itself, at the cost of the budget; what ends again is in ``relief``."""
    if not s.faults or not s.there or s.over:
        return
    for name in s.config.faults:
        for label, change in _FAULTS.get(name, ()):
            after = s.copy()
            after.faults -= 1
            if _apply(after, change):
                _mind_the_end(s, after)
                yield label, after
    if "crash" in s.config.faults:
        yield from _crashes(s)


def relief(s: State) -> Iterator[tuple[str, State]]:
    """What went wrong is over again, whenever it may."""
    if not s.there or s.over:
        return
    for label, change in _RELIEF.get(s.target, ()):
        after = s.copy()
        if _apply(after, change):
            yield label, after
    if s.occupied:
        after = s.copy()
        after.occupied, after.wake_at = False, s.now
        yield "the place at the target is free", after


def _apply(after: State, change: Change) -> bool:
    before = (after.target, after.tasks, after.sender, after.related, after.occupied)
    change(after)
    after.wake_at = after.now  # the operator is told
    return before != (after.target, after.tasks, after.sender, after.related, after.occupied)


def _mind_the_end(before: State, after: State) -> None:
    if after.ends_early != before.ends_early:
        after.cancelled_at = after.now if after.ends_early else None


def _crashes(s: State) -> Iterator[tuple[str, State]]:
    """The operator's process ends between two passes; a message may be on its way."""
    if s.talk is None:
        return
    sends = s.errand is not None and s.errand.kind is Step.SEND and s.reaches(s.errand)
    for arrives in (False, True) if sends else (False,):
        after = s.copy()
        after.faults -= 1
        if arrives:
            take(after)
        after.forget()
        yield f"the operator crashes{', and the message arrives' if arrives else ''}", after


# -- changes -----------------------------------------------------------------------------------------------------------


def _to(target: str) -> Change:
    def change(s: State) -> None:
        if target in ("paused", "stopped", "idle", "starting") and s.config.forgets:
            s.tasks = ()
        s.target = target

    return change


def _forgets(s: State) -> None:
    s.tasks = ()


def _rejects(s: State) -> None:
    """It has accepted a task, and changes its mind before it has done anything."""
    for task in s.tasks:
        if task.state is TaskState.WORKING:
            s.put(replace(task, state=TaskState.REJECTED))
            s.worked -= 1


def _goes(s: State) -> None:
    s.target, s.tasks, s.denied = "gone", (), s.worked  # nobody can be asked any more


def _comes(s: State) -> None:
    s.target, s.made, s.elsewhere = "serves", s.made + 1, s.worked


def _leaves(s: State) -> None:
    s.sender = False


def _moves(s: State) -> None:
    s.related = not s.related


def _occupies(s: State) -> None:
    s.occupied = True


_FAULTS: dict[str, tuple[tuple[str, Change], ...]] = {
    "forgets": (("the agent restarts and knows no task any more", _forgets),),
    "rejects": (("the agent rejects what it has accepted", _rejects),),
    "silent": (("the agent falls silent", _to("silent")),),
    "paused": (("the target is paused", _to("paused")),),
    "idle": (("the target pauses for being idle", _to("idle")),),
    "stopped": (("the target is stopped", _to("stopped")),),
    "starting": (("the target starts anew", _to("starting")),),
    "deleting": (("the target is being deleted", _to("deleting")),),
    "gone": (("the target is deleted", _goes),),
    "sender": (("the sender is deleted", _leaves),),
    "moves": (("the family changes", _moves),),
    "occupied": (("another delegation takes the only place", _occupies),),
}
_RELIEF: dict[str, tuple[tuple[str, Change], ...]] = {
    "silent": (("the agent answers again", _to("serves")),),
    "paused": (("the target is resumed", _to("serves")),),
    "idle": (("the target wakes up", _to("serves")),),
    "stopped": (("the target runs again", _to("serves")),),
    "starting": (("the target serves", _to("serves")),),
    "deleting": (("the target is gone", _goes),),
    "gone": (("the target is made anew", _comes),),
}
