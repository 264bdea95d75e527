"""What a pass works with: one value that holds every collaborator, and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from workspace_operator.backends.door import Door
from workspace_operator.kube.client import KubeClient
from workspace_operator.kube.events import EventPoster
from workspace_operator.kube.identity import Credentials, Identities
from workspace_operator.lifecycle.facts import Goal
from workspace_operator.reconcile.activity import NOTHING, Activity
from workspace_operator.reconcile.observer import Observer
from workspace_operator.reconcile.serving import LeaseBook, Prober
from workspace_operator.reconcile.store import Store
from workspace_operator.reconcile.sweepreport import SweepReport


class Clock:
    """Wall-clock time that runs with the monotonic clock: a jump of the system clock does not reach the plan."""

    def __init__(self) -> None:
        self._wall, self._monotonic = datetime.now(UTC), time.monotonic()

    def now(self) -> datetime:
        return self._wall + timedelta(seconds=time.monotonic() - self._monotonic)


@dataclass
class Memory:
    """What this process remembers of one workspace; losing it costs a little time and nothing else."""

    ran: tuple[int, str] | None = None  # incarnation and start in which it was seen running
    alone: int = 0  # incarnation that no older one is left beside, as a fresh look has shown
    data_gone: bool = False
    credentials: Credentials | None = None  # issued, not yet delivered
    finished: float | None = None  # monotonic time since which the finalizer may go
    written: float = 0.0  # monotonic time of the last status write
    goal: Goal | None = None
    goal_since: float = 0.0  # monotonic
    goal_reached: bool = False
    generation: int = 0
    last_task: datetime | None = None  # when the agent was last known to have a task
    not_idle_before: datetime | None = None  # the reads that decide on it failed


@dataclass
class World:
    """The collaborators of all passes."""

    cluster: str
    client: KubeClient
    store: Store
    door: Door
    observer: Observer
    identities: Identities
    events: EventPoster
    leases: LeaseBook
    prober: Prober
    wake: Callable[[str], None]  # a workspace's key
    wake_class: Callable[[str], None]
    activity: Callable[[str], Activity] = lambda _: NOTHING  # of a workspace's key: what delegations ask of it
    clock: Clock = field(default_factory=Clock)
    memories: dict[str, Memory] = field(default_factory=dict)
    sweeps: dict[str, SweepReport] = field(default_factory=dict)  # by class name

    def memory(self, uid: str) -> Memory:
        return self.memories.setdefault(uid, Memory())

    def forget(self, uid: str, class_name: str | None) -> None:
        """Drop everything kept of a workspace that is gone."""
        self.memories.pop(uid, None)
        self.prober.forget(uid)
        if class_name is not None:
            self.observer.forget(class_name, uid)
