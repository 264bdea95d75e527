"""The HTTP side: the SDK's card and JSON-RPC routes, the fault switch, the gate of a wedged agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Generator
from contextvars import ContextVar

import uvicorn
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes.agent_card_routes import create_agent_card_routes
from a2a.server.routes.jsonrpc_routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from reference_agent.executor import EchoExecutor
from reference_agent.faults import FaultError, Faults
from reference_agent.settings import Settings

VERSION = "0.1.0"
FAULTS_PATH = "/faults"

_host: ContextVar[str] = ContextVar("host")


def agent_card(settings: Settings) -> AgentCard:
    return AgentCard(
        name=settings.name,
        description=f"Reference agent of workspace {settings.namespace}/{settings.name}; it echoes, and asks others.",
        version=VERSION,
        supported_interfaces=[
            AgentInterface(
                url=f"http://127.0.0.1:{settings.port}/", protocol_binding="JSONRPC", protocol_version=version
            )
            for version in ("1.0", "0.3")
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[
            AgentSkill(
                id="echo",
                name="Echo",
                description="Answers with the workspace's name and the text; knows 'count' and 'whoami'.",
                tags=["echo"],
                examples=["hello", "count", "whoami"],
            ),
            AgentSkill(
                id="ask",
                name="Ask",
                description="Hands a text to another workspace and answers with that one's answer.",
                tags=["delegation"],
                examples=["ask writer: hello"],
            ),
        ],
    )


async def _reachable(card: AgentCard) -> AgentCard:
    """The card names the address the caller used: behind a port mapping the agent cannot know its own."""
    own = AgentCard()
    own.CopyFrom(card)
    for interface in own.supported_interfaces:
        interface.url = f"http://{_host.get()}/"
    return own


class Gate:
    """Outermost ASGI layer: remembers the Host header, and holds every request but /faults while wedged."""

    def __init__(self, app: ASGIApp, faults: Faults, stopping: asyncio.Event, fallback_host: str) -> None:
        self._app = app
        self._faults = faults
        self._stopping = stopping
        self._fallback_host = fallback_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            _host.set(Headers(scope=scope).get("host") or self._fallback_host)
            if scope["path"] != FAULTS_PATH and not await self._passes():
                await PlainTextResponse("The agent is stopping.", status_code=503)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _passes(self) -> bool:
        """False when the agent stops while the request is held; a wedged agent still obeys SIGTERM."""
        if "wedged" not in self._faults:
            return True
        recovered = asyncio.ensure_future(self._faults.wait_while("wedged"))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({recovered, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return recovered.done()
        finally:
            recovered.cancel()
            stopping.cancel()


def _faults_route(faults: Faults) -> Route:
    async def switch(request: Request) -> Response:
        if request.method == "POST":
            try:
                body = await request.json()
                faults.request(body if isinstance(body, dict) else {})
            except (FaultError, json.JSONDecodeError) as error:
                return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(faults.as_dict())

    return Route(FAULTS_PATH, switch, methods=["GET", "POST"])


class Server(uvicorn.Server):
    """uvicorn without its own signal handling, which ends the process by the signal, not with exit code 0."""

    def __init__(
        self, settings: Settings, executor: EchoExecutor, faults: Faults, on_started: Callable[[], None]
    ) -> None:
        self._on_started = on_started
        self.stopping = asyncio.Event()
        card = agent_card(settings)
        self._handler = DefaultRequestHandler(executor, InMemoryTaskStore(), card)
        app = Starlette(
            routes=[
                *create_agent_card_routes(card, card_modifier=_reachable),
                *create_jsonrpc_routes(
                    self._handler, "/", enable_v0_3_compat=True, shutdown_grace_period=settings.grace
                ),
                _faults_route(faults),
            ]
        )
        config = uvicorn.Config(
            Gate(app, faults, self.stopping, f"127.0.0.1:{settings.port}"),
            host=settings.bind_address,
            port=settings.port,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            # Probes every few seconds are not worth a line each.
            access_log=False,
            timeout_graceful_shutdown=max(1, round(settings.grace)),
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def stop(self) -> None:
        """Accept nothing new, finish what is running within the grace period, then return from serve()."""
        self.stopping.set()
        self.should_exit = True

    async def close(self) -> None:
        await self._handler.aclose()
