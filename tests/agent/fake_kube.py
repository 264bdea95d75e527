"""A stand-in for the Kubernetes API that knows one Lease and writes down every request for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LEASE_PATH = "/apis/coordination.k8s.io/v1/namespaces/team-a/leases/wsp-researcher"


@dataclass(frozen=True)
class Renewal:
    path: str
    authorization: str
    content_type: str
    body: dict[str, Any]
    at: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> str:
        return str(self.body["metadata"]["annotations"]["workspace-operator.dev/agent-state"])

    @property
    def active_tasks(self) -> str:
        return str(self.body["metadata"]["annotations"]["workspace-operator.dev/active-tasks"])


class FakeKube:
    """Answers 200 to the accepted token and 401 to any other."""

    def __init__(self, identity: Path) -> None:
        self.renewals: list[Renewal] = []
        self.refusals = 0
        self.accepted = ""
        self._identity = identity
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def give_identity(self, token: str) -> None:
        """What the operator does before a start and before a token expires."""
        self._identity.mkdir(exist_ok=True)
        values = {
            "namespace": "team-a",
            "lease": "wsp-researcher",
            "server": f"http://127.0.0.1:{self._server.server_port}",
            "token": token,
        }
        for name, value in values.items():
            (self._identity / name).write_text(value + "\n")

    def wait_for(self, what: Callable[[Renewal], bool], within: float = 10, after: int = 0) -> Renewal:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for renewal in self.renewals[after:]:
                if what(renewal):
                    return renewal
            time.sleep(0.02)
        raise AssertionError(f"no such renewal within {within} s; seen: {self.renewals[after:]}")

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        kube = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PATCH(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                authorization = self.headers.get("Authorization", "")
                if authorization != f"Bearer {kube.accepted}":
                    kube.refusals += 1
                    self._answer(401)
                    return
                kube.renewals.append(Renewal(self.path, authorization, self.headers.get("Content-Type", ""), body))
                self._answer(200)

            def _answer(self, code: int) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *arguments: object) -> None:
                """Silent: the test reads `renewals`."""

        return Handler
