"""HTTP to agents that may be hostile: no redirect, no proxy, bounded answers, and a note of what was written.

The SDK is given an ``httpx`` client whose transport is ours, so that every answer has been read and judged before the
SDK sees it: its size, its type, its UTF-8, how much there is to parse.
"""

from __future__ import annotations

import httpcore
import httpx
from a2a.utils.constants import PROTOCOL_VERSION_CURRENT, VERSION_HEADER

from workspace_operator.a2a.events import Events
from workspace_operator.a2a.exchange import Exchange, exchange
from workspace_operator.a2a.network import CONNECT_SECONDS, Network
from workspace_operator.a2a.reading import judge
from workspace_operator.a2a.trouble import Kind, Trouble, of_status

# Of all answers that are being read at once; one that is small so far is always read on.
ANSWERS_BYTES, SMALL_BYTES = 64 * 1024 * 1024, 64 * 1024
# Node.js and uvicorn close idle connections after 5 s: ours goes first, so that no message meets a closing one.
IDLE_SECONDS = 3.0
_SSE, _JSON = "text/event-stream", "application/json"


def http_client(connections: int) -> httpx.AsyncClient:
    """A client for agents with at most so many connections at once."""
    return httpx.AsyncClient(
        transport=_Transport(connections),
        headers={VERSION_HEADER: PROTOCOL_VERSION_CURRENT, "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        trust_env=False,
        follow_redirects=False,
    )


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, connections: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=connections, keepalive_expiry=IDLE_SECONDS, network_backend=Network()
        )
        self._held = 0  # bytes of answers that are being read

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        this = exchange.get()
        answer = await self._pool.handle_async_request(_for_httpcore(request, this))
        this.head_read = True
        headers = httpx.Headers(answer.headers)
        try:
            kind = _judge_head(answer.status, headers, this)
            if kind == _SSE:
                this.answer = answer
                return httpx.Response(200, headers={"content-type": _SSE}, stream=Events(answer, this))
            body = judge(await self._read(answer, headers, this))
        except BaseException:
            await answer.aclose()
            raise
        await answer.aclose()
        return httpx.Response(200, headers={"content-type": _JSON}, content=body)

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def _read(self, answer: httpcore.Response, headers: httpx.Headers, this: Exchange) -> bytes:
        length = headers.get("content-length", "")
        too_large = Trouble(Kind.UNUSABLE, f"The agent's answer is larger than {this.cap // 1024} KiB.")
        if length.isdecimal() and int(length[:20]) > this.cap:
            raise too_large
        body = bytearray()
        try:
            async for piece in answer.aiter_stream():
                this.piece(len(piece))
                body += piece
                self._held += len(piece)
                if len(body) > this.cap:
                    raise too_large
                if self._held > ANSWERS_BYTES and len(body) > SMALL_BYTES:
                    raise Trouble(Kind.LOST, "Too many large answers arrived at once.")
        finally:
            self._held -= len(body)
        return bytes(body)


def _for_httpcore(request: httpx.Request, this: Exchange) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions={**request.extensions, "trace": this.trace},
    )


def _judge_head(status: int, headers: httpx.Headers, this: Exchange) -> str:
    """The media type of an answer that may be read."""
    if status != 200:
        raise of_status(status)
    if headers.get("content-encoding", "identity") != "identity":
        raise Trouble(Kind.UNUSABLE, "The agent's answer is compressed, which was not asked for.")
    kind = str(headers.get("content-type", _JSON)).partition(";")[0].strip().lower()
    if this.streaming and kind == _SSE:
        return _SSE
    if kind != _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Trouble(Kind.UNUSABLE, "The agent's answer is not JSON.")
    return _JSON
