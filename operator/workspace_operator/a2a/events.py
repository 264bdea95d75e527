"""Server-sent events from agents that may be hostile: bounded, and each judged when it is complete."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpcore
import httpx

from workspace_operator.a2a.exchange import Exchange
from workspace_operator.a2a.reading import judge
from workspace_operator.a2a.trouble import Kind, Trouble

EVENT_BYTES = 256 * 1024  # of one event; what is larger is read by asking for the task
STREAM_BYTES = 4 * 1024 * 1024


class Events(httpx.AsyncByteStream):
    """The events of a stream, as the SDK can parse them."""

    def __init__(self, answer: httpcore.Response, this: Exchange) -> None:
        self._answer, self._this = answer, this

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total, waiting, event = 0, bytearray(), _Event()
        async for chunk in self._answer.aiter_stream():
            self._this.piece(len(chunk))
            total += len(chunk)
            if total > STREAM_BYTES:
                raise Trouble(Kind.UNUSABLE, "The agent's stream of events is too large.")
            waiting += chunk
            event.expect(len(waiting))
            if b"\n" in chunk:
                *lines, rest = bytes(waiting).split(b"\n")
                waiting = bytearray(rest)
                for line in lines:
                    if complete := event.add(line.removesuffix(b"\r")):
                        yield complete

    async def aclose(self) -> None:
        await self._answer.aclose()


class _Event:
    """One event as its lines arrive."""

    def __init__(self) -> None:
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0

    def expect(self, more: int) -> None:
        if self._size + more > EVENT_BYTES:
            raise Trouble(Kind.UNUSABLE, "An event of the agent's stream is too large.")

    def add(self, line: bytes) -> bytes:
        """The event with its data, which must be JSON, in one line; empty until a blank line completes it."""
        if line.startswith(b"data:"):
            self.expect(len(line))
            self._size += len(line)
            self._data.append(line[5:])
        elif line.startswith(b"event:"):
            self._name = line + b"\n"
        elif not line and self._data:
            complete = self._name + b"data: " + judge(b"\n".join(self._data).strip()).replace(b"\n", b" ") + b"\n\n"
            self._name, self._data, self._size = b"", [], 0
            return complete
        return b""
