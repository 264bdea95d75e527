"""The kopf handlers: they turn events into keys and nothing else. kopf is imported here and in :mod:`app` only.

All are coroutines, though none waits: kopf runs plain functions in threads, and the runtime belongs to the loop.
Never a patch from ``on.event``, no index, no diff-base annotation, no worker limit: the measurements are in
CONTRIBUTING.md. Change handlers are not needed, because every event of an object, whatever changed, wakes its pass.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import kopf

from workspace_operator.api import meta
from workspace_operator.reconcile.runtime import MANAGED_LEASES, Runtime

SWEEP_TICK = 1.0  # seconds; the class says how often it is really swept
RELEASE_WAIT = 30.0  # seconds a deletion is waited for before kopf looks at the object's other events again


def register(runtime: Runtime) -> kopf.OperatorRegistry:
    """All handlers of the operator; ``tests/unit/test_handlers.py`` lists them (I-80)."""
    registry = kopf.OperatorRegistry()
    workspaces = (meta.GROUP, meta.VERSION, meta.WORKSPACES)
    classes = (meta.GROUP, meta.VERSION, meta.WORKSPACE_CLASSES)

    @kopf.on.event(*workspaces, registry=registry, id="workspace")
    async def workspace_event(event: kopf.RawEvent, **_: Any) -> None:
        runtime.watch_beats[meta.WORKSPACES].beat()
        runtime.workspace_seen(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event(*classes, registry=registry, id="class")
    async def class_event(event: kopf.RawEvent, **_: Any) -> None:
        runtime.watch_beats[meta.WORKSPACE_CLASSES].beat()
        runtime.class_seen(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event(meta.GROUP, meta.VERSION, meta.DELEGATIONS, registry=registry, id="delegation")
    async def delegation_event(event: kopf.RawEvent, **_: Any) -> None:
        runtime.watch_beats[meta.DELEGATIONS].beat()
        runtime.delegation_seen(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event(
        "coordination.k8s.io", "v1", "leases", registry=registry, id="lease", labels={meta.LABEL_NAME: kopf.PRESENT}
    )
    async def lease_event(event: kopf.RawEvent, **_: Any) -> None:
        runtime.watch_beats["leases"].beat()
        runtime.lease_seen(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.delete(*workspaces, registry=registry, id="release")
    async def workspace_deletion(body: kopf.Body, **_: Any) -> None:
        """Gives objects the finalizer; returning lets it go."""
        if not await runtime.until_released(dict(body), RELEASE_WAIT):
            raise kopf.TemporaryError("the compute is not seen gone yet", delay=1)

    @kopf.on.delete(*classes, registry=registry, id="unuse")
    async def class_deletion(body: kopf.Body, **_: Any) -> None:
        """A class stays while workspaces use it."""
        if not await runtime.until_unused(dict(body), RELEASE_WAIT):
            raise kopf.TemporaryError("workspaces use this class", delay=1)

    @kopf.on.timer(*classes, registry=registry, id="sweep", interval=SWEEP_TICK)
    async def class_timer(name: str, **_: Any) -> None:
        runtime.sweep_due(name)

    return registry


class NoDiffBase(kopf.DiffBaseStorage):
    """Objects carry no copy of themselves in an annotation (I-88)."""

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return self.build(body=body)

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is stored."""


class EndlessBackoff:
    """Re-iterable and endless: errors of the API server are ridden out instead of ending the process."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            delay = min(30.0, delay * 2)


def settings() -> kopf.OperatorSettings:
    """kopf's settings; the reasons are measured (CONTRIBUTING.md, "How kopf is used")."""
    chosen = kopf.OperatorSettings()
    chosen.persistence.finalizer = meta.FINALIZER
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=meta.GROUP, v1=False)
    chosen.persistence.diffbase_storage = NoDiffBase()
    chosen.networking.error_backoffs = EndlessBackoff()
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 330
    chosen.watching.reconnect_backoff = 1.0
    chosen.watching.label_selectors["coordination.k8s.io", "v1", "leases"] = MANAGED_LEASES
    chosen.queueing.error_delays = (1, 2, 3, 5, 8, 13, 21, 34, 60)
    chosen.execution.default_backoff = 10
    chosen.posting.enabled = False  # Events are our own, on transitions only
    chosen.peering.standalone = True  # leadership is by our own Lease
    chosen.scanning.disabled = True
    chosen.process.ultimate_exiting_timeout = 25
    return chosen
