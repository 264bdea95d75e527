"""Agents that answer wrongly on purpose: a plain TCP server whose every byte is the test's.

In a test: ``with HostileAgent("huge") as agent: … agent.address``. As a workspace's process:
``python -m tests.support.hostile HABIT`` listens where the operator says (WORKSPACE_PORT).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

CARD_PATH = "/.well-known/agent-card.json"
METADATA = "http://169.254.169.254/latest/meta-data/"


@dataclass(frozen=True)
class Request:
    """One request that arrived complete."""

    target: str
    headers: Mapping[str, str]
    reader: asyncio.StreamReader = field(repr=False)
    method: str = ""  # of JSON-RPC; empty for a card
    body: Mapping[str, Any] | None = None

    @property
    def is_card(self) -> bool:
        return not self.method


Habit = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def http(body: bytes | str, status: int = 200, kind: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP answer; underscores in names of headers become hyphens."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def say(body: bytes | str, status: int = 200, kind: str = "application/json", **headers: str) -> Habit:
    """Always the same answer."""

    async def habit(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(http(body, status, kind, **headers))

    return habit


def in_turn(*habits: Habit) -> Habit:
    """One after the other; the last one for ever."""
    left = list(habits)

    async def habit(request: Request, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, writer)

    return habit


def result(value: object) -> Habit:
    """A JSON-RPC result."""
    return say(json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}))


def error(code: int, message: str = "token=do-not-show") -> Habit:
    """A JSON-RPC error."""
    return say(json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}))


def task(identity: str = "t1", state: str = "WORKING", **more: object) -> dict[str, object]:
    return {"id": identity, "contextId": "c1", "status": {"state": f"TASK_STATE_{state}"}, **more}


def card(url: str = "http://127.0.0.1/", streaming: bool = True, version: str = "1.0", binding: str = "JSONRPC") -> str:
    """A card as it should be."""
    interface = {"url": url, "protocolBinding": binding, "protocolVersion": version}
    return json.dumps(
        {
            "name": "hostile",
            "description": "A test's agent.",
            "version": "1",
            "capabilities": {"streaming": streaming},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [],
            "supportedInterfaces": [interface],
        }
    )


def pass_on_to(port: int) -> Habit:
    """The answers of another agent on loopback, under this one's card."""

    async def habit(request: Request, writer: asyncio.StreamWriter) -> None:
        reader, upstream = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(request.body).encode()
        version = request.headers.get("a2a-version", "1.0")
        head = [f"POST {request.target} HTTP/1.1", "Host: agent", f"A2A-Version: {version}", "Connection: close"]
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        try:
            upstream.write("\r\n".join(head).encode() + body)
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        finally:
            upstream.close()
            writer.close()

    return habit


async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
    """Accepts and never answers."""
    await request.reader.read()


async def hang_up(_: Request, writer: asyncio.StreamWriter) -> None:
    """Closes instead of an answer."""
    writer.close()


async def stop_midway(_: Request, writer: asyncio.StreamWriter) -> None:
    """Closes in the middle of an answer."""
    writer.write(http(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"task": task()}}))[:-20])
    await writer.drain()
    writer.close()


async def drip(_: Request, writer: asyncio.StreamWriter) -> None:
    """One byte a second: the head at once, so that any timer for single reads is fed for ever."""
    writer.write(http(b" " * 100_000)[:-100_000])
    await trickle(writer, b" ")


async def drip_head(_: Request, writer: asyncio.StreamWriter) -> None:
    """One byte a second from the first byte on."""
    writer.write(b"HTTP/1.1 200 X\r\nX-Filler: ")
    await trickle(writer, b"a")


async def flood(_: Request, writer: asyncio.StreamWriter) -> None:
    """An answer without an announced length and without an end."""
    writer.write(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    while True:
        writer.write(chunk)
        await writer.drain()


async def always_more_to_come(_: Request, writer: asyncio.StreamWriter) -> None:
    """Interim answers without an end (RFC 9110, section 15.2)."""
    while True:
        writer.write(b"HTTP/1.1 102 X\r\n\r\n" * 100)
        await writer.drain()


async def crumbs(_: Request, writer: asyncio.StreamWriter) -> None:
    """A body of chunks of one byte, as fast as they are taken."""
    writer.write(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n \r\n" * 1000)
        await writer.drain()


async def trickle(writer: asyncio.StreamWriter, byte: bytes) -> None:
    while True:
        writer.write(byte)
        await writer.drain()
        await asyncio.sleep(1)


def stream(*events: bytes | str, then: Habit = silent) -> Habit:
    """Server-sent events, each a JSON-RPC answer or raw bytes, and what follows them."""

    async def habit(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for event in events:
            writer.write(event if isinstance(event, bytes) else f"data: {event}\n\n".encode())
        await writer.drain()
        await then(request, writer)

    return habit


def event(**payload: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": payload})


def status_event(state: str, identity: str = "t1") -> str:
    return event(statusUpdate={"taskId": identity, "contextId": "c1", "status": {"state": f"TASK_STATE_{state}"}})


async def comments(_: Request, writer: asyncio.StreamWriter) -> None:
    """A stream of comments: never silent, and never an event."""
    while True:
        writer.write(b": still here\n\n")
        await writer.drain()
        await asyncio.sleep(0.05)


TEN_MEGABYTES = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"padding": "x" * 10_000_000}})
MANY_PARTS = '{"jsonrpc":"2.0","id":1,"result":{"id":"t1","artifacts":[{"parts":[%s]}]}}'
COMPRESSED = {"Content_Encoding": "gzip"}

#: Wrong as cards and as answers alike.
ANYWHERE: dict[str, Habit] = {
    "html": say("<html><body>token=do-not-show</body></html>", kind="text/html"),
    "plain-text": say("hello", kind="text/plain"),
    "html-as-json": say("<html>token=do-not-show</html>"),
    "wrong-type": say(card(), kind="application/octet-stream"),
    "empty": say(""),
    "a-list": say("[1, 2]"),
    "a-number": say("7"),
    "invalid-utf-8": say(b'{"name": "\xff\xfe\xc3\x28"}'),
    "ten-megabytes": say(TEN_MEGABYTES),
    "flood": flood,
    "deep": say('{"a":' + "[" * 200_000 + "]" * 200_000 + "}"),
    "deeper-than-protobuf": say('{"metadata":{"a":' + "[" * 500 + "]" * 500 + '},"supportedInterfaces":7,"result":7}'),
    "many-parts": say(MANY_PARTS % ",".join(['{"text":""}'] * 100_000)),
    "huge-number": say('{"a": ' + "1" * 5000 + "}"),
    "compressed": say(b"\x1f\x8b" + b"\0" * 50, **COMPRESSED),
    "redirect": say("", 302, Location=METADATA),
    "permanent-redirect": say("", 308, Location=METADATA),
    "not-found": say("token=do-not-show", 404),
    "unauthorized": say("token=do-not-show", 401),
    "too-many-requests": say("", 429, Retry_After="100000"),
    "unavailable": say("", 503),
    "internal-error": say("Traceback: token=do-not-show", 500),
    "bad-gateway": say("", 502),
    "not-http": lambda _, writer: _write(writer, b"SSH-2.0-OpenSSH_9.9\r\n"),
    "silent": silent,
    "hangs-up": hang_up,
    "stops-midway": stop_midway,
    "drips": drip,
    "drips-head": drip_head,
    "crumbs": crumbs,
    "interim": always_more_to_come,
}

#: Wrong only as a card.
CARDS: dict[str, Habit] = {
    "no-interface": say("{}"),
    "only-grpc": say(card(binding="GRPC")),
    "of-the-future": say(card(version="7.0")),
    "wrong-types": say('{"supportedInterfaces": "all", "capabilities": 3, "skills": 1}'),
    "path-too-long": say(card(url="http://127.0.0.1/" + "a" * 5000)),
}


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    writer.close()


class HostileAgent:
    """Serves a card and answers on a free loopback port, in a thread of its own."""

    def __init__(
        self,
        answers: Habit | str | Mapping[str, Habit],
        card_habit: Habit | str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.seen: list[Request] = []
        self.open = 0  # connections now
        self.most_open = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self.answers = ANYWHERE[answers] if isinstance(answers, str) else answers
        self.card = {**ANYWHERE, **CARDS}[card_habit] if isinstance(card_habit, str) else card_habit or say(card())
        self._host, self.port = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def methods(self) -> list[str]:
        return [request.method for request in self.seen if not request.is_card]

    def __enter__(self) -> HostileAgent:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, self._host, self.port, backlog=1024)

    async def _close(self) -> None:
        self._server.close()
        writers = list(self._writers)
        mine = asyncio.all_tasks() - {asyncio.current_task()}
        for one in mine:
            one.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()  # close() waits until all is sent, and nobody reads it
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    request = await _read(reader)
                    self.seen.append(request)
                    await self._habit(request)(request, writer)
                    await writer.drain()
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    def _habit(self, request: Request) -> Habit:
        if request.is_card:
            return self.card
        if callable(self.answers):
            return self.answers
        return self.answers.get(request.method, error(-32601))


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    target = lines[0].split(" ")[1]
    if not body:
        return Request(target, headers, reader)
    message = json.loads(body)
    return Request(target, headers, reader, message["method"], message)


def main() -> None:
    """Serve one habit until killed; one that is for cards serves the card, and answers nothing else."""
    habit = sys.argv[1]
    port = int(os.environ.get("WORKSPACE_PORT", "8080"))
    host = os.environ.get("WORKSPACE_BIND_ADDRESS", "127.0.0.1")
    of_card = habit.removeprefix("card-") if habit.startswith("card-") else None
    with HostileAgent(silent if of_card else habit, of_card, host, port):
        threading.Event().wait()


if __name__ == "__main__":
    main()
