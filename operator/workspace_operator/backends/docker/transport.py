"""The SDK's transport for socket files, without its leaks. Used inside backends/docker only."""

from __future__ import annotations

import socket
from typing import Any

from docker.transport import UnixHTTPAdapter
from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool

_EVERY_URL = "socket"


class _Connection(UnixHTTPConnection):  # type: ignore[misc]  # the SDK is untyped
    def connect(self) -> None:
        """As the SDK does, but close the socket when nobody answers: an engine that is away is asked for ever."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self.unix_socket)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


class _Pool(UnixHTTPConnectionPool):  # type: ignore[misc]
    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self.timeout)


class SocketFileAdapter(UnixHTTPAdapter):  # type: ignore[misc]
    """Connections to one socket file."""

    def get_connection(self, url: str, proxies: Any = None) -> Any:  # noqa: ARG002 - the SDK's signature
        """One pool for the socket. The SDK keeps one per URL, so that hardly any connection is used twice."""
        with self.pools.lock:
            if self.pools.get(_EVERY_URL) is None:
                self.pools[_EVERY_URL] = _Pool("", self.socket_path, self.timeout, maxsize=self.max_pool_size)
            return self.pools[_EVERY_URL]
