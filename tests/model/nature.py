"""What happens in the model's world by itself, what goes wrong, and what people do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tests.model.world import State, Unit, moment, thresholds

from workspace_operator.api.states import Reading


def edit(s: State, kind: str) -> State | None:
    """The user's edit; None when it would change nothing."""
    new = s.copy()
    new.edits -= 1
    if s.deleted or (kind == s.desired):
        return None
    if kind == "delete":
        new.deleted = True
    elif kind == "token":
        new.token += 1
        new.token_edits += 1
        if s.cycles_from is None:
            new.cycles_from, new.bound = s.top, "instance" in s.status
    elif kind == "template":
        new.template = 1 - s.template
    elif kind == "idle":
        new.idles = not s.idles
    else:
        new.desired = kind
    new.generation += 1
    new.version += 1
    return new


def ends(s: State) -> State:
    """Every stop under way comes to its end."""
    new = s.copy()
    kept = []
    for unit in s.units:
        if unit.reading is not Reading.HALTING:
            kept.append(unit)
        elif unit.released:
            new.released |= {unit.incarnation}
        else:
            kept.append(replace(unit, reading=Reading.HALTED))
    new.units = tuple(kept)
    return new


def boots(s: State) -> State:
    """Every boot under way comes to its end."""
    new = s.copy()
    new.units = tuple(
        replace(unit, reading=Reading.RUNNING) if unit.reading is Reading.STARTING else unit for unit in s.units
    )
    return new


def natural(s: State) -> list[tuple[str, State]]:
    """What happens by itself, without being a fault."""
    found = []
    readings = {unit.reading for unit in s.units}
    if Reading.HALTING in readings:
        found.append(("the instance has ended", ends(s)))
    if Reading.STARTING in readings:
        found.append(("the instance has booted", boots(s)))
    if not s.serves and Reading.RUNNING in readings:
        found.append(("the agent answers", _with(s, serves=True)))
    if not s.class_there:
        found.append(("the class is back", _with(s, class_there=True)))
    if not s.references_there:
        found.append(("the ConfigMap is back", _with(s, references_there=True)))
    if s.config.pause_after:
        found += _tasks(s)
    ahead = thresholds(s)
    if ahead:
        found.append((f"{min(ahead) - s.now} s pass", _with(s, now=min(ahead))))
    return found


def _tasks(s: State) -> list[tuple[str, State]]:
    """What becomes of tasks, and when the operator gets to know of it."""
    found = begins(s)
    if s.working:
        # A real watch would have told of its beginning first.
        unheard = s.heard is False or (s.heard is None and not s.config.credentials)
        found.append(("the agent has done its task", _with(s, own=False, worked=s.worked if unheard else s.now)))
    if s.works and s.heard is not s.working:
        found.append(("the watch tells what the agent reports", _heard(s)))
    if s.flying:
        found.append(("the delegation is over", _with(s, flying=False, delegated=s.now, worked=s.now)))
    if s.told != (s.waiting, s.flying):
        found.append(("the watch tells of the delegation", _with(s, told=(s.waiting, s.flying))))
    return found


def _heard(s: State) -> State:
    """The operator knows whether the agent is at work."""
    last = moment(s.now) if s.heard else s.last_task
    return _with(s, heard=s.working, counted=s.now if s.counted is None else s.counted, last_task=last)


def begins(s: State) -> list[tuple[str, State]]:
    """Tasks that may begin now. A delegation is claimed only while no pause of its target is on record."""
    found = []
    if s.tasks and s.works and not s.working:
        found.append(("the agent begins a task of its own", _with(s, own=True, tasks=s.tasks - 1)))
    if s.tasks and not s.waiting and not s.flying:
        found.append(("a delegation waits", _with(s, waiting=True, tasks=s.tasks - 1)))
    if s.waiting and s.works and not s.idle_paused:
        found.append(("the delegation is sent", _with(s, waiting=False, flying=True)))
    return found


def faults(s: State) -> list[tuple[str, State]]:
    """What goes wrong by itself; each costs one of the budget."""
    found: list[tuple[str, State]] = []
    if not s.faults:
        return found
    allowed, less = s.config.faults, s.faults - 1
    for unit in s.units:
        found += _grief(s, unit, less)
    if "wipe" in allowed and s.status:
        found.append(("someone wipes the status", _wiped(s)))
    if "class" in allowed and s.class_there:
        found.append(("the class disappears", _with(s, faults=less, class_there=False)))
    if "references" in allowed and s.references_there:
        found.append(("the ConfigMap disappears", _with(s, faults=less, references_there=False)))
    if "silent" in allowed and s.serves:
        found.append(("the agent falls silent", _with(s, faults=less, serves=False)))
    if "crash" in allowed and s.view is not None:
        dead = _with(s, faults=less)
        dead.forget()
        found.append(("the operator restarts", dead))
    return found


def _grief(s: State, unit: Unit, less: int) -> list[tuple[str, State]]:
    """What may happen to one instance."""
    found, allowed, name = [], s.config.faults, f"instance {unit.incarnation}"
    others = tuple(u for u in s.units if u is not unit)
    if "exits" in allowed and unit.reading is Reading.RUNNING:
        halted = (*others, replace(unit, reading=Reading.HALTED))
        found.append((f"{name} exits", _with(s, faults=less, units=halted)))
    if "fails" in allowed and unit.reading in (Reading.RUNNING, Reading.STARTING, Reading.HALTED):
        failed = (*others, replace(unit, reading=Reading.FAILED))
        found.append((f"{name} fails", _with(s, faults=less, units=failed)))
    if "vanishes" in allowed:
        found.append((f"{name} vanishes", _with(s, faults=less, units=others)))
    return found


def _wiped(s: State) -> State:
    told = any(unit.reading in (Reading.STARTING, Reading.RUNNING) for unit in s.units)
    return _with(s, faults=s.faults - 1, status={}, version=s.version + 1, wiped=True, unrecorded=not told)


def _with(s: State, **changes: Any) -> State:
    new = s.copy()
    for name, value in changes.items():
        setattr(new, name, value)
    return new


def calm(s: State) -> State:
    """The same state in a world in which nothing goes wrong any more."""
    new = boots(ends(s))
    new.faults = new.edits = 0
    new.class_there = new.references_there = new.serves = True
    if new.works and new.heard is not new.working:
        new = _heard(new)
    new.told = new.waiting, new.flying
    return new


def text(s: State) -> str:
    """One line for a trace."""
    units = ", ".join(f"#{u.incarnation} {u.reading}" for u in s.units) or "none"
    status = s.status
    shown = {"phase": status.get("phase"), "incarnation": status.get("incarnation", 0)}
    instance = status.get("instance") or {}
    shown["since"] = instance.get("since", "")[11:19]
    return f"t={s.now} wish={s.goal} instances: {units}; status {json.dumps(shown)}"
