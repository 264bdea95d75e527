"""Everything that delegations need while this process leads: book, queue, talks, sweeper; and what they tell others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from workspace_operator.a2a.client import AgentClient
from workspace_operator.api.workspace import ObjectMeta
from workspace_operator.kube.client import KubeClient, persist
from workspace_operator.kube.events import EventPoster
from workspace_operator.kube.grants import Grants
from workspace_operator.lifecycle import moments
from workspace_operator.reconcile.activity import Activity
from workspace_operator.reconcile.delegation.book import Book, Entry
from workspace_operator.reconcile.delegation.desk import Desk
from workspace_operator.reconcile.delegation.errands import Errands
from workspace_operator.reconcile.delegation.ledger import INTERVAL, OVERDUE, Ledger
from workspace_operator.reconcile.delegation.reconciler import DelegationReconciler
from workspace_operator.reconcile.queue import KeyedQueue
from workspace_operator.reconcile.store import Store, key_of
from workspace_operator.reconcile.world import Clock
from workspace_operator.telemetry import metrics
from workspace_operator.telemetry.loops import Supervisor, forever

log = logging.getLogger(__name__)

WORKERS = 32
PASS_DEADLINE = 60.0
_GATHER = 0.02  # seconds in which changes of what a sender may read are gathered


class Delegations:
    """The office that handles delegations; the runtime tells it what it sees."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        events: EventPoster,
        wake_workspace: Callable[[str], None],
        leading: Callable[[], bool],
    ) -> None:
        self._agents, self._book, clock = AgentClient(), Book(self._changed), Clock()
        self._errands = Errands(self._agents, clock.now, self.wake, leading)
        self._desk = Desk(client, store, self._book, self._errands, events, self.wake, wake_workspace, clock)
        self._reconciler = DelegationReconciler(self._desk)
        self.queue = KeyedQueue("delegation", self._reconciler, WORKERS, PASS_DEADLINE)
        self._grants, self._senders = Grants(client), set[str]()
        self._ledger = Ledger(self._desk, self.seen, self._dropped)

    async def start(self, supervisor: Supervisor) -> None:
        """List all, so that every claimed place is known before the first one is given away; then begin."""
        await persist("the list of delegations", self._ledger.sweep)
        supervisor.start("queue/delegation", self.queue.run())
        beat = supervisor.heartbeat("delegations", OVERDUE)
        supervisor.start("grants", self._grants.run(supervisor.heartbeat("grants", OVERDUE)))
        supervisor.start("delegations", forever(beat, lambda: INTERVAL, self._ledger.sweep))

    async def stop(self) -> None:
        """Break off all talks: the objects say what was claimed."""
        await self._errands.close()
        await self._agents.close()

    def collect(self) -> None:
        """Refresh the gauges, right before a scrape."""
        self._ledger.count()
        metrics.TALKS.set(len(self._errands))

    def wake(self, key: str) -> None:
        """Have a pass over a delegation soon."""
        self.queue.add(key)

    def activity(self, workspace: str) -> Activity:
        """What delegations ask of a workspace."""
        return self._book.activity(workspace)

    def seen(self, body: dict[str, Any], *, deleted: bool = False) -> None:
        """A delegation as a watch or listing shows it."""
        metadata = body["metadata"]
        key = key_of(metadata["namespace"], metadata["name"])
        if deleted:
            self._dropped(key, metadata["uid"], int(metadata["resourceVersion"]))
            return
        try:
            changed = self._book.put(body)
        except ValidationError as error:
            log.error("delegation %s does not fit this operator's schema and is left alone: %s", key, error)
            return
        if changed:
            self.wake(key)

    def workspace_changed(self, workspace: str) -> None:
        """A workspace came, went, or changed in what delegations need of it."""
        self._grant(workspace)
        for key, entry in (*self._book.to(workspace), *self._book.by(workspace)):
            if not entry.over:
                self.wake(key)

    def workspace_gone(self, uid: str) -> None:
        """A workspace was deleted, and what it was granted with it."""
        self._grants.forget(uid)

    def _dropped(self, key: str, uid: str, deleted_at: int | None = None) -> None:
        entry = self._book.get(key)
        self._reconciler.dropped(key, uid, deleted_at)
        if entry is not None:
            self._grant(entry.source)

    def _grant(self, workspace: str) -> None:
        """What a workspace may read back has changed; said once for many changes, for it is said in full."""
        if not self._senders:
            asyncio.get_running_loop().call_later(_GATHER, self._grant_all)
        self._senders.add(workspace)

    def _grant_all(self) -> None:
        """A workspace may read back what it has sent; what a deleted namesake of it sent is not its own."""
        for workspace in self._senders:
            sender = self._desk.store.get(workspace)
            if sender is not None:
                names = [e.name for _, e in self._book.by(workspace) if moments.text(e.created) >= sender.created]
                self._grants.wish(ObjectMeta(name=sender.name, namespace=sender.namespace, uid=sender.uid), names)
        self._senders.clear()

    def _changed(self, before: Entry | None, after: Entry) -> None:
        """A new delegation is granted to its sender, one that is over makes room for the next, and a workspace that
        idles wants to know whether it is wanted."""
        if before is None:
            self._grant(after.source)
        elif after.over and not before.over:
            self._reconciler.place_free(after.target)
        if before is not None and _asks(before) == _asks(after):
            return
        target = self._desk.store.get(after.target)
        if target is not None and target.receiver.idles:
            self._desk.wake_workspace(after.target)


def _asks(entry: Entry) -> tuple[bool, bool, bool]:
    return entry.in_flight, entry.wakes, entry.over
