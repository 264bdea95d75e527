"""Renews the workspace's Lease with its own short-lived token: the proof of life that carries the report."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime

from reference_agent.faults import Faults
from reference_agent.kube import MERGE_PATCH, Api, ApiError, Identity
from reference_agent.settings import Settings
from reference_agent.status import Report, Status

log = logging.getLogger(__name__)

DURATION_SECONDS = 30
FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 10.0
# A burst of short tasks must not become a burst of writes.
SHORTEST_PAUSE = 1.0


class LeaseRenewer:
    """Renews for ever; whatever goes wrong is logged and tried again, and the agent goes on serving."""

    def __init__(self, settings: Settings, status: Status, faults: Faults) -> None:
        self._settings = settings
        self._status = status
        self._faults = faults
        self._api = Api()
        self._complaint: str | None = None

    async def run(self) -> None:
        backoff = FIRST_BACKOFF
        try:
            while True:
                if await self._renew():
                    backoff = FIRST_BACKOFF
                    await self._until_due()
                else:
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, LONGEST_BACKOFF)
        finally:
            await self._api.close()

    async def _until_due(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._status.news(SHORTEST_PAUSE), self._settings.lease_interval)

    async def _renew(self) -> bool:
        # Read even when it is not sent: reading it is what makes it old news.
        report = self._status.report()
        if "silent" in self._faults:
            return True
        try:
            identity = Identity.read(self._settings.identity)
            if identity is not None:
                await self._patch(identity, report)
        except ApiError as error:
            self._complain(str(error))
            return False
        if identity is not None and self._complaint is not None:
            self._complaint = None
            log.info("The Lease is renewed again.")
        return True

    async def _patch(self, identity: Identity, report: Report) -> None:
        url = identity.url("/apis/coordination.k8s.io/v1", "leases", identity.lease)
        await self._api.call(identity, "PATCH", url, self._body(report), MERGE_PATCH)

    def _body(self, report: Report) -> dict[str, object]:
        return {
            "metadata": {"annotations": report.annotations()},
            "spec": {
                "holderIdentity": f"{self._settings.name}/{self._settings.incarnation}",
                "leaseDurationSeconds": DURATION_SECONDS,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }

    def _complain(self, complaint: str) -> None:
        """Logs a trouble when it begins or changes; the same line every ten seconds would bury the rest."""
        if complaint != self._complaint:
            log.warning("The Lease is not renewed: %s; trying again.", complaint)
        self._complaint = complaint
