"""The stage of the delegation benchmarks: Ready agents, senders, and what watches the delegations between them.

The operator is the real one, on a backend in memory that says where each agent is. The agents are the reference agent's
code on the official SDK, many in one process (agents_main.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.types import Message, Part, Role, SendMessageRequest, TaskState
from tests.bench.api import DELEGATIONS, MERGE, WORKSPACES, Api, Eye, Object, ready, workspace
from tests.bench.drivers import ADDRESS
from tests.bench.lab import Lab, Subject

CLASS, SOURCE = "delegating", "source-{:02}"
_PROCESSES = 2  # that share the agents, so that they are not what is measured
_WARM_UP = 5.0  # seconds of a steady load that do not count
_PATIENCE = 300.0  # seconds for what must come to an end


@dataclass
class Stage:
    """Agents and senders that are Ready, and what watches the delegations between them."""

    lab: Lab
    operator: Subject
    servers: list[Subject]
    agents: dict[str, Client]
    ledger: Ledger
    _numbers: count[int] = field(default_factory=count)

    async def delegate(self, source: str, agent: str) -> tuple[str, float]:
        """Create one; its name (its text too), and when the API server had accepted it."""
        name = f"{source}.{next(self._numbers):05}"  # as agents call theirs
        await self.lab.api.call("POST", DELEGATIONS, delegation(name, source, agent))
        return name, time.monotonic()

    async def call(self, agent: str, text: str) -> None:
        """The same without a Delegation, as one agent calls another: the answer comes with the call."""
        message = Message(role=Role.ROLE_USER, message_id=text, parts=[Part(text=text)])
        answers = [one async for one in self.agents[agent].send_message(SendMessageRequest(message=message))]
        assert answers[-1].task.status.state == TaskState.TASK_STATE_COMPLETED

    async def desire(self, state: str) -> None:
        """Have all agents Paused or Running, and Ready."""
        async with Eye(self.lab.api, reached=lambda body: ready(body, state)) as eye:
            for name in self.agents:
                await self.lab.api.call("PATCH", f"{WORKSPACES}/{name}", {"spec": {"desiredState": state}}, MERGE)
            await self.lab.all_ready(eye, list(self.agents))

    def stamps(self) -> list[dict[str, Any]]:
        """Every message that an agent began to work on."""
        return [stamp for server in self.servers for stamp in server.stamps() if "text" in stamp]


class Ledger(Eye):
    """Follows the delegations; each can be awaited by itself."""

    def __init__(self, api: Api) -> None:
        super().__init__(api, DELEGATIONS, lambda body: phase_of(body) in ("Completed", "Failed", "Cancelled"))
        self._awaited: dict[str, asyncio.Event] = {}

    def _put(self, body: Object) -> None:
        super()._put(body)
        name = body["metadata"]["name"]
        if name in self.ready_at and name in self._awaited:
            self._awaited.pop(name).set()

    async def end(self, name: str) -> float:
        """When it was seen to be over. Raises when it does not complete."""
        if name not in self.ready_at:
            async with asyncio.timeout(_PATIENCE):
                await self._awaited.setdefault(name, asyncio.Event()).wait()
        assert phase_of(self.objects[name]) == "Completed", self.objects[name]["status"]
        return self.ready_at[name]

    async def all(self, names: Sequence[str], test: Callable[[Object], bool], what: str) -> None:
        """Until ``test`` holds for all of these."""

        def tested(seen: Mapping[str, Object]) -> bool:
            return all(name in seen and test(seen[name]) for name in names)

        await self.until(tested, _PATIENCE, what)


def phase_of(body: Object) -> str:
    return str((body.get("status") or {}).get("phase"))


def delegation(name: str, source: str, agent: str) -> Object:
    """An ordinary delegation whose text is its name."""
    return {
        "apiVersion": "workspace-operator.dev/v1alpha1",
        "kind": "Delegation",
        "metadata": {"name": name},
        "spec": {"from": {"name": source}, "to": {"name": agent}, "message": {"text": name}},
    }


@asynccontextmanager
async def staged(lab: Lab, agents: int, sources: int, *, work: float = 0.0, capacity: int = 1) -> AsyncIterator[Stage]:
    """The operator with Ready agents, whose tasks take ``work`` seconds, and senders; cleared away at the end."""
    async with AsyncExitStack() as stack:
        servers = []
        share = -(-agents // _PROCESSES)
        for first in range(0, agents, share):
            arguments = {"--agents": min(share, agents - first), "--first": first, "--work": work}
            flat = (str(word) for pair in arguments.items() for word in pair)
            servers.append(await stack.enter_async_context(lab.subject("agents_main", *flat)))
        addresses = {name: at for server in servers for name, at in (await _addresses(server)).items()}
        limits = httpx.Limits(max_keepalive_connections=None, keepalive_expiry=1)  # long before the agents close them
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60, limits=limits))
        factory = ClientFactory(ClientConfig(streaming=False, httpx_client=http))
        clients = {name: await factory.create_from_url(f"http://{at}") for name, at in addresses.items()}
        operator = await stack.enter_async_context(lab.operator("noop", CLASS))
        eye = await stack.enter_async_context(Eye(lab.api))
        takes = {"agent": {"maxConcurrentTasks": capacity}}
        for name, at in addresses.items():
            body = workspace(name, CLASS, env=[{"name": ADDRESS, "value": at}], **takes)
            await lab.api.call("POST", WORKSPACES, body)
        senders = [SOURCE.format(number) for number in range(sources)]
        await lab.create(senders, CLASS, agent={"probe": "None"})
        await lab.all_ready(eye, [*addresses, *senders])
        ledger = await stack.enter_async_context(Ledger(lab.api))
        yield Stage(lab, operator, servers, clients, ledger)
        await lab.clear(DELEGATIONS)
        await lab.clear()


async def _addresses(server: Subject) -> dict[str, str]:
    async with asyncio.timeout(60):
        while server.alive():
            if stamps := server.stamps():
                return dict(stamps[0]["addresses"])
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the agents ended early; see {server.log}")


async def steady(work: Callable[[], Awaitable[object]], in_flight: int, seconds: float) -> float:
    """Keep so many under way; how many ended per second once it was under way for a while."""
    ended = 0
    end = time.monotonic() + _WARM_UP + seconds
    begin = end - seconds

    async def worker() -> None:
        nonlocal ended
        while time.monotonic() < end:
            await work()
            ended += begin <= time.monotonic() < end

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    return ended / seconds
