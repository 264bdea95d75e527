"""Kubernetes Events on transitions: posted in the background, bounded, and dropped rather than in anyone's way."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from uuid import uuid4

from workspace_operator.api import meta
from workspace_operator.api.workspace import ObjectMeta
from workspace_operator.kube.client import KubeClient, KubeError, Object, path
from workspace_operator.telemetry import metrics
from workspace_operator.telemetry.loops import Heartbeat

log = logging.getLogger(__name__)

_WAITING = 1000
_MESSAGE = 1024  # the API's own limit for an Event's note


class EventPoster:
    """Posts Events in order; ``run`` is its loop."""

    def __init__(self, client: KubeClient, instance: str) -> None:
        self._client, self._instance = client, instance
        self._queue: asyncio.Queue[Object] = asyncio.Queue(_WAITING)

    def post(self, about: ObjectMeta, kind: str, *, reason: str, message: str, warning: bool = False) -> None:
        """Queue one Event about an object; never blocks."""
        try:
            self._queue.put_nowait(self._event(about, kind, reason, message, warning))
        except asyncio.QueueFull:
            metrics.EVENTS_DROPPED.inc()

    async def run(self, beat: Heartbeat) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._client.create(path("v1/events", event["metadata"]["namespace"]), event)
            except KubeError as error:
                metrics.EVENTS_DROPPED.inc()
                log.debug("an Event was not posted: %s", error)
            beat.beat()

    def _event(self, about: ObjectMeta, kind: str, reason: str, message: str, warning: bool) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace = about.namespace or "default"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{about.name[:200]}.{uuid4().hex[:16]}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": meta.API_VERSION,
                "kind": kind,
                "name": about.name,
                "namespace": about.namespace or None,
                "uid": about.uid,
                "resourceVersion": about.resource_version,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:_MESSAGE],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": meta.MANAGED_BY},
            "reportingComponent": f"{meta.GROUP}/operator",
            "reportingInstance": self._instance[:128],
        }
