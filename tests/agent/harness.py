"""Runs the reference agent as a real process, and talks to it over loopback as the operator does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.helpers import get_stream_response_text
from a2a.types import Message, Part, Role, SendMessageRequest, StreamResponse, TaskState

SOURCE = Path(__file__).resolve().parents[2] / "deploy/agent"
# Byte code outside the tree and kept between starts, so that a start takes half a second.
BYTECODE = Path(tempfile.gettempdir()) / f"reference-agent-bytecode-{os.getuid()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class AgentProcess:
    """One agent: start it, ask it, stop it; its output is kept for the assertion at the end."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / f"agent-{self.port}.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCE),
            "PYTHONPYCACHEPREFIX": str(BYTECODE),
            "WORKSPACE_NAME": "researcher",
            "WORKSPACE_NAMESPACE": "team-a",
            "WORKSPACE_INCARNATION": "7",
            "WORKSPACE_PORT": str(self.port),
            "WORKSPACE_BIND_ADDRESS": "127.0.0.1",
            "WORKSPACE_IDENTITY": str(directory / "identity"),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> AgentProcess:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reference_agent"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self

    def start(self) -> AgentProcess:
        self.spawn()
        deadline = time.monotonic() + 30
        while not self.listening():
            assert self.process.poll() is None, f"the agent ended: {self.output}"
            assert time.monotonic() < deadline, f"the agent does not listen: {self.output}"
            time.sleep(0.02)
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start the agent first"
        return self._process

    @property
    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def terminate(self, within: float = 10) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def card(self, within: float = 5) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url, timeout=within) as http:
            answer = await http.get("/.well-known/agent-card.json")
            answer.raise_for_status()
            return dict(answer.json())

    async def fault(self, mode: str, **more: float) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url, timeout=5) as http:
            answer = await http.post("/faults", json={"mode": mode, **more})
            answer.raise_for_status()
            return dict(answer.json())

    async def tell(
        self, text: str, message_id: str | None = None, streaming: bool = False, within: float = 10
    ) -> list[StreamResponse]:
        """Everything that the SDK's client gets back for one message."""
        message = Message(role=Role.ROLE_USER, message_id=message_id or str(uuid4()), parts=[Part(text=text)])
        async with httpx.AsyncClient(timeout=within) as http:
            client = await ClientFactory(ClientConfig(streaming=streaming, httpx_client=http)).create_from_url(self.url)
            return [event async for event in client.send_message(SendMessageRequest(message=message))]

    async def ask(self, text: str, message_id: str | None = None) -> str:
        (response,) = await self.tell(text, message_id)
        assert response.task.status.state == TaskState.TASK_STATE_COMPLETED, response
        return get_stream_response_text(response)
