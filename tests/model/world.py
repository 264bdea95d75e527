"""The model's world: everything there is outside the operator, its memory, and the clock, as one value.

A state is copied, never changed in place, once it is known to the explorer. ``key`` abstracts from absolute times and
incarnation numbers, so that the exploration closes.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from workspace_operator.api.meta import FINALIZER
from workspace_operator.api.states import LIVE, Reading
from workspace_operator.kube.identity import Credentials
from workspace_operator.lifecycle import backoff

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
GRACE, LIFETIME = 10, 3600  # seconds: grace, token lifetime


@dataclass(frozen=True)
class Config:
    """What stays as it is during one exploration."""

    name: str
    automatic: bool = False
    freeze: bool = False
    credentials: bool = True
    delete_data: bool = False
    edits: tuple[str, ...] = ("Running", "Paused", "Stopped", "delete", "token", "template")
    faults: tuple[str, ...] = ("exits", "fails", "vanishes", "class", "references", "silent", "crash", "look", "verb")
    patient: bool = True  # the agent may stay silent until the provision timeout
    edit_budget: int = 1
    fault_budget: int = 1
    pause_after: int = 0  # seconds of idleness; 0: never
    task_budget: int = 0  # tasks of the agent's own, and delegations

    hopeless: str = ""  # how every start fails, for ever

    @property
    def timeout(self) -> int:
        """Seconds that a start may take."""
        return 60 if self.patient else 86_400


@dataclass(frozen=True)
class Unit:
    """One instance, as it really is."""

    incarnation: int
    reading: Reading
    parameters: str
    since: int = 0  # when it was told to stop
    released: bool = False  # goes altogether at the end of its stop


@dataclass
class State:
    """Shallow copies share only immutable values (a status is replaced, never changed)."""

    config: Config
    faults: int
    edits: int
    desired: str = "Running"
    deleted: bool = False
    token: int = 0
    template: int = 0
    generation: int = 1
    version: int = 1
    status: dict[str, Any] = field(default_factory=dict)
    units: tuple[Unit, ...] = ()
    data: bool = False
    secret: bool = False
    delivered: bool = False  # a workload holds a token bound to the present Secret
    class_there: bool = True
    references_there: bool = True
    serves: bool = False
    now: int = 0
    tasks: int = 0  # that may still begin
    idles: bool = True  # spec.idle is set
    own: bool = False  # the agent works on something, and says so on its Lease
    waiting: bool = False  # a delegation that may wake it
    flying: bool = False  # a delegation is claimed and not over
    delegated: int | None = None  # when the last one was over
    # the operator's memory
    ran: tuple[int, str] | None = None
    data_gone: bool = False
    issued: Credentials | None = None
    view: tuple[Unit, ...] | None = None  # what it saw last
    heard: bool | None = None  # what it knows of ``own``
    counted: int | None = None  # since when it knows that
    told: tuple[bool, bool] = (False, False)  # what it knows of ``waiting`` and ``flying``
    last_task: datetime | None = None
    not_idle_before: datetime | None = None
    # what only the model knows
    released: frozenset[int] = frozenset()
    worked: int = 0  # when it last had a task that the operator had a chance to know of, or began to serve
    wiped: bool = False
    unrecorded: bool = False  # wiped while no instance was left to tell that there had been one
    finished: bool = False
    cycles_from: int | None = None  # newest incarnation at the first edit of the token
    token_edits: int = 0
    bound: bool = False  # an intent existed at that edit

    def copy(self) -> State:
        return copy.copy(self)

    @property
    def top(self) -> int:
        """The newest incarnation that was ever decided or made."""
        known = (unit.incarnation for unit in self.units)
        return int(max(self.status.get("incarnation", 0), *known, *self.released, 0))

    @property
    def live(self) -> list[Unit]:
        return [unit for unit in self.units if unit.reading in LIVE]

    @property
    def goal(self) -> str:
        """Where it gets to in the end."""
        if self.deleted or self.desired != "Running" or not self.config.pause_after or not self.idles:
            return "Deleted" if self.deleted else self.desired
        return "Running" if self.working or self.waiting or self.flying else "Paused"

    @property
    def works(self) -> bool:
        """Whether the agent can do anything."""
        return self.serves and any(unit.reading is Reading.RUNNING for unit in self.units)

    @property
    def working(self) -> bool:
        """Whether it does something of its own."""
        return self.own and any(unit.reading in (Reading.RUNNING, Reading.FROZEN) for unit in self.units)

    @property
    def idle_paused(self) -> bool:
        return "pausedTime" in self.status.get("idle", {})

    def forget(self) -> None:
        """The operator's process is gone, and its memory with it."""
        self.ran, self.data_gone, self.issued, self.view = None, False, None, None
        self.heard, self.counted, self.told = None, None, (False, False)
        self.last_task = self.not_idle_before = None


def moment(seconds: int) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


@lru_cache(maxsize=100_000)
def seconds(text: str) -> int:
    return int((datetime.fromisoformat(text) - EPOCH).total_seconds())


def body(s: State) -> dict[str, Any]:
    """The object as the API server stores it."""
    config = s.config
    spec: dict[str, Any] = {
        "desiredState": s.desired,
        "className": "c",
        "image": f"image:{s.template}",
        "storage": {"whenDeleted": "Delete" if config.delete_data else "Retain"},
        "agent": {"port": 8080, "probe": "Lease" if config.pause_after and config.credentials else "AgentCard"},
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "updatePolicy": "Automatic" if config.automatic else "OnRestart",
        "provisionTimeout": f"{config.timeout}s",
    }
    if s.token:
        spec["restartToken"] = f"token-{s.token}"
    if config.pause_after and s.idles:
        spec["idle"] = {"pauseAfter": f"{config.pause_after}s"}
    metadata: dict[str, Any] = {
        "name": "w",
        "namespace": "n",
        "uid": "u",
        "generation": s.generation,
        "resourceVersion": str(s.version),
        "finalizers": [FINALIZER],
    }
    if s.deleted:
        metadata["deletionTimestamp"] = EPOCH.isoformat()
    return {"metadata": metadata, "spec": spec, "status": s.status}


def ready(s: State) -> dict[str, Any]:
    found: dict[str, Any] = next((c for c in s.status.get("conditions", ()) if c["type"] == "Ready"), {})
    return found


def thresholds(s: State) -> list[int]:
    """Moments at which something may come out differently."""
    found = [unit.since + GRACE for unit in s.units if unit.reading is Reading.HALTING]
    instance, failures, credentials = (s.status.get(key) for key in ("instance", "failures", "credentials"))
    if instance and instance.get("since") and s.config.patient:
        found.append(seconds(instance["since"]) + s.config.timeout)
    if failures:
        found.append(seconds(failures["retryAfter"]))
        found.append(_forget_at(s, failures["count"]))
    if credentials:
        found.append(seconds(credentials["expires"]) - LIFETIME // 3)
    if s.config.pause_after and "idle" in s.status:
        found.append(idle_since(s) + s.config.pause_after)
    return [at for at in found if at > s.now]


def idle_since(s: State) -> int:
    """As the operator knows it."""
    remembered = math.ceil((s.last_task - EPOCH).total_seconds()) if s.last_task is not None else 0
    return max(seconds(s.status["idle"]["lastTaskTime"]), remembered, s.counted or 0, s.delegated or 0)


def _forget_at(s: State, count: int) -> int:
    condition = ready(s)
    if condition.get("status") != "True":
        return -1
    return seconds(condition["lastTransitionTime"]) + int(backoff.stable_after(count).total_seconds())


def key(s: State) -> tuple[Any, ...]:
    """Equal for states that differ only in what no decision depends on."""
    top, now, status = s.top, s.now, s.status
    instance, failures, credentials = status.get("instance"), status.get("failures"), status.get("credentials")
    return (
        (s.faults, s.edits, s.desired, s.deleted, s.token, s.template, s.class_there, s.references_there, s.serves),
        (s.data, s.secret, s.delivered, s.wiped, s.unrecorded, s.finished, s.data_gone, s.issued is not None),
        _instance_key(s, instance, top) if instance else None,
        _failures_key(s, failures, instance) if failures else None,
        credentials and now >= seconds(credentials["expires"]) - LIFETIME // 3,
        (status.get("phase"), ready(s).get("status"), status.get("observedGeneration") == s.generation),
        (status.get("incarnation", 0) - top, status.get("restartToken"), status.get("pendingRestart")),
        tuple(_unit_key(unit, top, now) for unit in s.units),
        tuple(_unit_key(unit, top, now) for unit in s.view) if s.faults and s.view is not None else None,
        _idle_key(s),
        (s.cycles_from is not None and min(top - s.cycles_from, 3), s.bound, s.token_edits),
    )


def _idle_key(s: State) -> tuple[Any, ...] | None:
    if not s.config.pause_after:
        return None
    told = (s.tasks, s.idles, s.working, s.waiting, s.flying, s.told, s.idle_paused)
    if not s.works or not (s.status.get("instance") or {}).get("served") or "idle" not in s.status:
        return told  # time counts from when the agent answers
    ages = [s.now - s.worked, s.now - idle_since(s), s.now - seconds(s.status["idle"]["lastTaskTime"])]
    held = s.not_idle_before is not None and s.not_idle_before > moment(s.now)
    kept = 3 if "crash" in s.config.faults else 2  # the record counts where memory may be lost
    return (*told, s.heard, held, *(min(age, s.config.pause_after) for age in ages[:kept]))


def _unit_key(unit: Unit, top: int, now: int) -> tuple[Any, ...]:
    ending = unit.reading is Reading.HALTING and now < unit.since + GRACE
    return unit.incarnation - top, unit.reading, unit.parameters, ending, unit.released


def _instance_key(s: State, instance: dict[str, Any], top: int) -> tuple[Any, ...]:
    since = instance.get("since")
    overdue = since is not None and s.now >= seconds(since) + s.config.timeout
    mark = (instance["incarnation"], since)
    return (
        instance["incarnation"] - top,
        instance["parameters"],
        since is not None,
        overdue,
        instance.get("served", False),
        since is not None and s.ran == mark,
    )


def _failures_key(s: State, failures: dict[str, Any], instance: dict[str, Any] | None) -> tuple[Any, ...]:
    retry = seconds(failures["retryAfter"])
    since = (instance or {}).get("since")
    return (
        min(failures["count"], 2),
        failures["reason"],
        s.now < retry,
        failures["observedGeneration"] == s.generation,
        since is not None and retry > seconds(since),
        s.now >= _forget_at(s, failures["count"]),
    )


# -- what happens by itself, and what people do ------------------------------------------------------------------------


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
