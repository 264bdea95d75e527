"""The operator's small HTTP server: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Probe = Callable[[], list[str]]  # sentences about what is wrong; empty means well


class HealthServer:
    """Serves liveness, readiness and metrics; ``collect`` runs before each scrape."""

    def __init__(self, *, live: Probe, ready: Probe, collect: Callable[[], None]) -> None:
        self._live, self._ready, self._collect = live, ready, collect
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen; port 0 takes a free one. Returns the base URL. Raises OSError when the port is taken."""
        app = web.Application()
        app.router.add_get("/healthz", lambda _: self._answer(self._live))
        app.router.add_get("/readyz", lambda _: self._answer(self._ready))
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound = self._runner.addresses[0]
        return f"http://{bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @staticmethod
    async def _answer(probe: Probe) -> web.Response:
        problems = probe()
        return web.Response(status=500 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        self._collect()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
