"""The process: wait for leadership, run kopf while leading, leave in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
import kopf

from workspace_operator import __version__, handlers
from workspace_operator.backends.door import Create
from workspace_operator.kube.client import KubeClient, cluster_id, load_configuration
from workspace_operator.kube.leader import LEASE_DURATION, Leadership
from workspace_operator.reconcile.runtime import Runtime
from workspace_operator.settings import Settings
from workspace_operator.telemetry import logs, metrics
from workspace_operator.telemetry.health import HealthServer
from workspace_operator.telemetry.loops import Supervisor

log = logging.getLogger(__name__)

EXIT_LOST_LEAD, EXIT_LOOP_DIED = 3, 4
KOPF_CONNECTIONS = 24  # more than its watch streams; kopf alone would open one per object
CREDENTIALS_REREAD = timedelta(minutes=10)  # projected ServiceAccount tokens rotate
LEAD_CONTACT = 6 * LEASE_DURATION  # a candidate that could not reach the API server for so long is not live
CLEANUP = 20.0


class App:
    """One operator process."""

    def __init__(self, settings: Settings, drivers: Mapping[str, Create] | None = None) -> None:
        self._settings, self._drivers = settings, drivers
        self._runtime: Runtime | None = None
        self._leadership: Leadership | None = None
        self._supervisor: Supervisor | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Runs until a signal, the loss of the lead, or the death of a loop. Returns the exit code."""
        logs.setup(self._settings.log_format, self._settings.log_level)
        metrics.BUILD.info({"version": __version__, "commit": os.environ.get("WORKSPACE_OPERATOR_COMMIT", "")})
        health = HealthServer(live=self._not_live, ready=self._not_ready, collect=self._collect)
        address = await health.start(self._settings.listen_host, self._settings.listen_port)
        log.info("workspace-operator %s; health and metrics on %s", __version__, address)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        client = KubeClient(await load_configuration())
        work = asyncio.create_task(self._work(client))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            log.info("stopping: passes under way are finished")
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            return 0
        finally:
            stopping.cancel()
            await client.close()
            await health.stop()

    async def _work(self, client: KubeClient) -> int:
        """Follow until leading, then act until something ends it."""
        settings = self._settings
        leadership = Leadership(client, settings.namespace, settings.lease, settings.identity)
        cluster = await cluster_id(client)
        self._leadership = leadership
        await leadership.acquire()
        holding = asyncio.create_task(leadership.hold())
        try:
            return await self._act(client, cluster, leadership, holding)
        finally:
            holding.cancel()
            await leadership.release()

    async def _act(self, client: KubeClient, cluster: str, leadership: Leadership, holding: asyncio.Task[None]) -> int:
        supervisor = self._supervisor = Supervisor()
        runtime = self._runtime = Runtime(
            client, cluster, leadership, supervisor, self._drivers, self._settings.workers
        )
        starting = asyncio.create_task(self._start(runtime, client.server))
        watched: set[asyncio.Future[Any]] = {holding, supervisor.died, starting}
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if holding.done():
                # Another process may act from now on. Threads may still be inside a backend call: leave at once.
                os._exit(EXIT_LOST_LEAD)
            if supervisor.died.done():
                return EXIT_LOOP_DIED
            starting.result()  # kopf took the signal (it installs handlers of its own) and has ended in order
            return 0
        finally:
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await starting
            await asyncio.wait_for(runtime.stop(), CLEANUP)

    async def _start(self, runtime: Runtime, server: str) -> None:
        await runtime.start()
        registry = handlers.register(runtime)
        kopf.on.login(registry=registry)(partial(_login, server))
        await kopf.operator(registry=registry, settings=handlers.settings(), standalone=True, clusterwide=True)

    # -- probes --------------------------------------------------------------------------------------------------------

    def _not_live(self) -> list[str]:
        problems = self._supervisor.overdue() if self._supervisor is not None else []
        if self._leadership is not None and self._leadership.silence > LEAD_CONTACT:
            problems.append(f"no contact with the leader Lease for {self._leadership.silence:.0f} s")
        return problems

    def _not_ready(self) -> list[str]:
        if self._leadership is None:
            return ["the Kubernetes API has not answered yet"]
        if self._leadership.valid and not (self._runtime is not None and self._runtime.synced):
            return ["leading, and still listing objects"]
        return []

    def _collect(self) -> None:
        if self._supervisor is not None:
            self._supervisor.collect()
        if self._runtime is not None:
            self._runtime.collect()


async def _login(server: str, **kwargs: Any) -> kopf.AiohttpSession:
    """Credentials for kopf, on one bounded pool of connections.

    ``server`` is where the passes find the API server. In a pod, kopf would look for a name in the cluster's DNS, and
    stand still while that is down.
    """
    info = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
    if info is None:
        raise kopf.PermanentError("neither a ServiceAccount nor a kubeconfig was found")
    connector = aiohttp.TCPConnector(limit=KOPF_CONNECTIONS, ssl=info.as_ssl_context())
    session = aiohttp.ClientSession(connector=connector, headers=info.as_http_headers())
    return kopf.AiohttpSession(
        aiohttp_session=session,
        server=server,
        default_namespace=info.default_namespace,
        expiration=datetime.now(UTC) + CREDENTIALS_REREAD,
    )
