"""Renews the workspace's Lease with its own short-lived token: the proof of life that carries the report."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from reference_agent.faults import Faults
from reference_agent.settings import Settings
from reference_agent.status import Report, Status

log = logging.getLogger(__name__)

DURATION_SECONDS = 30
FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 10.0
# A burst of short tasks must not become a burst of writes.
SHORTEST_PAUSE = 1.0


class RenewalError(Exception):
    """A failed renewal in words safe to log: made of types and status codes, never of a request."""


@dataclass(frozen=True)
class Identity:
    """One reading of the identity directory; never kept, because the operator rewrites the files."""

    token: str
    server: str
    namespace: str
    lease: str
    ca: str | None

    @classmethod
    def read(cls, directory: Path) -> Identity | None:
        if not directory.is_dir():
            return None
        try:
            values = {
                name: (directory / name).read_text().strip() for name in ("token", "server", "lease", "namespace")
            }
            ca = directory / "ca.crt"
            return cls(ca=ca.read_text() if ca.exists() else None, **values)
        except (OSError, UnicodeError) as error:
            raise RenewalError(f"cannot read {directory}: {type(error).__name__}") from None

    @property
    def url(self) -> str:
        path = f"apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{self.lease}"
        return f"{self.server.rstrip('/')}/{path}"

    def __repr__(self) -> str:
        return f"Identity({self.url})"


class LeaseRenewer:
    """Renews for ever; whatever goes wrong is logged and tried again, and the agent goes on serving."""

    def __init__(self, settings: Settings, status: Status, faults: Faults) -> None:
        self._settings = settings
        self._status = status
        self._faults = faults
        self._client: httpx.AsyncClient | None = None
        self._client_ca: str | None = None
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
            if self._client is not None:
                await self._client.aclose()

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
        except RenewalError as error:
            self._complain(str(error))
            return False
        except Exception as error:
            # Only the type: the text of an error about a header can quote the token in that header.
            self._complain(type(error).__name__)
            return False
        if identity is not None and self._complaint is not None:
            self._complaint = None
            log.info("The Lease is renewed again.")
        return True

    async def _patch(self, identity: Identity, report: Report) -> None:
        client = await self._client_for(identity)
        response = await client.patch(
            identity.url,
            headers={
                "Authorization": f"Bearer {identity.token}",
                "Content-Type": "application/merge-patch+json",
                "Accept": "application/json",
            },
            json=self._body(report),
        )
        if not response.is_success:
            raise RenewalError(f"the Kubernetes API answered {response.status_code} for {identity.lease}")

    def _body(self, report: Report) -> dict[str, object]:
        return {
            "metadata": {"annotations": report.annotations()},
            "spec": {
                "holderIdentity": f"{self._settings.name}/{self._settings.incarnation}",
                "leaseDurationSeconds": DURATION_SECONDS,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }

    async def _client_for(self, identity: Identity) -> httpx.AsyncClient:
        """One connection for as long as the certificate authority stays: a handshake costs both sides."""
        if self._client is not None and self._client_ca == identity.ca:
            return self._client
        if self._client is not None:
            await self._client.aclose()
        context = ssl.create_default_context(cadata=identity.ca) if identity.ca else ssl.create_default_context()
        # The operator's way to its API server is not the user's HTTP_PROXY.
        self._client = httpx.AsyncClient(verify=context, timeout=5, trust_env=False)
        self._client_ca = identity.ca
        return self._client

    def _complain(self, complaint: str) -> None:
        """Logs a trouble when it begins or changes; the same line every ten seconds would bury the rest."""
        if complaint != self._complaint:
            log.warning("The Lease is not renewed: %s; trying again.", complaint)
        self._complaint = complaint
