"""A bare asyncio client of the API server: the load, the floor and the eyes of the benchmarks."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

Object = dict[str, Any]

GROUP = "/apis/workspace-operator.dev/v1alpha1"
NAMESPACE = "bench"
WORKSPACES = f"{GROUP}/namespaces/{NAMESPACE}/workspaces"
DELEGATIONS = f"{GROUP}/namespaces/{NAMESPACE}/delegations"
CLASSES = f"{GROUP}/workspaceclasses"
JSON, MERGE, APPLY = "application/json", "application/merge-patch+json", "application/apply-patch+yaml"
IN_FLIGHT = 24


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


class Api:
    """One pool of connections."""

    def __init__(self, kubeconfig: Path, connections: int = IN_FLIGHT + 8) -> None:
        loaded = yaml.safe_load(kubeconfig.read_text())
        cluster, user = loaded["clusters"][0]["cluster"], loaded["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as file:
            for part in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[part]) + b"\n")
            file.flush()
            context.load_cert_chain(file.name)
        self.server: str = cluster["server"]
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections, ssl=context))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Object | None = None, content: str = JSON) -> Object:
        data = json.dumps(body).encode() if body is not None else None
        while True:
            async with self._session.request(
                method, self.server + path, data=data, headers={"Content-Type": content}
            ) as response:
                text = await response.read()
            if response.status != 429:
                break
            # As clients do. The first listings of a new kind end so while the API server fills its cache.
            await asyncio.sleep(float(response.headers.get("Retry-After", "1")))
        if response.status >= 400:
            raise ApiError(response.status, text.decode(errors="replace"))
        return json.loads(text)  # type: ignore[no-any-return]

    async def text(self, path: str) -> str:
        async with self._session.get(self.server + path) as response:
            return await response.text()

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        timeout = aiohttp.ClientTimeout(total=None)
        url = f"{self.server}{path}?watch=true&resourceVersion={version}"
        async with self._session.get(url, timeout=timeout, read_bufsize=1 << 20) as response:
            async for line in response.content:
                event = json.loads(line)
                yield event["type"], event["object"]


async def each(items: Iterable[Any], work: Callable[[Any], Awaitable[object]], in_flight: int = IN_FLIGHT) -> None:
    """Call ``work`` on every item, a bounded number at once."""
    ahead = iter(items)

    async def worker() -> None:
        for item in ahead:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())


class Eye:
    """Follows all objects of one kind by one watch, and lets others wait for what it sees."""

    def __init__(self, api: Api, path: str = WORKSPACES, reached: Callable[[Object], bool] | None = None) -> None:
        """``reached``: what is waited for; of workspaces, to be Running and Ready."""
        self._api, self._path, self._reached = api, path, reached or ready
        self.objects: dict[str, Object] = {}
        self.ready_at: dict[str, float] = {}  # name → monotonic time at which it was first seen so
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        version = await self._list()
        self._task = asyncio.create_task(self._follow(version))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._task

    async def _list(self) -> str:
        listed = await self._api.call("GET", self._path)
        self.objects = {}
        for item in listed["items"]:
            self._put(item)
        self.ready_at = {name: at for name, at in self.ready_at.items() if name in self.objects}
        return str(listed["metadata"]["resourceVersion"])

    def _put(self, body: Object) -> None:
        name = body["metadata"]["name"]
        self.objects[name] = body
        if name not in self.ready_at and self._reached(body):
            self.ready_at[name] = time.monotonic()

    async def _follow(self, version: str) -> None:
        while True:
            async for kind, body in self._api.watch(self._path, version):
                if kind == "ERROR":
                    break
                if kind == "DELETED":
                    self.objects.pop(body["metadata"]["name"], None)
                    self.ready_at.pop(body["metadata"]["name"], None)
                else:
                    self._put(body)
                async with self._changed:
                    self._changed.notify_all()
            await asyncio.sleep(0.05)
            version = await self._list()  # the API server ends watches, for one when the CRD's own status changes

    async def until(self, test: Callable[[dict[str, Object]], bool], seconds: float, what: str) -> None:
        """Wait until the objects satisfy ``test``. Raises when they do not in time, or when the watch ended."""
        assert self._task is not None
        deadline = asyncio.get_running_loop().time() + seconds
        while not test(self.objects):
            if self._task.done():
                self._task.result()
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"not seen within {seconds:.0f} s: {what}")
            with suppress(TimeoutError):
                async with asyncio.timeout(1), self._changed:
                    await self._changed.wait()


def ready(body: Object, phase: str = "Running") -> bool:
    """Whether a workspace is Ready in a phase, as of its newest generation."""
    status = body.get("status", {})
    if status.get("phase") != phase or status.get("observedGeneration") != body["metadata"]["generation"]:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))


def workspace(name: str, class_: str, **spec: Any) -> Object:
    """A workspace of ordinary size."""
    return {
        "apiVersion": "workspace-operator.dev/v1alpha1",
        "kind": "Workspace",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "bench"}},
        "spec": {
            "className": class_,
            "image": "sleep",
            "env": [{"name": "ROLE", "value": "researcher"}, {"name": "TEAM", "value": "bench"}],
            "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}},
            **spec,
        },
    }


def workspace_class(name: str, directory: Path, identity: str = "None", interval: str = "15s") -> Object:
    """A class without a limit on starts."""
    return {
        "apiVersion": "workspace-operator.dev/v1alpha1",
        "kind": "WorkspaceClass",
        "metadata": {"name": name},
        "spec": {
            # An hour: should everything else fail, these processes end by themselves.
            "process": {"directory": str(directory), "images": [{"name": "sleep", "command": ["sleep", "3600"]}]},
            "limits": {"concurrentStarts": 1000, "startsPerMinute": 60000},
            "identity": {"mode": identity},
            "observeInterval": interval,
            "stopGracePeriod": "5s",
        },
    }
