"""Agent cards: how an agent is spoken to. Where it is, is observed and never read from a card (I-56)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
from a2a.client.card_resolver import parse_agent_card
from a2a.client.transports.base import ClientTransport
from a2a.client.transports.jsonrpc import JsonRpcTransport
from a2a.client.transports.tenant_decorator import TenantTransportDecorator
from a2a.types import AgentCard, AgentInterface
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH

from workspace_operator.a2a.trouble import Kind, Trouble

CARD_LIFE = 300.0  # seconds
_PATH_CHARACTERS = 2048


@dataclass
class Agent:
    """What its card says of an agent that matters here."""

    calls: ClientTransport
    streams: ClientTransport | None  # None: it offers no streaming
    read_at: float = field(default_factory=time.monotonic)


class Cards:
    """The cards of all agents, each read once for all who ask at the same time."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[httpx.Response]],
        calls: httpx.AsyncClient,
        streams: httpx.AsyncClient,
    ) -> None:
        self._fetch = fetch
        self._calls, self._streams = calls, streams
        self._agents: dict[str, Agent] = {}
        self._reading: dict[str, asyncio.Task[Agent]] = {}

    async def agent(self, address: str) -> Agent:
        """The agent at an address, from its card if that is recent."""
        known = self._agents.get(address)
        if known is not None and time.monotonic() - known.read_at < CARD_LIFE:
            return known
        reading = self._reading.get(address)
        if reading is None:
            reading = self._reading[address] = asyncio.create_task(self._read(address))
            reading.add_done_callback(lambda done: self._done(address, done))
        return await asyncio.shield(reading)

    def forget(self, address: str) -> None:
        self._agents.pop(address, None)

    async def close(self) -> None:
        reading = list(self._reading.values())
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)

    def _done(self, address: str, done: asyncio.Task[Agent]) -> None:
        self._reading.pop(address, None)
        if not done.cancelled() and done.exception() is None:
            self._agents[address] = done.result()

    async def _read(self, address: str) -> Agent:
        response = await self._fetch(f"http://{address}{AGENT_CARD_WELL_KNOWN_PATH}")
        try:
            card = parse_agent_card(response.json())
        except Exception as exc:
            raise Trouble(Kind.UNREACHED, "The agent's card is not a valid A2A card.") from exc
        interface = _best(card)
        url = _at(address, interface.url)
        streams = self._transport(self._streams, card, url, interface) if card.capabilities.streaming else None
        return Agent(self._transport(self._calls, card, url, interface), streams)

    def _transport(
        self, http: httpx.AsyncClient, card: AgentCard, url: str, interface: AgentInterface
    ) -> ClientTransport:
        transport: ClientTransport
        if _major(interface) == "0":
            from a2a.compat.v0_3.jsonrpc_transport import CompatJsonRpcTransport

            transport = CompatJsonRpcTransport(http, card, url, is_shared_httpx=True)
        else:
            transport = JsonRpcTransport(http, card, url, is_shared_httpx=True)
        return TenantTransportDecorator(transport, interface.tenant) if interface.tenant else transport


def _major(interface: AgentInterface) -> str:
    return str(interface.protocol_version or "1").partition(".")[0]


def _best(card: AgentCard) -> AgentInterface:
    """The JSON-RPC interface of A2A 1.x, else of 0.3."""
    spoken: list[AgentInterface] = [
        one for one in card.supported_interfaces if one.protocol_binding.upper() == "JSONRPC"
    ]
    if not spoken:
        raise Trouble(Kind.UNREACHED, "The agent's card offers no JSON-RPC interface.")
    for wanted in ("1", "0"):
        for one in spoken:
            if _major(one) == wanted:
                return one
    raise Trouble(Kind.UNREACHED, "The agent's card offers no version of A2A that is spoken here (1.x and 0.3).")


def _at(address: str, url: str) -> str:
    """The path of a URL, at the observed address."""
    try:
        path = urlsplit(url).path
        if len(path) > _PATH_CHARACTERS:
            raise ValueError("too long")
        here = httpx.URL(f"http://{address}")
        return str(here.copy_with(raw_path=b"/" + path.lstrip("/").encode("ascii")))
    except (ValueError, httpx.InvalidURL) as exc:
        raise Trouble(Kind.UNREACHED, "The agent's card names an interface with an unusable path.") from exc
