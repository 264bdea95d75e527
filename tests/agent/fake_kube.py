"""A stand-in for the Kubernetes API: writes down every Lease renewal, keeps what the agent may create and read."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LEASE_PATH = "/apis/coordination.k8s.io/v1/namespaces/team-a/leases/wsp-researcher"
DELEGATIONS_PATH = "/apis/workspace-operator.dev/v1alpha1/namespaces/team-a/delegations"
CONFIGMAPS_PATH = "/api/v1/namespaces/team-a/configmaps"

Object = dict[str, Any]


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


@dataclass
class Ledger:
    """Objects by path, as far as an agent sees them. Nothing is readable before it is granted."""

    objects: dict[str, Object] = field(default_factory=dict)
    granted: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)  # answered to the next requests, instead of what they ask for
    changed: threading.Condition = field(default_factory=threading.Condition)

    def delegations(self) -> list[Object]:
        """Those that the agent created."""
        return [body for path, body in self.objects.items() if path.startswith(DELEGATIONS_PATH)]

    def wait_for(self, what: Callable[[], Any], within: float = 20) -> Any:
        """Until it is true; looked at after every change."""
        with self.changed:
            assert self.changed.wait_for(what, within), f"not within {within} s: {self.requests} {self.objects}"
            return what()

    def sent(self) -> Object:
        """The first Delegation, once it is there."""
        return dict(self.wait_for(self.delegations)[0])

    def grant(self, *paths: str) -> None:
        """What the operator does a moment after the Delegation was created."""
        with self.changed:
            self.granted.update(paths)
            self.changed.notify_all()

    def finish(self, phase: str, message: str = "", **result: Any) -> None:
        """What the operator does when the target has answered; the sender may read it from now on."""
        sent = self.sent()
        path = f"{DELEGATIONS_PATH}/{sent['metadata']['name']}"
        condition = {"type": "Finished", "status": "True", "reason": phase, "message": message}
        status = {"phase": phase, "conditions": [condition], **({"result": result} if result else {})}
        self.put(path, {**sent, "status": status})
        self.grant(path)

    def put(self, path: str, body: Object) -> None:
        with self.changed:
            version = int(self.objects.get(path, {}).get("metadata", {}).get("resourceVersion", "0")) + 1
            body = {**body, "metadata": {**body.get("metadata", {}), "resourceVersion": str(version)}}
            self.objects[path] = body
            self.changed.notify_all()

    def remove(self, path: str) -> None:
        with self.changed:
            del self.objects[path]
            self.changed.notify_all()


class FakeKube:
    """Knows one token; answers 401 to any other."""

    def __init__(self, identity: Path) -> None:
        self.renewals: list[Renewal] = []
        self.ledger = Ledger()
        self.refusals = 0
        self.accepted = ""
        self._identity = identity
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"kube": self}))
        self._server.daemon_threads = True
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


class _Handler(BaseHTTPRequestHandler):
    """One request; a subclass knows whose."""

    protocol_version = "HTTP/1.1"
    kube: FakeKube

    def do_PATCH(self) -> None:
        body = self._body()
        if not self._accepted():
            return
        if self.path == LEASE_PATH:
            authorization, content_type = self.headers["Authorization"], self.headers.get("Content-Type", "")
            self.kube.renewals.append(Renewal(self.path, authorization, content_type, body))
            self._answer(200, {})
        elif self._readable(self.path):
            found = self.kube.ledger.objects[self.path]
            self.kube.ledger.put(self.path, {**found, "spec": {**found["spec"], **body["spec"]}})
            self._answer(200, self.kube.ledger.objects[self.path])

    def do_POST(self) -> None:
        body = self._body()
        if not self._accepted():
            return
        path = f"{self.path}/{body['metadata']['name']}"
        if path in self.kube.ledger.objects:
            self._answer(409, {"message": "it exists"})
            return
        self.kube.ledger.put(path, body)
        self._answer(201, self.kube.ledger.objects[path])

    def do_GET(self) -> None:
        if not self._accepted():
            return
        url, query = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
        if "watch" not in query:
            if self._readable(url.path):
                self._answer(200, self.kube.ledger.objects[url.path])
            return
        path = f"{url.path}/{query['fieldSelector'][0].removeprefix('metadata.name=')}"
        if self._readable(path):
            self._watch(path, query["resourceVersion"][0])

    def _watch(self, path: str, version: str) -> None:
        """One change, and then the end, as a watch may end at any time."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.flush()
        with self.kube.ledger.changed:
            self.kube.ledger.changed.wait_for(lambda: _version(self.kube.ledger.objects.get(path)) != version, 20)
            found = self.kube.ledger.objects.get(path)
        event = {"type": "MODIFIED" if found else "DELETED", "object": found or {}}
        self.wfile.write(json.dumps(event).encode() + b"\n")

    def _accepted(self) -> bool:
        if self.path != LEASE_PATH:
            with self.kube.ledger.changed:
                self.kube.ledger.requests.append(f"{self.command} {self.path}")
                self.kube.ledger.changed.notify_all()
        if self.headers.get("Authorization", "") != f"Bearer {self.kube.accepted}":
            self.kube.refusals += 1
            self._answer(401, {"message": "Unauthorized"})
            return False
        if self.path != LEASE_PATH and self.kube.ledger.failures:
            self._answer(self.kube.ledger.failures.pop(0), {"message": "on purpose"})
            return False
        return True

    def _readable(self, path: str) -> bool:
        """Whether it may be read and is there; else the answer is given. As in RBAC, the right comes first."""
        if path not in self.kube.ledger.granted:
            self._answer(403, {"message": f"no right to {path}"})
        elif path not in self.kube.ledger.objects:
            self._answer(404, {"message": f"there is no {path}"})
        else:
            return True
        return False

    def _body(self) -> Object:
        return dict(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, code: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent: the test reads what was written down."""


def _version(body: Object | None) -> str:
    return "" if body is None else str(body["metadata"]["resourceVersion"])
