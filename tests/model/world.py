"""The model's world: everything there is outside the operator, its memory, and the clock, as one value.

A state is copied, never changed in place, once it is known to the explorer. ``key`` abstracts from absolute times and
incarnation numbers, so that the exploration closes.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
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
    halts: bool = True  # what is stopped stays; else every stop is a release, as of pods
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
