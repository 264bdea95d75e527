"""An API server that misbehaves: an HTTP proxy before a real kube-apiserver, with the faults of :mod:`apifaults`.

    with ApiServer(cluster.server, cluster.ca_file, ApiFaults(seed=7)) as proxy:
        kubeconfig = proxy.kubeconfig(original, directory / "through-the-proxy.kubeconfig")
        proxy.faults.lost = Rule("patch workspaces/status", every=3)

It speaks plain HTTP to its clients, on a loopback port; credentials are handed on as they come.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import yaml
from aiohttp import web
from tests.ec2.counterpart.faults import matches

from .apifaults import WRITES, ApiFaults

T = TypeVar("T")
REMEMBERED = 60.0  # seconds for which it is known which resourceVersion was current when
HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "te", "upgrade", "accept-encoding"}
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_VERSION = re.compile(rb'"resourceVersion":"(\d+)"')


class Reset(Exception):
    """The connection ends here."""


@dataclass(frozen=True)
class Call:
    """One request as the API server's authorisation would see it."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    @classmethod
    def of(cls, method: str, path: str, query: Any) -> Call:
        """Read a path such as /apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL/NAME/SUBRESOURCE."""
        parts = path.strip("/").split("/")
        parts = parts[3:] if parts[0] == "apis" else parts[2:]
        namespace = ""
        if parts[:1] == ["namespaces"] and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        plural, name, sub = (*parts, "", "", "")[:3]
        resource = f"{plural}/{sub}" if sub else plural
        if method == "GET":
            verb = "get" if name else "watch" if query.get("watch") in ("true", "1") else "list"
        else:
            verb = VERBS.get(method, "delete" if name else "deletecollection")
        return cls(verb, resource, namespace, name)

    @property
    def action(self) -> str:
        return f"{self.verb} {self.resource}"


class ApiServer:
    """The proxy, on a thread and an event loop of its own."""

    def __init__(self, upstream: str, ca_file: Path, faults: ApiFaults | None = None) -> None:
        self.faults = faults or ApiFaults()
        self.calls: deque[tuple[float, Call]] = deque(maxlen=100_000)
        self.url = ""
        self._upstream, self._ca_file = upstream, ca_file
        self._versions: deque[tuple[float, int]] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="apiserver-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, original: Path, path: Path) -> Path:
        """A copy of a kubeconfig whose server is this proxy."""
        document = yaml.safe_load(original.read_text())
        for each in document["clusters"]:
            each["cluster"]["server"] = self.url
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        return path

    def heal(self) -> None:
        """No faults from now on, and watches that are silent end."""
        self.faults.clear()

        async def free() -> None:
            self._healed.set()
            self._healed = asyncio.Event()

        self._run(free())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _start(self) -> None:
        self._healed = asyncio.Event()
        context = ssl.create_default_context(cafile=str(self._ca_file))
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        self._healed.set()
        await self._runner.cleanup()
        await self._session.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0.2)  # aborted TLS connections close in later turns of the loop

    # One request. A client that hangs up does not undo what it asked for: aiohttp lets handlers finish.

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        call = Call.of(http.method, http.path, http.query)
        self.calls.append((time.monotonic(), call))
        try:
            if {call.resource, f"{call.resource}/{call.namespace}/{call.name}"} & set(self.faults.exempt):
                return await self._forward(http, call)
            refusal = await self._refusal(http, call)
            return refusal if refusal is not None else await self._faulty(http, call)
        except (Reset, aiohttp.ClientError, ConnectionError):
            if http.transport is not None:
                http.transport.abort()
            return web.Response()

    async def _refusal(self, http: web.Request, call: Call) -> web.Response | None:
        """What keeps a request from having any effect."""
        faults, action = self.faults, call.action
        if rule := faults.hits("slow", action):
            await asyncio.sleep(rule.seconds)
        if faults.hits("reset", action):
            raise Reset
        if rule := faults.hits("throttled", action):
            after = max(1, round(rule.seconds))
            return status(429, "TooManyRequests", "Too many requests, please try again later.", retry_after=after)
        if faults.hits("server_error", action):
            return status(500, "InternalError", "Internal error occurred: etcdserver: leader changed")
        if faults.hits("timeout", action):
            return status(504, "Timeout", "Timeout: request did not complete within the allotted timeout")
        if matches(action, WRITES) and faults.hits("conflict", action):
            text = f'Operation cannot be fulfilled on {call.resource} "{call.name}": the object has been modified'
            return status(409, "Conflict", text)
        continued = bool(http.query.get("continue"))
        resumed = call.verb == "watch" and http.query.get("resourceVersion", "0") != "0"
        if (continued or resumed) and faults.hits("expired", action):
            return status(410, "Expired", "The provided resource version is too old.")
        return None

    async def _faulty(self, http: web.Request, call: Call) -> web.StreamResponse:
        """The request is carried out; what the client learns of it is another matter."""
        faults, action = self.faults, call.action
        if call.verb == "watch":
            return await self._forward(http, call, faulty=True)
        past = None
        if call.verb == "list" and not http.query.get("continue") and (rule := faults.hits("stale", action)):
            past = int(rule.code) if rule.code else self._version_before(rule.seconds)
        answer = await self._forward(http, call, past=past)
        if faults.hits("lost", action):
            raise Reset
        if faults.hits("timeout_after", action):
            return status(504, "Timeout", "Timeout: request did not complete within the allotted timeout")
        return answer

    async def _forward(
        self, http: web.Request, call: Call, *, past: int | None = None, faulty: bool = False
    ) -> web.StreamResponse:
        query = dict(http.query)
        if past is not None:
            query |= {"resourceVersion": str(past), "resourceVersionMatch": "Exact"}
        headers = {name: value for name, value in http.headers.items() if name.lower() not in HOP}
        body = await http.read()
        async with self._session.request(
            http.method, f"{self._upstream}{http.path}", params=query, headers=headers, data=body or None
        ) as answer:
            if call.verb == "watch" and answer.status == 200:
                return await self._watch(http, call, answer, faulty)
            data = await answer.read()
            self._note_versions(data)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            kept.pop("Content-Encoding", None)  # read() has undone it
            return web.Response(status=answer.status, body=data, headers=kept)

    # Watches.

    async def _watch(
        self, http: web.Request, call: Call, answer: aiohttp.ClientResponse, faulty: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(http)
        async for event in _lines(http, answer):
            self._note_versions(event)
            if faulty:
                await self._disturb(http, call, response)
            await response.write(event + b"\n")
        return response

    async def _disturb(self, http: web.Request, call: Call, response: web.StreamResponse) -> None:
        """Raises Reset when this event ends the watch."""
        faults, action = self.faults, call.action
        if faults.hits("watch_cut", action):
            raise Reset
        if faults.hits("watch_expired", action):
            gone = _status(410, "Expired", "too old resource version")
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            await response.write_eof()
            raise Reset
        if rule := faults.hits("watch_silent", action):
            healed = self._healed
            until = time.monotonic() + (rule.seconds or REMEMBERED)
            while time.monotonic() < until and not healed.is_set() and not _hung_up(http):
                await asyncio.sleep(0.1)
            raise Reset

    # The past.

    def _note_versions(self, data: bytes) -> None:
        newest = max((int(found) for found in _VERSION.findall(data)), default=0)
        now = time.monotonic()
        if newest > (self._versions[-1][1] if self._versions else 0):
            self._versions.append((now, newest))
        while self._versions and self._versions[0][0] < now - REMEMBERED:
            self._versions.popleft()

    def _version_before(self, seconds: float) -> int | None:
        """The newest resourceVersion known so many seconds ago; None when nothing was."""
        horizon = time.monotonic() - seconds
        return next((version for at, version in reversed(self._versions) if at <= horizon), None)


def status(code: int, reason: str, message: str, retry_after: int | None = None) -> web.Response:
    """A refusal in the API server's own form."""
    body = _status(code, reason, message)
    headers = {}
    if retry_after is not None:
        body["details"] = {"retryAfterSeconds": retry_after}
        headers["Retry-After"] = str(retry_after)
    return web.json_response(body, status=code, headers=headers)


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    kind = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**kind, "message": message, "reason": reason, "code": code}


async def _lines(http: web.Request, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The events of a watch, until either side ends it."""
    rest = b""
    while not _hung_up(http):
        try:
            async with asyncio.timeout(1):
                chunk = await answer.content.readany()
        except TimeoutError:
            continue  # to see whether the client is still there
        if not chunk:
            return
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


def _hung_up(http: web.Request) -> bool:
    return http.transport is None or http.transport.is_closing()
