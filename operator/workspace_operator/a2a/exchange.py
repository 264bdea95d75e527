"""One request to an agent and its answer: what may be read of it, and what was written."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore

from workspace_operator.a2a.trouble import Kind, Trouble

ANSWER_BYTES = 4 * 1024 * 1024
HEAD_BYTES = 64 * 1024
# Every piece of an answer costs some 50 µs: an answer in single bytes would keep the event loop busy for minutes.
PIECES, PIECE_BYTES = 1000, 64


@dataclass
class Exchange:
    """Belongs to one task; the HTTP client finds it through ``exchange``."""

    cap: int = ANSWER_BYTES
    streaming: bool = False
    written: bool = False  # the first byte of the body may have been sent
    head_read: bool = False
    answer: httpcore.Response | None = None  # a stream that is being read
    _head: int = 0
    _pieces: int = 0
    _body: int = 0

    async def trace(self, event: str, _: dict[str, Any]) -> None:
        """An extension of httpcore: it tells what it does."""
        if event == "http11.send_request_body.started":
            self.written = True

    async def leave(self) -> None:
        """Close the connection of a stream; the SDK's generators would do so only when they are collected."""
        if self.answer is not None:
            await self.answer.aclose()

    def arrived(self, size: int) -> None:
        """Bytes from the network."""
        if not self.head_read:
            self._head += size
            if self._head > HEAD_BYTES:
                raise Trouble(Kind.LOST, "The head of the agent's answer is too large.")

    def piece(self, size: int) -> None:
        """A piece of the body, however the agent cut it."""
        self._pieces += 1
        self._body += size
        if self._pieces > PIECES + self._body // PIECE_BYTES:
            raise Trouble(Kind.LOST, "The agent's answer comes in too small pieces.")


exchange: ContextVar[Exchange] = ContextVar("exchange")
