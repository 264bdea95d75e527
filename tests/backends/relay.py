"""A relay between a client and a server that loses answers, hangs or slows down, for tests of faults."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from pathlib import Path

CHUNK = 65536


class Relay:
    """Listens on a socket file (or on a free loopback port) and passes everything on to ``target``."""

    def __init__(self, target: str | int, listen: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self._tls = tls
        self.hang = False  # accept, and never answer
        self.bytes_per_second: float | None = None  # of answers
        self.seen: list[str] = []  # request lines
        self._lose: re.Pattern[bytes] | None = None
        self._open: list[socket.socket] = []
        self._server = socket.socket(socket.AF_UNIX if listen else socket.AF_INET)
        self._server.bind(str(listen) if listen else ("127.0.0.1", 0))
        self._server.listen(128)
        self.port = 0 if listen else self._server.getsockname()[1]
        self.host = f"unix://{listen}" if listen else f"tcp://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answer(self, request: str) -> None:
        """Pass the next request that matches on, and cut the connection when its answer comes."""
        self._lose = re.compile(request.encode())

    def cut(self) -> None:
        """Break all connections."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def close(self) -> None:
        """Stop listening and break all connections."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.hang:
            return
        if self._tls is not None:
            try:
                client = self._tls.wrap_socket(client, server_side=True)
            except OSError:
                client.close()
                return
            self._open.append(client)
        upstream = socket.socket(socket.AF_UNIX if isinstance(self.target, str) else socket.AF_INET)
        self._open.append(upstream)
        losing = threading.Event()
        try:
            upstream.connect(self.target if isinstance(self.target, str) else ("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        threading.Thread(target=self._requests, args=(client, upstream, losing), daemon=True).start()
        self._answers(client, upstream, losing)

    def _requests(self, client: socket.socket, upstream: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while chunk := client.recv(CHUNK):
                if match := re.match(rb"[A-Z]+ \S+", chunk):
                    self.seen.append(match[0].decode())
                if self._lose is not None and self._lose.search(chunk):
                    self._lose = None
                    losing.set()
                if self.hang:
                    return
                upstream.sendall(chunk)
        with contextlib.suppress(OSError):
            upstream.shutdown(socket.SHUT_WR)

    def _answers(self, client: socket.socket, upstream: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (chunk := upstream.recv(CHUNK)) and not losing.is_set() and not self.hang:
                if self.bytes_per_second:
                    time.sleep(len(chunk) / self.bytes_per_second)
                client.sendall(chunk)
        if self.hang:
            return
        for one in (client, upstream):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
