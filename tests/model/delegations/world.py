"""The model's world of one delegation: the object, its target, the agent there, and what the operator remembers.

A state is copied, never changed in place, once it is known to the explorer. Every delegation is over a short time after
its deadline, so time itself is bounded, and the exploration closes without an abstraction from it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from tests.model.world import EPOCH

from workspace_operator.a2a.values import Answer, TaskState, TaskView
from workspace_operator.api.meta import CLAIM_FINALIZER
from workspace_operator.api.states import TERMINAL
from workspace_operator.lifecycle.delegation.table import Step
from workspace_operator.reconcile.delegation.errands import Talk
from workspace_operator.reconcile.delegation.reconciler import UNWRITTEN

NAMESPACE, SENDER, TARGET = "n", "a", "b"
KEY, UID = "n/a.job", "u"
BOOTED = 1000.0  # what the monotonic clock shows at EPOCH
SHORT, LONG = b"done", b"d" * 5000


@dataclass(frozen=True)
class Config:
    """What stays as it is during one exploration."""

    name: str
    knows_doubles: bool = True  # the agent works once on a message, however often it comes
    lists: bool = True  # it can be asked for its tasks
    keeps_tasks: bool = True  # otherwise it answers with a plain message
    forgets: bool = False  # its tasks are gone when it stops
    asks: bool = False  # it may ask for input, once
    long: bool = False  # its answer is longer than the preview
    may_resend: bool = True
    max_attempts: int | None = None
    related: bool = True  # the sender may delegate to the target
    edits: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    edit_budget: int = 0
    fault_budget: int = 0
    races: bool = False  # the user also edits in the middle of passes
    deadline: int = 20  # seconds, as the next two
    stuck_after: int = 60
    ttl: int = 5

    @property
    def unwritten(self) -> float:
        """Seconds that a task in flight goes without a status write; only a crash or a failed write may lose it."""
        return UNWRITTEN if {"crash", "api"} & set(self.faults) else 0.0


@dataclass(frozen=True)
class Task:
    """One task at the agent, as it really is."""

    number: int
    state: TaskState

    def view(self, config: Config) -> TaskView:
        over = self.state is TaskState.COMPLETED
        answer = Answer(LONG if config.long else SHORT) if over else None
        said = "more, please" if self.state is TaskState.INPUT_REQUIRED else ""
        return TaskView(f"t{self.number}", "context", self.state, said, answer)


@dataclass(frozen=True)
class Errand:
    """A talk that is under way."""

    kind: Step
    made: int  # which of the workspaces of this name is talked to
    task_id: str = ""


@dataclass
class State:
    """Shallow copies share only immutable values (a status is replaced, never changed; a talk is copied)."""

    config: Config
    faults: int
    edits: int
    # the object
    there: bool = True
    desired: str = "Running"
    deleted: bool = False
    claimed: bool = False
    generation: int = 1
    version: int = 1
    status: dict[str, Any] = field(default_factory=dict)
    kept: bool = False  # the ConfigMap with a long answer exists
    # the target, and its agent
    target: str = "serves"  # silent, paused, idle, stopped, starting, deleting, gone
    made: int = 1  # how often a workspace of this name was made
    sender: bool = True
    related: bool = True
    occupied: bool = False  # another delegation has the target's only place
    tasks: tuple[Task, ...] = ()
    worked: int = 0  # how often the agent has begun to work on the message
    numbered: int = 0  # tasks that it ever had
    asked: bool = False  # it has asked for input already
    # the operator's memory
    talk: Talk | None = None
    errand: Errand | None = None
    wake_at: float | None = 0.0  # when the queue begins the next pass at the latest
    # what only the model knows
    now: float = 0.0
    elsewhere: int = 0  # how much of ``worked`` was done by earlier workspaces of this name
    denied: int = 0  # how much of ``worked`` the agent has denied when it was asked
    lapses: int = 0  # failed passes: each may cost a second
    begun: float = 0.0  # when the operator's process began
    cancelled_at: float | None = None  # since when this process can know that it is to end early
    told: frozenset[str] = frozenset()  # what the agent has said for good

    def copy(self) -> State:
        made = copy.copy(self)
        made.talk = replace(self.talk) if self.talk is not None else None
        return made

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", "Queued"))

    @property
    def over(self) -> bool:
        return self.phase in TERMINAL

    @property
    def ends_early(self) -> bool:
        """Whether somebody wants it to end before its deadline."""
        return self.desired == "Stopped" or self.deleted or not self.sender

    @property
    def alive(self) -> list[Task]:
        """Tasks that the agent works on."""
        return [task for task in self.tasks if not task.state.over]

    def task(self, task_id: str) -> Task | None:
        return next((task for task in self.tasks if f"t{task.number}" == task_id), None)

    def put(self, task: Task) -> None:
        self.tasks = (*(t for t in self.tasks if t.number != task.number), task)

    def reaches(self, errand: Errand | None) -> bool:
        """Whether the agent that is talked to can answer."""
        return errand is not None and self.target == "serves" and errand.made == self.made

    def known_task(self) -> str | None:
        """The id on record."""
        return (self.status.get("task") or {}).get("id")

    def forget(self) -> None:
        """The operator's process is gone; the next one lists, and looks at everything."""
        self.talk, self.errand, self.wake_at, self.begun = None, None, self.now, self.now
        self.cancelled_at = self.now if self.ends_early else None


def moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


@lru_cache(maxsize=100_000)
def seconds(text: str) -> float:
    return (datetime.fromisoformat(text) - EPOCH).total_seconds()


def since_epoch(at: datetime) -> float:
    return round((at - EPOCH).total_seconds(), 3)


def body(s: State) -> dict[str, Any]:
    """The object as the API server stores it."""
    config = s.config
    retry: dict[str, Any] = {"whenAmbiguous": "Resend" if config.may_resend else "Fail"}
    if config.max_attempts is not None:
        retry["maxAttempts"] = config.max_attempts
    metadata: dict[str, Any] = {
        "name": KEY.partition("/")[2],
        "namespace": NAMESPACE,
        "uid": UID,
        "generation": s.generation,
        "resourceVersion": str(s.version),
        "creationTimestamp": EPOCH.isoformat(),
        "finalizers": [CLAIM_FINALIZER] if s.claimed else [],
    }
    if s.deleted:
        metadata["deletionTimestamp"] = EPOCH.isoformat()
    spec = {
        "from": {"name": SENDER},
        "to": {"name": TARGET},
        "message": {"text": "do it"},
        "desiredState": s.desired,
        "deadline": f"{config.deadline}s",
        "stuckAfter": f"{config.stuck_after}s",
        "ttlAfterFinished": f"{config.ttl}s",
        "retry": retry,
    }
    return {"metadata": metadata, "spec": spec, "status": s.status}


#: phase, effective state and its reason, endpoint, whether the agent answers; of a target that exists.
_TARGETS: dict[str, tuple[str, str, str, bool, bool]] = {
    "serves": ("Running", "Running", "User", True, True),
    "silent": ("Running", "Running", "User", True, False),
    "starting": ("Starting", "Running", "User", False, False),
    "paused": ("Paused", "Paused", "Parent", False, False),
    "idle": ("Paused", "Paused", "IdleTimeout", False, False),
    "stopped": ("Stopped", "Stopped", "User", False, False),
    "deleting": ("Deleting", "Running", "User", False, False),
}


def workspaces(s: State) -> dict[str, dict[str, Any]]:
    """The sender and the target as the API server stores them, by name."""
    found = {}
    if s.sender:
        found[SENDER] = workspace(SENDER, "a-1", "stopped")
    if s.target != "gone":
        found[TARGET] = workspace(TARGET, f"b-{s.made}", s.target)
        if not (s.related and s.config.related):
            found[TARGET]["spec"]["parentRef"] = {"name": "somebody"}
            found["somebody"] = workspace("somebody", "s-1", "stopped")
    return found


def workspace(name: str, uid: str, how: str, address: str = "10.0.0.1:80", capacity: int = 1) -> dict[str, Any]:
    """A workspace as the API server stores it."""
    phase, effective, reason, reached, answers = _TARGETS[how]
    available = {"type": "Available", "status": "True" if answers else "False", "reason": "R", "message": "M."}
    status: dict[str, Any] = {
        "phase": phase,
        "effectiveState": effective,
        "effectiveReason": reason,
        "conditions": [{**available, "lastTransitionTime": EPOCH.isoformat()}],
    }
    if reached:
        status["endpoint"] = f"http://{address}"
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "uid": uid, "resourceVersion": "1"}
    if how == "deleting":
        metadata["deletionTimestamp"] = EPOCH.isoformat()
    desired = "Stopped" if how == "stopped" else "Running"
    spec = {"desiredState": desired, "className": "c", "agent": {"maxConcurrentTasks": capacity}}
    return {"metadata": metadata, "spec": spec, "status": status}


def thresholds(s: State) -> list[float]:
    """Moments at which something may come out differently, beside those at which a pass is due."""
    if s.over:
        return []
    deadline = float(s.config.deadline)
    found = [deadline, _last_sign(s) + s.config.stuck_after]
    return [at for at in found if s.now < at <= deadline]


def _last_sign(s: State) -> float:
    known = [seconds(s.status[name]) for name in ("heartbeatTime", "startTime") if name in s.status]
    if s.talk is not None and s.talk.heartbeat is not None:
        known.append(since_epoch(s.talk.heartbeat))
    return max(known, default=0.0)


def key(s: State) -> tuple[Any, ...]:
    """Equal for states that differ only in what no decision depends on."""
    if not s.there:
        return ("gone",)
    if s.over and not s.claimed:
        age, ahead = s.now - seconds(s.status["finishTime"]), None if s.wake_at is None else s.wake_at - s.now
        return ("over", s.phase, s.edits, s.faults, age, ahead, s.lapses)
    return (
        (s.faults, s.edits, s.desired, s.deleted, s.claimed, s.kept, s.now, s.wake_at, s.lapses),
        (s.target, min(s.made, 2), s.sender, s.related, s.occupied, s.asked, s.told),
        (max(s.begun, s.config.deadline), s.cancelled_at),
        _agent_key(s),
        _status_key(s),
        _talk_key(s),
    )


def _agent_key(s: State) -> tuple[Any, ...]:
    errand = s.errand
    doubles = s.worked - s.status.get("resends", 0) if not s.config.knows_doubles else 0
    return (
        tuple((s.numbered - task.number, task.state) for task in s.tasks),
        (s.worked > s.elsewhere, doubles, s.worked - s.denied if not s.config.may_resend else 0),
        (errand.kind, errand.made == s.made, _age(s, errand.task_id)) if errand is not None else None,
    )


def _age(s: State, task_id: str | None) -> int | None:
    """A task, counted from the newest."""
    return s.numbered - int(task_id[1:]) if task_id else None


def _status_key(s: State) -> tuple[Any, ...]:
    status = s.status
    task, retry, sent = status.get("task") or {}, status.get("retryAfter"), status.get("attemptCount", 0)
    return (
        (s.phase, "phase" in status, status.get("queuedReason"), status.get("failedDeliveries", 0)),
        (_age(s, task.get("id")), task.get("state"), task.get("targetUid")),
        tuple((sent - attempt["number"], attempt["reason"]) for attempt in status.get("attempts", ())),
        retry if retry and seconds(retry) > s.now else None,
        "startTime" in status,
        min(max(_last_sign(s) + s.config.stuck_after, s.now), max(s.config.deadline, s.now)),
        tuple((c["type"], c["status"]) for c in status.get("conditions", ())),
    )


def _talk_key(s: State) -> tuple[Any, ...] | None:
    talk = s.talk
    if talk is None:
        return None
    not_before = since_epoch(talk.not_before) if talk.not_before is not None else 0.0
    failures = tuple(f.reason if f is not None else None for f in (talk.failed, talk.refused, talk.unusable))
    ahead = talk.attempt - s.status.get("attemptCount", 0) if talk.attempt else None
    return (
        (talk.under_way, ahead, talk.cannot_ask, talk.unanswered, talk.target_uid, failures),
        (talk.undelivered, talk.doubt, talk.blind, talk.counted),
        (_age(s, talk.view.id), talk.view.state) if talk.view is not None else None,
        not_before if not_before > s.now else None,
        talk.cancellation.outcome if talk.cancellation is not None else None,
        since_epoch(talk.cancel_since) if talk.cancel_since is not None else None,
        max(talk.claimed + s.config.unwritten - BOOTED, s.now) if talk.claimed else None,
    )


def text(s: State) -> str:
    """One line about a state, for a trace."""
    if not s.there:
        return "the object is gone"
    status, talk = s.status, s.talk
    task = s.known_task()
    at_the_agent = ", ".join(f"t{t.number} {t.state}" for t in s.tasks) or "no task"
    remembers = "nothing" if talk is None else _remembered(s, talk)
    return (
        f"[{s.now:g} s] wish {'delete' if s.deleted else s.desired}; {status.get('phase', 'new')}"
        f"{' claimed' if s.claimed else ''}{f' task {task}' if task else ''}, {status.get('resends', 0)} resends; "
        f"target {s.target}: {at_the_agent}, worked {s.worked} times; remembers {remembers}"
    )


def _remembered(s: State, talk: Talk) -> str:
    parts = [f"under way {s.errand.kind}" if s.errand is not None else "", "undelivered" if talk.undelivered else ""]
    parts += [f"sees {talk.view.state}" if talk.view is not None else "", f"{talk.unanswered} unanswered"]
    parts.append(f"rests until {since_epoch(talk.not_before):g}" if talk.not_before is not None else "")
    return ", ".join(part for part in parts if part)
