"""Leadership by Lease: at most one process acts at any moment (I-90).

All waiting and judging is on the monotonic clock, so a jump of the wall clock neither loses nor steals the lead. A
follower takes over only after it has itself watched the same holder's record stay unchanged for a whole lease
duration. A leader that could not renew for RENEW_DEADLINE, shorter than that, must be gone by then: the caller ends the
process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from workspace_operator.kube.client import Conflict, KubeClient, KubeError, NotFound, Object, path
from workspace_operator.telemetry import metrics

log = logging.getLogger(__name__)

LEASE_DURATION = 15.0  # seconds; the three numbers are client-go's defaults
RENEW_DEADLINE = 10.0
RETRY_PERIOD = 2.0
_MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class Leadership:
    """One candidate. ``acquire`` returns when it leads; ``hold`` returns when it no longer does."""

    def __init__(self, client: KubeClient, namespace: str, name: str, identity: str) -> None:
        self._client, self._namespace, self._name, self.identity = client, namespace, name, identity
        self._seen: tuple[str, str] | None = None  # holder and resourceVersion last watched
        self._seen_at = 0.0
        self._renewed_at: float | None = None
        self.last_contact = time.monotonic()

    @property
    def valid(self) -> bool:
        """Whether this process may act right now."""
        return self._renewed_at is not None and time.monotonic() - self._renewed_at < RENEW_DEADLINE

    @property
    def silence(self) -> float:
        """Seconds since the API server last answered about the Lease."""
        return time.monotonic() - self.last_contact

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self._attempt():  # noqa: ASYNC110 - it is the API server that changes, not a variable
            await asyncio.sleep(RETRY_PERIOD)
        metrics.LEADER.set(1)
        log.info("leading as %s", self.identity)

    async def hold(self) -> None:
        """Renew until the lead is lost; then return at once, because another process may act soon."""
        while self.valid:
            await asyncio.sleep(RETRY_PERIOD)
            await self._attempt()
        metrics.LEADER.set(0)
        log.critical("leadership lost")

    async def release(self) -> None:
        """Give the lead back on a clean exit, so that the next process need not wait."""
        if not self.valid:
            return
        self._renewed_at = None
        try:
            lease = await self._client.get(self._url)
            if lease["spec"].get("holderIdentity") == self.identity:
                lease["spec"].update(holderIdentity="", leaseDurationSeconds=1)
                await self._client.update(self._url, lease)
        except KubeError as error:
            log.info("the leader Lease was not given back: %s", error)

    @property
    def _url(self) -> str:
        return path("coordination.k8s.io/v1/leases", self._namespace, self._name)

    async def _attempt(self) -> bool:
        started = time.monotonic()  # the lead counts from before the request: an answer may be late
        try:
            async with asyncio.timeout(RENEW_DEADLINE / 2):
                await self._take()
        except _Held:
            self.last_contact = time.monotonic()
            return False
        except (KubeError, TimeoutError) as error:
            log.warning("leader Lease: %s", error or "the Kubernetes API did not answer in time")
            return False
        self._renewed_at = self.last_contact = started
        return True

    async def _take(self) -> None:
        try:
            lease = await self._client.get(self._url)
        except NotFound:
            await self._create()
            return
        spec = lease.setdefault("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self.identity and not self._expired(holder, lease):
            raise _Held
        now = datetime.now(UTC).strftime(_MICRO_TIME)
        if holder != self.identity:
            spec.update(acquireTime=now, leaseTransitions=int(spec.get("leaseTransitions") or 0) + 1)
        spec.update(holderIdentity=self.identity, renewTime=now, leaseDurationSeconds=int(LEASE_DURATION))
        try:
            await self._client.update(self._url, lease)  # conditional on the resourceVersion just read
        except Conflict as error:
            raise _Held from error

    async def _create(self) -> None:
        now = datetime.now(UTC).strftime(_MICRO_TIME)
        lease: Object = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self.identity,
                "acquireTime": now,
                "renewTime": now,
                "leaseDurationSeconds": int(LEASE_DURATION),
            },
        }
        try:
            await self._client.create(path("coordination.k8s.io/v1/leases", self._namespace), lease)
        except Conflict as error:
            raise _Held from error

    def _expired(self, holder: str, lease: Object) -> bool:
        mark = holder, str(lease["metadata"]["resourceVersion"])
        if mark != self._seen:
            self._seen, self._seen_at = mark, time.monotonic()
            return False
        return time.monotonic() - self._seen_at > LEASE_DURATION


class _Held(Exception):
    """Another process holds the Lease."""
