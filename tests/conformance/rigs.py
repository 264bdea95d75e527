"""What the suite needs to know about a backend besides its protocol: how to make one, a workload, a look at its data.

To put your own backend through the suite, subclass :class:`Rig` and select it with ``--backend=package.module:Class``.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from workspace_operator.api import meta
from workspace_operator.api.states import PullPolicy
from workspace_operator.api.workspaceclass import DockerBackend, ImageAlias, ProcessBackend, WorkspaceClassSpec
from workspace_operator.backends.protocol import Backend, ProvisionRequest, StopRequest, Template, WorkspaceRef

PORT = 8080
MOUNT_PATH = "/data"
CLASS = "conformance"


class Workload(StrEnum):
    """What the program in the workspace does."""

    COUNTER = "counter"  # counts its starts in the volume, prints, copies its token there, ends with 0 on SIGTERM
    STUBBORN = "stubborn"  # the same, but ignores SIGTERM
    FAILING = "failing"  # prints and ends at once with 3
    SERVING = "serving"  # answers HTTP on its port


# Only shell builtins but for sleep and the server, so that a single static binary is image enough.
_COUNT = (
    'n=0; [ -f "$WORKSPACE_DATA/counter" ] && read n < "$WORKSPACE_DATA/counter"; '
    'n=$((n+1)); echo $n > "$WORKSPACE_DATA/counter"; '
    'for i in 1 2 3 4 5; do echo "start $n line $i"; done; '
)
_LOOP = (
    'while :; do [ -f "$WORKSPACE_IDENTITY/token" ] && read t < "$WORKSPACE_IDENTITY/token" '
    '&& echo "$t" > "$WORKSPACE_DATA/token"; {busybox}sleep 0.1 & wait $!; done'
)


def script(workload: Workload, busybox: str = "") -> str:
    """The shell script of a workload; ``busybox`` is put before programs that are no builtins."""
    texts = {
        Workload.COUNTER: "trap 'exit 0' TERM; " + _COUNT + _LOOP,
        Workload.STUBBORN: "trap '' TERM; " + _COUNT + _LOOP,
        Workload.FAILING: "echo failing; exit 3",
        Workload.SERVING: 'exec {busybox}httpd -f -h / -p "${{WORKSPACE_BIND_ADDRESS:-0.0.0.0}}:$WORKSPACE_PORT"',
    }
    text = texts[workload]
    return text.replace("{busybox}", busybox).replace("{{", "{").replace("}}", "}")


class Rig(ABC):
    """One backend under test. A fresh rig per test; what it made is removed by ``clean``."""

    name: str

    def __init__(self, request: pytest.FixtureRequest, directory: Path) -> None:
        self.request_fixture = request
        self.directory = directory
        self.cluster = str(uuid.uuid4())
        self._made: list[Backend] = []
        self._refs: list[WorkspaceRef] = []

    @abstractmethod
    def create(self, class_name: str, cluster: str) -> Backend:
        """A driver of the backend under test."""

    @abstractmethod
    def template(self, workload: Workload = Workload.COUNTER, *, port: bool = False) -> Template:
        """A template that runs the workload, with a volume at MOUNT_PATH."""

    @abstractmethod
    async def read_data(self, ref: WorkspaceRef, name: str) -> str | None:
        """A file of the workspace's volume, read without the driver; None when there is none."""

    @abstractmethod
    async def data_labels(self, ref: WorkspaceRef) -> Mapping[str, str] | None:
        """The labels of the workspace's volume, read without the driver; None when there is no volume."""

    @abstractmethod
    def break_connection(self) -> None:
        """Make the backend unreachable for drivers that are made from now on."""

    @abstractmethod
    def mend_connection(self) -> None:
        """Undo ``break_connection``."""

    async def data_size(self, ref: WorkspaceRef) -> int:
        """Bytes of the workspace's volume, read without the driver; only of backends with the capability for sizes."""
        raise NotImplementedError

    async def make(self, class_name: str = CLASS, cluster: str | None = None, *, check: bool = True) -> Backend:
        """A driver, as a freshly started operator makes it."""
        backend = self.create(class_name, cluster or self.cluster)
        self._made.append(backend)
        if check:
            assert await backend.check()
        return backend

    def another_cluster(self) -> str:
        """Id of another cluster whose operator uses the same backend."""
        return str(uuid.uuid4())

    def ref(self, class_name: str = CLASS, cluster: str | None = None, uid: str | None = None) -> WorkspaceRef:
        """A workspace that nobody has seen before."""
        uid = uid or str(uuid.uuid4())
        ref = WorkspaceRef(cluster or self.cluster, uid, "team-a", f"agent-{uid[:8]}", class_name)
        self._refs.append(ref)
        return ref

    def provision(
        self,
        ref: WorkspaceRef,
        incarnation: int = 1,
        workload: Workload = Workload.COUNTER,
        *,
        port: bool = False,
        storage: int | None = None,
        environment: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> ProvisionRequest:
        """A request with the environment that the operator gives."""
        own = {
            "WORKSPACE_NAME": ref.name,
            "WORKSPACE_NAMESPACE": ref.namespace,
            "WORKSPACE_UID": ref.uid,
            "WORKSPACE_INCARNATION": str(incarnation),
            "WORKSPACE_PORT": str(PORT),
            "WORKSPACE_IDENTITY": meta.IDENTITY_DIRECTORY,
            "WORKSPACE_DATA": MOUNT_PATH,
        }
        return ProvisionRequest(
            ref=ref,
            incarnation=incarnation,
            parameters=f"hash-{workload}",
            template=replace(self.template(workload, port=port), storage=storage),
            environment=own | dict(environment or {}),
            files=dict(files or {}),
        )

    async def clean(self) -> None:
        """Remove everything that the test made, on every cluster it played."""
        self.mend_connection()
        for ref in self._refs:
            backend = self.create(ref.class_name, ref.cluster)
            self._made.append(backend)
            for _ in range(50):
                if not await backend.stop(StopRequest(ref, timedelta(0), release=True)):
                    break
            await backend.delete_data(ref)
        for backend in self._made:
            await backend.close()


class ProcessRig(Rig):
    """Real processes in a temporary directory."""

    name = "process"

    def __init__(self, request: pytest.FixtureRequest, directory: Path) -> None:
        super().__init__(request, directory)
        self.root = directory / "workspaces"
        self._away = directory / "unmounted"

    def create(self, class_name: str, cluster: str) -> Backend:
        from workspace_operator.backends import process

        return process.create(class_name, self.spec(), cluster, no_secrets)

    def spec(self) -> WorkspaceClassSpec:
        """The class: one alias per workload."""
        serve = 'exec "$0" -m http.server --bind "$WORKSPACE_BIND_ADDRESS" "$WORKSPACE_PORT"'
        commands: dict[Workload, tuple[str, ...]]
        commands = {workload: ("/bin/sh", "-c", script(workload)) for workload in Workload}
        commands[Workload.SERVING] = ("/bin/sh", "-c", serve, sys.executable)
        images = tuple(ImageAlias(name=name, command=command) for name, command in commands.items())
        return WorkspaceClassSpec(process=ProcessBackend(directory=str(self.root), images=images))

    def template(self, workload: Workload = Workload.COUNTER, *, port: bool = False) -> Template:
        return Template(image=workload, port=PORT if port else None, mount_path=MOUNT_PATH)

    def home(self, ref: WorkspaceRef) -> Path:
        """The workspace's directory."""
        return self.root / ref.cluster / ref.uid

    async def read_data(self, ref: WorkspaceRef, name: str) -> str | None:
        file = self.home(ref) / "data" / name
        return file.read_text() if file.exists() else None

    async def data_labels(self, ref: WorkspaceRef) -> Mapping[str, str] | None:
        if not (self.home(ref) / "data").exists():
            return None
        labels: Mapping[str, str] = json.loads((self.home(ref) / "data.json").read_text())
        return labels

    def break_connection(self) -> None:
        self.root.rename(self._away)

    def mend_connection(self) -> None:
        if self._away.exists():
            self._away.rename(self.root)


class DockerRig(Rig):
    """Real containers on the engine of the session fixture ``engine``."""

    name = "docker"

    def __init__(self, request: pytest.FixtureRequest, directory: Path) -> None:
        super().__init__(request, directory)
        import docker
        from tests.backends import tiny_image

        self._engine = request.getfixturevalue("engine").host
        self._client: Any = docker.DockerClient(base_url=self._engine)
        self._image: str = tiny_image.ensure(self._client.api)
        self._host = self._engine

    def create(self, class_name: str, cluster: str) -> Backend:
        from workspace_operator.backends import docker

        config = DockerBackend(host=self._host, pull_policy=PullPolicy.NEVER)
        return docker.create(class_name, WorkspaceClassSpec(docker=config), cluster, no_secrets)

    def template(self, workload: Workload = Workload.COUNTER, *, port: bool = False) -> Template:
        return Template(
            image=self._image,
            command=("/bin/busybox", "sh", "-c", script(workload, "/bin/busybox ")),
            port=PORT if port else None,
            mount_path=MOUNT_PATH,
        )

    def _volume(self, ref: WorkspaceRef) -> Any:
        wanted = [f"{meta.LABEL_UID}={ref.uid}", f"{meta.LABEL_CLUSTER}={ref.cluster}"]
        found = self._client.volumes.list(filters={"label": wanted})
        assert len(found) <= 1, f"more than one volume of one workspace: {found}"
        return found[0] if found else None

    async def read_data(self, ref: WorkspaceRef, name: str) -> str | None:
        from docker.errors import NotFound

        volume = self._volume(ref)
        if volume is None:
            return None
        # A container that is never started shows a volume's files, on a remote engine too.
        helper = self._client.containers.create(self._image, volumes=[f"{volume.name}:/look"])
        try:
            chunks, _ = helper.get_archive(f"/look/{name}")
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                file = archive.extractfile(name)
                return file.read().decode() if file else None
        except NotFound:
            return None
        finally:
            helper.remove()

    async def data_labels(self, ref: WorkspaceRef) -> Mapping[str, str] | None:
        volume = self._volume(ref)
        return None if volume is None else volume.attrs["Labels"]

    def break_connection(self) -> None:
        self._host = f"unix://{self.directory}/no-engine.sock"

    def mend_connection(self) -> None:
        self._host = self._engine

    async def clean(self) -> None:
        await super().clean()
        self._client.close()


async def no_secrets(namespace: str, name: str) -> Mapping[str, bytes]:
    """The classes of these rigs name no Secret."""
    raise AssertionError(f"nobody should ask for the Secret {namespace}/{name}")


RIGS: Mapping[str, type[Rig]] = {rig.name: rig for rig in (ProcessRig, DockerRig)}
