"""What the tests of the process driver share: programs, a directory with drivers on it, and waiting."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from workspace_operator.api.workspace import EnvVar
from workspace_operator.api.workspaceclass import ImageAlias, ProcessBackend, WorkspaceClassSpec
from workspace_operator.backends import process
from workspace_operator.backends.process import system
from workspace_operator.backends.protocol import (
    Backend,
    Instance,
    ProvisionRequest,
    Reading,
    StopRequest,
    Template,
    WorkspaceRef,
)

AT_ONCE = timedelta(0)
CLUSTER = "cluster-1"
SCRIPTS = {
    "sleep": "exec sleep 300",
    "env": 'env > "$WORKSPACE_DATA/env"; exec sleep 300',
    "children": "sleep 300 & sleep 300 & wait",
    "leaves-child": 'sleep 300 & echo $! > "$WORKSPACE_DATA/child"; exit 4',
    "escapes": 'setsid sleep 300 & echo $! > "$WORKSPACE_DATA/child"; wait',
    # An agent's tool run: another session, and Python closes every inherited file, the lock among them.
    "escapes-far": 'exec "$PYTHON" -c \'import subprocess, os, time\n'
    'p = subprocess.Popen(["sleep", "300"], start_new_session=True)\n'
    'open(os.environ["WORKSPACE_DATA"] + "/child", "w").write(str(p.pid))\n'
    "time.sleep(300)'",
    "closes-files": "exec \"$PYTHON\" -c 'import os, time\nos.closerange(3, 256)\ntime.sleep(300)'",
}


def spec(directory: Path, *, allow_command: bool = False) -> WorkspaceClassSpec:
    env = (EnvVar(name="PYTHON", value=sys.executable),)
    images = tuple(ImageAlias(name=n, command=("/bin/sh", "-c", s, "sh"), env=env) for n, s in SCRIPTS.items())
    absent = ImageAlias(name="absent", command=("no-such-program-here",))
    return WorkspaceClassSpec(
        process=ProcessBackend(directory=str(directory), images=(*images, absent), allow_command=allow_command)
    )


class Bench:
    """A directory, drivers on it, and the removal of everything that they started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self._made: list[Backend] = []
        self._refs: list[WorkspaceRef] = []

    def driver(self, *, allow_command: bool = False) -> Backend:
        async def no_secret(namespace: str, name: str) -> dict[str, bytes]:
            raise AssertionError

        made = process.create("laptop", spec(self.root, allow_command=allow_command), CLUSTER, no_secret)
        self._made.append(made)
        return made

    def request(self, image: str = "sleep", incarnation: int = 1, **template: object) -> ProvisionRequest:
        uid = str(uuid.uuid4())
        ref = WorkspaceRef(CLUSTER, uid, "team-a", f"agent-{uid[:4]}", "laptop")
        self._refs.append(ref)
        fields: dict[str, object] = {"mount_path": "/data"}
        return ProvisionRequest(ref, incarnation, "hash", Template(image, **(fields | template)))  # type: ignore[arg-type]

    def home(self, request: ProvisionRequest) -> Path:
        return self.root / CLUSTER / request.ref.uid

    def room(self, request: ProvisionRequest) -> Path:
        return self.home(request) / f"incarnation-{request.incarnation}"

    def mark(self, request: ProvisionRequest) -> system.Mark:
        mark = system.Mark.load(f"{self.room(request)}/pid")
        assert mark is not None
        return mark

    async def data(self, request: ProvisionRequest, name: str) -> str:
        file = self.home(request) / "data" / name
        await until(lambda: file.exists() and file.read_text().strip() != "")
        return file.read_text()

    async def clean(self) -> None:
        last = self.driver()
        for ref in self._refs:
            for _ in range(100):
                if not await last.stop(StopRequest(ref, AT_ONCE, release=True)):
                    break
                await asyncio.sleep(0.02)
            await last.delete_data(ref)
        for made in self._made:
            await made.close()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not seen in time"
        await asyncio.sleep(0.01)


async def run(backend: Backend, request: ProvisionRequest) -> Instance:
    instance = await backend.provision(request)
    assert isinstance(instance, Instance)
    assert instance.reading is Reading.RUNNING
    return instance


async def see(backend: Backend, request: ProvisionRequest, reading: Reading) -> Instance:
    deadline = time.monotonic() + 10
    while True:
        (seen,) = await backend.observe(request.ref)
        if seen.reading is reading:
            return seen
        assert time.monotonic() < deadline, f"wanted {reading}, saw {seen}"
        await asyncio.sleep(0.01)
