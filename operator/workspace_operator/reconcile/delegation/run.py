"""The state of one pass over one delegation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from workspace_operator.api.delegation import Delegation, DelegationStatus
from workspace_operator.errors import Failure
from workspace_operator.kube.client import delegations
from workspace_operator.lifecycle.delegation.facts import Goal, Sight, Situation, Wish
from workspace_operator.lifecycle.delegation.plan import GUARDS
from workspace_operator.lifecycle.delegation.table import Guard
from workspace_operator.reconcile.delegation.book import Entry
from workspace_operator.reconcile.delegation.desk import Desk
from workspace_operator.reconcile.delegation.errands import Talk
from workspace_operator.reconcile.delegation.sight import absorb, see
from workspace_operator.reconcile.delegation.wishes import wish_of
from workspace_operator.reconcile.statuswrite import write_status
from workspace_operator.reconcile.store import Entry as WorkspaceEntry


@dataclass
class Run:
    """Lives for one pass. ``record`` is the status as it is going to be."""

    desk: Desk
    key: str
    entry: Entry
    delegation: Delegation
    talk: Talk
    gone: Failure | None
    record: DelegationStatus
    over: bool = False  # the object is gone, or going

    @property
    def uid(self) -> str:
        return self.delegation.metadata.uid

    @property
    def target(self) -> WorkspaceEntry | None:
        return self.desk.store.get(self.entry.target)

    @property
    def capacity(self) -> int:
        return self.target.receiver.capacity if self.target is not None else 0

    @property
    def address(self) -> str | None:
        """Where the agent is, from observation (I-56)."""
        endpoint = self.target.receiver.endpoint if self.target is not None else None
        return endpoint.removeprefix("http://") if endpoint is not None else None

    def url(self, sub: str | None = None) -> str:
        metadata = self.delegation.metadata
        return delegations(metadata.namespace, metadata.name, sub)

    def situation(self) -> Situation:
        """Everything that the plan needs, as of now. Standing in line is part of it."""
        now = self.desk.clock.now()
        wish = wish_of(self.delegation, self.talk, self.desk.store, now, self.gone)
        self.record = absorb(self.record, self.talk, self.desk.clock)
        seen = see(self.record, self.talk, wish.goal, claimed=wish.claimed or self.record.task is not None)
        situation = Situation(wish, self.record, seen, now)
        return replace(situation, wish=replace(wish, turn=self._in_line(situation)))

    def _in_line(self, s: Situation) -> bool:
        """Whether it is its turn. What is held back for a reason of its own does not stand in anyone's way."""
        if not _stands(s.wish, s.seen.sight):
            return False
        return not GUARDS[Guard.RESTING](s) and self.desk.book.join(self.key, self.entry, self.capacity)

    async def write(self, status: DelegationStatus) -> None:
        """Write what changed; the next write builds on it. Raises KubeError."""
        metadata = self.delegation.metadata
        body = await write_status(
            self.desk.client, self.url("status"), metadata.resource_version, self.delegation.status, status
        )
        self.record = status
        if body is not None:
            self.adopt(body)

    def adopt(self, body: dict[str, Any]) -> None:
        """The object as one of our own writes has left it."""
        self.desk.book.put(body)
        self.delegation = Delegation.model_validate(body)
        self.record = self.delegation.status


def _stands(wish: Wish, sight: Sight) -> bool:
    waits = wish.goal is Goal.DELIVER and sight in (Sight.UNSENT, Sight.UNDELIVERED)
    return waits and wish.permitted and wish.hindrance is None
