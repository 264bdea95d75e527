"""TCP to agents, in small bites: whatever arrives, others get their turn every few milliseconds."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from typing import Any

import httpcore

from workspace_operator.a2a.exchange import exchange

READ_BYTES = 8 * 1024
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # tcp(7), Linux only
CONNECT_SECONDS = 5.0


class Network(httpcore.AsyncNetworkBackend):
    """Plain TCP; there is neither TLS nor a socket file, so that a request for them fails."""

    def __init__(self) -> None:
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = CONNECT_SECONDS,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._acknowledge_at_once()
        data = await self._inner.read(min(max_bytes, READ_BYTES), timeout)
        exchange.get().arrived(len(data))
        return data

    def _acknowledge_at_once(self) -> None:
        """Not 40 ms late: until then a server without TCP_NODELAY keeps the body back. Linux clears it by itself."""
        if _QUICKACK is not None:
            with contextlib.suppress(OSError):
                self._inner.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
