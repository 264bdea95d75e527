"""HTTP to agents that may be hostile: no redirect, no proxy, bounded answers, and a note of what was written.

The SDK is given an ``httpx`` client whose transport is ours, so that every answer has been read and judged before the
SDK sees it: its size, its type, its UTF-8, how much there is to parse.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx
from a2a.utils.constants import PROTOCOL_VERSION_CURRENT, VERSION_HEADER

from workspace_operator.a2a.trouble import KNOWN_CODES, Kind, Trouble, of_status

CONNECT_SECONDS = 5.0
CARD_BYTES = 256 * 1024
ANSWER_BYTES = 4 * 1024 * 1024
# Of all answers that are being read at once; one that is small so far is always read on.
ANSWERS_BYTES, SMALL_BYTES = 64 * 1024 * 1024, 64 * 1024
EVENT_BYTES = 256 * 1024  # of one event; a larger one is read by asking for the task
STREAM_BYTES = 4 * 1024 * 1024
# Parsing holds the event loop: 20,000 values take about 0.1 s in protobuf, 4 MiB of empty lists 0.3 s in json.
VALUES = 20_000
BRACKETS = 400_000
# Node.js and uvicorn close idle connections after 5 s: ours goes first, so that no message meets a closing one.
IDLE_SECONDS = 3.0


@dataclass
class Exchange:
    """One request and its answer."""

    cap: int = ANSWER_BYTES
    streaming: bool = False
    written: bool = False  # the first byte of the body may have been sent
    response: httpx.Response | None = None

    async def trace(self, event: str, _: dict[str, Any]) -> None:
        if event == "http11.send_request_body.started":
            self.written = True

    async def leave(self) -> None:
        """Close the connection of a stream; the SDK's generators would do so only when they are collected."""
        if self.response is not None:
            await self.response.aclose()


exchange: ContextVar[Exchange] = ContextVar("exchange")


def http_client(connections: int) -> httpx.AsyncClient:
    """A client for agents with at most so many connections at once."""
    limits = httpx.Limits(max_connections=connections, keepalive_expiry=IDLE_SECONDS)
    never_used = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default one reads all root certificates
    return httpx.AsyncClient(
        transport=_Guard(httpx.AsyncHTTPTransport(verify=never_used, limits=limits, trust_env=False)),
        headers={VERSION_HEADER: PROTOCOL_VERSION_CURRENT, "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        trust_env=False,
        follow_redirects=False,
    )


class _Guard(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._held = 0  # bytes of answers that are being read

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        this = exchange.get()
        request.extensions = {**request.extensions, "trace": this.trace}
        response = await self._inner.handle_async_request(request)
        try:
            kind = _judge_head(response, this)
            if this.streaming and kind == "text/event-stream":
                assert isinstance(response.stream, httpx.AsyncByteStream), "httpx gives asynchronous streams"
                this.response = response
                return httpx.Response(200, headers=_SSE, stream=_BoundedStream(response.stream))
            body = _judge_body(await self._read(response, this.cap))
        except BaseException:
            await response.aclose()
            raise
        await response.aclose()
        return httpx.Response(200, headers=_JSON, content=body)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _read(self, response: httpx.Response, cap: int) -> bytes:
        length = response.headers.get("content-length", "")
        too_large = Trouble(Kind.UNUSABLE, f"The agent's answer is larger than {cap // 1024} KiB.")
        if length.isdecimal() and int(length[:20]) > cap:
            raise too_large
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                self._held += len(chunk)
                if len(body) > cap:
                    raise too_large
                if self._held > ANSWERS_BYTES and len(body) > SMALL_BYTES:
                    raise Trouble(Kind.LOST, "Too many large answers arrived at once.")
        finally:
            self._held -= len(body)
        return bytes(body)


_SSE = {"content-type": "text/event-stream"}
_JSON = {"content-type": "application/json"}


def _judge_head(response: httpx.Response, this: Exchange) -> str:
    """The media type of an answer that may be read."""
    if response.status_code != 200:
        raise of_status(response.status_code)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Trouble(Kind.UNUSABLE, "The agent's answer is compressed, which was not asked for.")
    kind = str(response.headers.get("content-type", "application/json")).partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    if not is_json and not (this.streaming and kind == "text/event-stream"):
        raise Trouble(Kind.UNUSABLE, "The agent's answer is not JSON.")
    return kind


def _judge_body(body: bytes) -> bytes:
    """JSON that is worth parsing by the SDK; lone surrogates, which protobuf refuses, are replaced."""
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise Trouble(Kind.UNUSABLE, "The agent's answer is not valid UTF-8.") from exc
    complex_ = Trouble(Kind.UNUSABLE, "The agent's answer has too many parts.")
    if text.count("[") + text.count("{") > BRACKETS:
        raise complex_
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Trouble(Kind.UNUSABLE, "The agent's answer is not JSON.") from exc
    if not isinstance(value, dict):
        raise Trouble(Kind.UNUSABLE, "The agent's answer is not a JSON object.")
    if not _is_small(value):
        raise complex_
    error = value.get("error")
    if error and (not isinstance(error, dict) or error.get("code") not in KNOWN_CODES):
        raise Trouble(Kind.LOST, "The agent reports an error that A2A does not define.")
    if "\\ud" in text or "\\uD" in text:
        text = json.dumps(value, ensure_ascii=False)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return body


def _is_small(value: object) -> bool:
    waiting, seen = [value], 0
    while waiting:
        one = waiting.pop()
        items = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        seen += len(items)
        if seen > VALUES:
            return False
        waiting.extend(items)
    return True


class _BoundedStream(httpx.AsyncByteStream):
    """Server-sent events, cut at a total and at the size of a single event."""

    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = since_event = 0
        async for chunk in self._inner:
            total += len(chunk)
            end = max(chunk.rfind(b"\n\n"), chunk.rfind(b"\r\n\r\n"))
            since_event = since_event + len(chunk) if end < 0 else len(chunk) - end
            if total > STREAM_BYTES or since_event > EVENT_BYTES:
                raise Trouble(Kind.UNUSABLE, "The agent's stream of events is too large.")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
