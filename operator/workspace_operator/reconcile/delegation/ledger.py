"""The delegation sweeper: a listing of its own in every minute, that finds what no event has told of.

Each delegation's own pass knows when it is due (its deadline, its silence, its time to live); this is what bounds the
cost of a lost wake-up, and what counts (I-66, I-68, I-69).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from workspace_operator.api.states import DelegationPhase
from workspace_operator.kube.client import NotFound, Object, delegations
from workspace_operator.reconcile.delegation.book import Entry
from workspace_operator.reconcile.delegation.desk import Desk
from workspace_operator.reconcile.store import key_of
from workspace_operator.telemetry import metrics

INTERVAL = 60.0  # seconds
OVERDUE = 5 * INTERVAL


class Ledger:
    """Lists all delegations; ``seen`` and ``dropped`` are told what a watch should have told."""

    def __init__(self, desk: Desk, seen: Callable[[Object], None], dropped: Callable[[str, str], None]) -> None:
        self._desk, self._seen, self._dropped = desk, seen, dropped

    async def sweep(self) -> None:
        """One listing. Raises KubeError; then nothing is concluded from what was not listed."""
        before = {key: entry.uid for key, entry in self._desk.book.entries()}
        async for body in self._desk.client.list(delegations()):
            before.pop(key_of(body["metadata"]["namespace"], body["metadata"]["name"]), None)
            self._seen(body)
        for key, uid in before.items():
            entry = self._desk.book.get(key)
            if entry is not None and entry.uid == uid and not await self._exists(entry):
                self._dropped(key, uid)
        for key, entry in self._desk.book.entries():
            if self._is_due(entry):
                self._desk.wake(key)
        self.count()

    def count(self) -> None:
        """Refresh the gauges of delegations by phase, and of the one that waits longest."""
        phases = Counter(entry.phase or DelegationPhase.QUEUED for _, entry in self._desk.book.entries())
        queued = (e.created for _, e in self._desk.book.entries() if e.phase in (None, DelegationPhase.QUEUED))
        now = self._desk.clock.now()
        metrics.DELEGATION_OLDEST_QUEUED.set((now - min(queued, default=now)).total_seconds())
        for phase in DelegationPhase:
            metrics.DELEGATIONS.labels(phase).set(phases.get(phase, 0))

    def _is_due(self, entry: Entry) -> bool:
        due = entry.delete_at if entry.over else entry.deadline
        return (entry.over and entry.claimed) or (due is not None and due <= self._desk.clock.now())

    async def _exists(self, entry: Entry) -> bool:
        """A listing may be of the past: what it lacks is taken for gone only after it was asked for by name."""
        try:
            found = await self._desk.client.get(delegations(entry.namespace, entry.name))
        except NotFound:
            return False
        return bool(found["metadata"]["uid"] == entry.uid)
