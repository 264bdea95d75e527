"""What the tests of the Docker driver share: requests, drivers, and waiting for what must come."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import docker
from tests.backends import tiny_image

from workspace_operator.api import meta
from workspace_operator.api.workspaceclass import DockerBackend
from workspace_operator.backends.docker import DockerDriver
from workspace_operator.backends.protocol import (
    Instance,
    Progress,
    ProvisionRequest,
    Reading,
    StopRequest,
    Template,
    WorkspaceRef,
)

CLASS = "tiny"
GRACE = timedelta(seconds=5)
SLEEP = ("/bin/sh", "-c", "exec sleep 3600")


class Lab:
    """One engine under test, with a cluster id of this test alone."""

    def __init__(self, host: str, image: str) -> None:
        self.host = host
        self.image = image
        self.cluster = f"cluster-{uuid.uuid4()}"
        self.api: Any = docker.APIClient(base_url=host, version="auto", timeout=30)
        self._drivers: list[DockerDriver] = []

    def driver(
        self,
        host: str | None = None,
        secrets: Mapping[tuple[str, str], Mapping[str, bytes]] | None = None,
        deadline: float = 15,
        silence: float = 60,
        cluster: str | None = None,
        **spec: Any,
    ) -> DockerDriver:
        """A driver of a class with these fields of its docker block."""

        async def resolve(namespace: str, name: str) -> Mapping[str, bytes]:
            return (secrets or {})[(namespace, name)]

        block = DockerBackend(host=host or self.host, **{"pull_policy": "Never", **spec})
        made = DockerDriver(CLASS, block, cluster or self.cluster, resolve, deadline=deadline, silence=silence)
        self._drivers.append(made)
        return made

    def ref(self, **changes: str) -> WorkspaceRef:
        """A workspace that nobody else has."""
        values = {
            "cluster": self.cluster,
            "uid": str(uuid.uuid4()),
            "namespace": "team",
            "name": "researcher",
            "class_name": CLASS,
        }
        return WorkspaceRef(**{**values, **changes})

    def request(
        self,
        ref: WorkspaceRef | None = None,
        incarnation: int = 1,
        files: Mapping[str, bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        **template: Any,
    ) -> ProvisionRequest:
        """A request for the tiny image, sleeping unless told otherwise."""
        return ProvisionRequest(
            ref=ref or self.ref(),
            incarnation=incarnation,
            parameters="hash",
            template=Template(**{"image": self.image, "command": SLEEP, **template}),
            environment=environment or {},
            files=files or {},
        )

    def inspect(self, request: ProvisionRequest) -> Mapping[str, Any]:
        """What the engine says of the request's container."""
        found: Mapping[str, Any] = self.api.inspect_container(name_of(request))
        return found

    def run(self, request: ProvisionRequest, *command: str) -> str:
        """Output of a command inside the container."""
        execution = self.api.exec_create(name_of(request), list(command))
        return str(self.api.exec_start(execution["Id"]).decode())

    async def close(self) -> None:
        """Close the drivers and remove everything of this cluster."""
        for driver in self._drivers:
            await driver.close()
        mine = {"label": f"{meta.LABEL_CLUSTER}={self.cluster}"}
        for row in self.api.containers(all=True, filters=mine):
            self.api.remove_container(row["Id"], force=True, v=True)
        for volume in self.api.volumes(filters=mine)["Volumes"] or ():
            self.api.remove_volume(volume["Name"])
        self.api.close()


@asynccontextmanager
async def lab_of(engine: Any) -> AsyncIterator[Lab]:
    """The engine of the session fixture with the tiny image on it, and nothing of this test left afterwards."""
    client = docker.APIClient(base_url=engine.host, version="auto")
    made = Lab(engine.host, tiny_image.ensure(client))
    client.close()
    try:
        yield made
    finally:
        await made.close()


def name_of(request: ProvisionRequest) -> str:
    """The container's name, as the driver promises it."""
    return f"wsp-{request.ref.uid}-{request.incarnation}"


def stopping(request: ProvisionRequest, **options: Any) -> StopRequest:
    """A stop of the request's workspace."""
    return StopRequest(**{"ref": request.ref, "grace": GRACE, **options})


async def started(driver: DockerDriver, request: ProvisionRequest) -> Instance:
    """Provision until there is an instance."""
    async with asyncio.timeout(60):
        while isinstance(found := await driver.provision(request), Progress):
            await asyncio.sleep(0.05)
    return found


async def eventually(look: Callable[[], Awaitable[bool]], within: float = 15) -> None:
    """Wait until a look says yes."""
    deadline = time.monotonic() + within
    while not await look():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def watching(driver: DockerDriver) -> AsyncIterator[tuple[list[str], asyncio.Task[None]]]:
    """Collect the wake-ups of a driver."""
    woken: list[str] = []
    task = asyncio.create_task(driver.watch(woken.append))
    await asyncio.sleep(0.5)
    try:
        yield woken, task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def ended(driver: DockerDriver, request: ProvisionRequest) -> Instance:
    """Wait until the instance is halted."""
    found: list[Instance] = []

    async def halted() -> bool:
        found[:] = await driver.observe(request.ref)
        return found[0].reading is Reading.HALTED

    await eventually(halted)
    return found[0]


async def released(driver: DockerDriver, request: ProvisionRequest) -> None:
    """Release, as often as it takes."""

    async def gone() -> bool:
        return not await driver.stop(stopping(request, release=True))

    await eventually(gone)
