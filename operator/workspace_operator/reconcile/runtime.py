"""Everything that runs while this process leads: queues, loops and their order of start and end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from pydantic import ValidationError

from workspace_operator.api import meta
from workspace_operator.api.meta import is_default_class
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.backends.door import Create, Door
from workspace_operator.backends.door import drivers as drivers_of
from workspace_operator.kube.client import KubeClient, NotFound, path, persist, workspace_classes, workspaces
from workspace_operator.kube.events import EventPoster
from workspace_operator.kube.identity import Identities
from workspace_operator.kube.leader import Leadership
from workspace_operator.kube.secrets import read_secret
from workspace_operator.reconcile.classes import COUNT_DELAY, ClassReconciler
from workspace_operator.reconcile.delegation.office import Delegations
from workspace_operator.reconcile.observer import Observer
from workspace_operator.reconcile.queue import KeyedQueue
from workspace_operator.reconcile.serving import LeaseBook, Prober
from workspace_operator.reconcile.store import Store, key_of
from workspace_operator.reconcile.sweeper import Sweeper
from workspace_operator.reconcile.workspace import WorkspaceReconciler
from workspace_operator.reconcile.world import World
from workspace_operator.telemetry import metrics
from workspace_operator.telemetry.loops import Supervisor, forever

log = logging.getLogger(__name__)

RESYNC_INTERVAL = 300.0  # seconds; bounds what a lost wake-up can cost
RESYNC_OVERDUE = 3 * RESYNC_INTERVAL
PASS_DEADLINE = 120.0
SWEEP_DEADLINE = 240.0
WORKERS, CLASS_WORKERS, SWEEP_WORKERS = 32, 4, 2
DRAIN = 15.0
MANAGED_LEASES = f"{meta.MANAGED_BY_LABEL}={meta.MANAGED_BY}"


class Runtime:
    """Built when this process begins to lead; the kopf handlers hand it what they see and nothing else."""

    def __init__(
        self,
        client: KubeClient,
        cluster: str,
        leadership: Leadership,
        supervisor: Supervisor,
        drivers: Mapping[str, Create] | None = None,
        workers: int = WORKERS,
    ) -> None:
        self.client, self.supervisor = client, supervisor
        self.store = Store(lambda key: self.delegations.workspace_changed(key))
        door = Door(cluster, partial(read_secret, client), lambda: leadership.valid, drivers or drivers_of(client))
        self.world = World(
            cluster=cluster,
            client=client,
            store=self.store,
            door=door,
            observer=Observer(door, supervisor, self._wake_uid, self._wake_class_members),
            identities=Identities(client),
            events=EventPoster(client, leadership.identity),
            leases=LeaseBook(),
            prober=Prober(self.wake),
            wake=self.wake,
            wake_class=lambda name: self.classes.add(name, COUNT_DELAY),
            activity=lambda key: self.delegations.activity(key),
        )
        self.delegations = Delegations(client, self.store, self.world.events, self.wake, lambda: leadership.valid)
        self.queue = KeyedQueue("workspace", WorkspaceReconciler(self.world, self._release), workers, PASS_DEADLINE)
        self.classes = KeyedQueue("workspaceclass", ClassReconciler(self.world), CLASS_WORKERS, PASS_DEADLINE)
        self.sweeper = Sweeper(self.world, supervisor)
        self.sweeps = KeyedQueue("sweep", self.sweeper, SWEEP_WORKERS, SWEEP_DEADLINE)
        self._released: dict[str, asyncio.Event] = {}
        self.synced = False

    async def start(self) -> None:
        """List everything once, so that the first passes know all there is, then start the loops."""
        supervisor = self.supervisor
        await persist("the list of classes", self._list_classes)
        await asyncio.gather(*(self.classes.work_now(name) for name in list(self.store.classes)))
        supervisor.start("queue/workspaceclass", self.classes.run())
        await persist("the list of Leases", self._list_leases)
        await persist("the list of workspaces", self._list_workspaces)
        await self.delegations.start(supervisor)
        supervisor.start("events", self.world.events.run(supervisor.heartbeat("events")))
        supervisor.start("queue/workspace", self.queue.run())
        supervisor.start("queue/sweep", self.sweeps.run())
        resync = supervisor.heartbeat("resync", RESYNC_OVERDUE)
        supervisor.start("resync", forever(resync, lambda: RESYNC_INTERVAL, self._resync))
        self.watch_beats = {
            kind: supervisor.heartbeat(f"event/{kind}")
            for kind in (meta.WORKSPACES, meta.WORKSPACE_CLASSES, meta.DELEGATIONS, "leases")
        }
        self.synced = True

    async def stop(self) -> None:
        """Finish the passes under way, then end everything; instances stay as they are."""
        await asyncio.gather(*(queue.drain(DRAIN) for queue in self._queues))
        await self.delegations.stop()
        await self.supervisor.stop_all()
        await self.world.prober.close()
        await self.world.door.close_all()

    @property
    def _queues(self) -> tuple[KeyedQueue, ...]:
        return self.queue, self.classes, self.sweeps, self.delegations.queue

    def collect(self) -> None:
        """Refresh gauges that are cheap to compute, right before a scrape."""
        for queue in self._queues:
            metrics.QUEUE_DEPTH.labels(queue.name).set(len(queue))
            metrics.QUEUE_OLDEST.labels(queue.name).set(queue.oldest)
            metrics.PASS_LONGEST.labels(queue.name).set(queue.longest)
        self.delegations.collect()

    # -- what the handlers hand over -----------------------------------------------------------------------------------

    def workspace_seen(self, body: dict[str, Any], *, deleted: bool) -> None:
        """A workspace as a watch or listing shows it."""
        metadata = body["metadata"]
        key = key_of(metadata["namespace"], metadata["name"])
        before = self.store.get(key)
        if deleted:
            changed = self.store.drop(key, metadata["uid"], int(metadata["resourceVersion"]))
            self._release(metadata["uid"])
            self.delegations.workspace_gone(metadata["uid"])
            self.world.forget(metadata["uid"], (body.get("status") or {}).get("className"))
        else:
            changed = self.store.put(body)
        if not changed:
            return
        self.wake(key)
        after = self.store.get(key)
        if (
            deleted
            or before is None
            or after is None
            or (before.desired, before.parent) != (after.desired, after.parent)
        ):
            for child in self.store.descendants(metadata["namespace"], metadata["name"]):
                self.wake(child)

    def class_seen(self, body: dict[str, Any], *, deleted: bool) -> None:
        """A class as a watch or listing shows it."""
        metadata = body["metadata"]
        name = metadata["name"]
        if deleted:
            self._class_gone(name, metadata["uid"], int(metadata["resourceVersion"]))
            return
        try:
            seen = WorkspaceClass.model_validate(body)
        except ValidationError as error:
            log.error("class %s does not fit this operator's schema and is left alone: %s", name, error)
            return
        before = self.store.classes.get(name)
        if not self.store.put_class(seen):
            return
        self.classes.add(name)
        was_default = before is not None and is_default_class(before.metadata.annotations)
        if before is None or was_default != is_default_class(seen.metadata.annotations):
            self._wake_class_members(name)

    def delegation_seen(self, body: dict[str, Any], *, deleted: bool) -> None:
        """A delegation as a watch shows it."""
        self.delegations.seen(body, deleted=deleted)

    def lease_seen(self, body: dict[str, Any], *, deleted: bool) -> None:
        """A Lease of an agent."""
        if self.world.leases.put(body, deleted=deleted):
            name = (body["metadata"].get("labels") or {}).get(meta.LABEL_NAME)
            if name:
                self.wake(key_of(body["metadata"]["namespace"], name))

    async def until_released(self, body: dict[str, Any], seconds: float) -> bool:
        """Have a deleted workspace's compute released; True once it was seen gone and the finalizer may go."""
        uid = body["metadata"]["uid"]
        released = self._released.setdefault(uid, asyncio.Event())
        self.workspace_seen(body, deleted=False)
        self.wake(key_of(body["metadata"]["namespace"], body["metadata"]["name"]))
        try:
            async with asyncio.timeout(seconds):
                await released.wait()
        except TimeoutError:
            return False
        self._released.pop(uid, None)
        return True

    async def until_unused(self, body: dict[str, Any], seconds: float) -> bool:
        """Keep a deleted class while workspaces use it: without it nobody could stop them. True once it may go."""
        self.class_seen(body, deleted=False)
        name, deadline = body["metadata"]["name"], time.monotonic() + seconds
        while any(self.store.users_of_class(name)):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(1)
        return True

    def sweep_due(self, name: str) -> None:
        """Sweep a class if it is time to; called by the kopf timer."""
        if name in self.store.classes and self.sweeper.is_due(name):
            self.sweeps.add(name)

    def wake(self, key: str) -> None:
        """Have a pass over a workspace soon."""
        self.queue.add(key)

    def _wake_uid(self, uid: str) -> None:
        key = self.store.key_by_uid(uid)
        if key is not None:
            self.wake(key)

    def _wake_class_members(self, name: str) -> None:
        for key in self.store.keys_of_class(name):
            self.wake(key)
        self.classes.add(name)

    def _class_gone(self, name: str, uid: str, deleted_at: int | None = None) -> None:
        if self.store.drop_class(name, uid, deleted_at):
            self.sweeper.forget(name)
            self.classes.add(name)

    def _release(self, uid: str) -> None:
        event = self._released.get(uid)
        if event is not None:
            event.set()

    # -- listings that do not depend on the watch ----------------------------------------------------------------------

    async def _list_classes(self) -> None:
        before = {name: known.metadata.uid for name, known in self.store.classes.items()}
        async for body in self.client.list(workspace_classes()):
            before.pop(body["metadata"]["name"], None)
            self.class_seen(body, deleted=False)
        for name, uid in before.items():  # known before the listing, and not in it
            if not await self._exists(workspace_classes(name), uid):
                self._class_gone(name, uid)

    async def _list_leases(self) -> None:
        async for lease in self.client.list(path("coordination.k8s.io/v1/leases"), labels=MANAGED_LEASES):
            self.world.leases.put(lease)

    async def _list_workspaces(self) -> None:
        before = {key: entry.uid for key, entry in self.store.entries()}
        async for body in self.client.list(workspaces()):
            before.pop(key_of(body["metadata"]["namespace"], body["metadata"]["name"]), None)
            self.workspace_seen(body, deleted=False)
        for key, uid in before.items():  # known before the listing, and not in it
            entry = self.store.get(key)
            if entry is None or entry.uid != uid:
                continue
            if not await self._exists(workspaces(entry.namespace, entry.name), uid):
                self.store.drop(key, uid)
                self._release(uid)

    async def _exists(self, url: str, uid: str) -> bool:
        """A listing may be of the past: what is missing in it is taken for gone only after it was asked for by name."""
        try:
            found = await self.client.get(url)
        except NotFound:
            return False
        return bool(found["metadata"]["uid"] == uid)

    async def _resync(self) -> None:
        """Level-triggered: whatever wake-up was lost, everything is looked at again (I-46)."""
        await self._list_classes()
        await self._list_workspaces()
        for key, _ in self.store.entries():
            self.queue.add(key, timedelta(seconds=random.uniform(1, 30)))  # noqa: S311 - spreads the load
