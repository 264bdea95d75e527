"""The verbs of backends/protocol.py against one Docker engine. Only backends/door.py may import it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from docker.errors import APIError, ImageNotFound

from workspace_operator.api import meta
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability
from workspace_operator.api.workspaceclass import DockerBackend, WorkspaceClassSpec
from workspace_operator.backends import labels
from workspace_operator.backends.docker import checks, faults, identity, shape
from workspace_operator.backends.docker.ending import Endings
from workspace_operator.backends.docker.engine import DEADLINE, Client, Engine, Job
from workspace_operator.backends.docker.events import SILENCE, Events
from workspace_operator.backends.docker.images import Images
from workspace_operator.backends.docker.readings import Reader, Seen
from workspace_operator.backends.protocol import (
    LIVE,
    Backend,
    Instance,
    Progress,
    ProvisionRequest,
    Reading,
    ResolveSecret,
    StopRequest,
    Wake,
    WorkspaceRef,
    replace,
)
from workspace_operator.errors import BackendError, BadRequest

_CAPABILITIES: Final = frozenset(
    {
        *(Capability.HALT, Capability.FREEZE, Capability.DELIVER, Capability.LOGS),
        *(Capability.VOLUMES, Capability.EVENTS, Capability.LIMITS),
    }
)


def create(class_name: str, spec: WorkspaceClassSpec, cluster: str, resolve_secret: ResolveSecret) -> Backend:
    """The driver of one WorkspaceClass. Makes no call: a wrong class shows in check() and the verbs."""
    if spec.docker is None:
        raise BadRequest(Reason.MISCONFIGURED, f"WorkspaceClass {class_name} has no docker block; add one.")
    return DockerDriver(class_name, spec.docker, cluster, resolve_secret)


class DockerDriver:
    """Containers of one engine, for one class of one cluster."""

    def __init__(
        self,
        class_name: str,
        spec: DockerBackend,
        cluster: str,
        resolve_secret: ResolveSecret,
        *,
        deadline: float = DEADLINE,
        silence: float = SILENCE,
    ) -> None:
        self._class_name = class_name
        self._cluster = cluster
        self._spec = spec
        self._engine = Engine(spec, resolve_secret, deadline)
        self._endings = Endings()
        self._reader = Reader(spec.host, self._endings.since)
        self._images = Images(self._engine, spec, resolve_secret, lambda: self._wake)
        self._events = Events(self._engine, cluster, class_name, silence)
        self._wake: Wake | None = None
        self._identity_mounts: dict[str, str] = {}  # image → where its links lead, if elsewhere
        self._capabilities = _CAPABILITIES

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Everything; less limits once check() found an engine without the kernel's support."""
        return self._capabilities

    async def check(self) -> str:
        """Engine, network, runtime and Secrets of the class."""
        await self._images.check()
        found = await self._engine.read("Asking the engine about itself", lambda c: checks.ask(c, self._spec))
        self._capabilities = _CAPABILITIES if found.limits else _CAPABILITIES - {Capability.LIMITS}
        return f"Docker {found.version} at {self._spec.host}, network {self._spec.network}"

    async def list_owned(self) -> tuple[Instance, ...]:
        """One call for the whole class."""
        began = time.monotonic()

        def work(client: Client) -> tuple[Instance, ...]:
            seen = self._reader.list(client, cluster=self._cluster, class_name=self._class_name)
            self._endings.keep_only({one.id for one in seen if one.instance.reading in LIVE}, began)
            return tuple(one.instance for one in seen)

        return await self._engine.read("Listing containers", work)

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        """List the workspace's containers, and inspect those that ended for why."""

        def work(client: Client) -> tuple[Instance, ...]:
            return tuple(self._examined(client, seen) for seen in self._reader.of(client, ref))

        return await self._engine.read("Observing a workspace", work, ref.uid)

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        """Find, start or create the container; one image pull may come between."""
        found = await self._engine.change(
            request.ref.uid, "Starting a container", lambda client, job: self._revive(client, job, request)
        )
        if found is not None:
            return found
        if (progress := await self._images.before_create(request)) is not None:
            return progress
        made = await self._engine.change(
            request.ref.uid, "Creating a container", lambda client, job: self._make(client, job, request)
        )
        return made if made is not None else await self._images.missing(request)

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        """One step towards the end of each container that is meant."""

        def work(client: Client, job: Job) -> tuple[Instance, ...]:
            for seen in self._reader.of(client, request.ref):
                if request.only_before is not None and seen.instance.incarnation >= request.only_before:
                    continue
                job.proceed()
                self._endings.end(client, seen, request)
            return tuple(seen.instance for seen in self._reader.of(client, request.ref))

        return await self._engine.change(request.ref.uid, "Stopping a container", work, Reason.STOP_FAILED)

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        """Release older incarnations, then provision."""
        return await replace(self, request, grace)

    async def deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        """Turn the identity files of a running container over to new content."""

        def work(client: Client, job: Job) -> None:
            for seen in self._reader.of(client, ref):
                if seen.instance.incarnation == incarnation and seen.instance.reading in LIVE:
                    job.proceed()
                    identity.refresh(client, seen.id, files)
                    return
            raise BackendError(
                Reason.IDENTITY_FAILED,
                "The identity files cannot be delivered: the container does not run. Each start writes them.",
            )

        await self._engine.change(ref.uid, "Delivering identity files", work, Reason.IDENTITY_FAILED)

    async def delete_data(self, ref: WorkspaceRef) -> bool:
        """Remove the volume, if it is this workspace's; False while a container still uses it."""
        name = shape.volume_name(ref.uid)

        def work(client: Client, job: Job) -> bool:
            try:
                volume = client.inspect_volume(name)
                if not labels.is_of(volume.get("Labels"), ref) and not checks.is_half_made(client, volume):
                    return True  # a stranger's: this workspace has none
                job.proceed()
                client.remove_volume(name)
            except APIError as exc:
                if faults.has_status(exc, 404):
                    return True
                if faults.has_status(exc, 409):
                    return False
                raise
            return True

        return await self._engine.change(ref.uid, "Removing a data volume", work, Reason.STOP_FAILED)

    async def logs(self, ref: WorkspaceRef, tail: int) -> str:
        """Output of the newest incarnation, both streams."""

        def work(client: Client) -> str:
            seen = self._reader.of(client, ref)
            try:
                output: bytes = client.logs(seen[-1].id, tail=tail) if seen else b""
            except APIError as exc:
                if not faults.has_status(exc, 404):
                    raise
                return ""
            return output.decode(errors="replace")

        return await self._engine.read("Reading logs", work, ref.uid)

    async def watch(self, wake: Wake) -> None:
        """Follow the engine's events."""
        self._wake = wake
        try:
            await self._events.follow(wake)
        finally:
            self._wake = None

    async def close(self) -> None:
        """Containers stay as they are."""
        self._images.close()
        self._engine.close()

    def _examined(self, client: Client, seen: Seen) -> Instance:
        if seen.instance.reading in LIVE:
            return seen.instance  # an inspection would add nothing
        try:
            return self._reader.examined(client, seen)
        except APIError as exc:
            if faults.has_status(exc, 404):
                return seen.instance  # removed this moment; the next look will not list it
            raise

    def _revive(self, client: Client, job: Job, request: ProvisionRequest) -> Instance | None:
        """Make the existing container of this incarnation run; None when there is none."""
        seen = self._reader.of(client, request.ref)
        for other in seen:
            if other.instance.incarnation != request.incarnation and other.instance.reading in LIVE:
                raise BackendError(
                    Reason.PROVISION_FAILED,
                    f"Incarnation {other.instance.incarnation} of this workspace still runs;"
                    f" it is released before incarnation {request.incarnation} may start.",
                )
        own = next((one for one in seen if one.instance.incarnation == request.incarnation), None)
        if own is None:
            return None
        if own.instance.reading is Reading.FROZEN:
            job.proceed()
            client.unpause(own.id)
        elif own.instance.reading is Reading.HALTED:
            return self._launch(client, job, request, own.id)
        else:
            return own.instance
        return self._now(client, request)

    def _make(self, client: Client, job: Job, request: ProvisionRequest) -> Instance | None:
        """Volume, container, files, start; None when the engine lacks the image."""
        self._make_volume(client, job, request)
        job.proceed()
        try:
            container = self._create(client, request)
        except ImageNotFound:
            return None
        except APIError as exc:
            if not faults.has_status(exc, 409):
                raise
            return self._adopt(client, job, request)
        return self._launch(client, job, request, container)

    def _make_volume(self, client: Client, job: Job, request: ProvisionRequest) -> None:
        """Before the container: an engine that makes it on the way would not label it (I-13)."""
        if request.template.mount_path is None:
            return
        job.proceed()
        name = shape.volume_name(request.ref.uid)
        owned = labels.of(request.ref, labels.ROLE_DATA)
        volume = client.create_volume(name, labels=owned)  # returns an existing one
        if checks.is_half_made(client, volume):
            client.remove_volume(name)
            volume = client.create_volume(name, labels=owned)
        shape.refuse_foreign("volume", name, volume.get("Labels"), request.ref)

    def _create(self, client: Client, request: ProvisionRequest) -> str:
        mount = self._identity_mounts.get(request.template.image, meta.IDENTITY_DIRECTORY)
        made = client.create_container_from_config(
            shape.create_config(request, self._spec, mount),
            name=shape.container_name(request.ref.uid, request.incarnation),
        )
        container = str(made["Id"])
        if shape.lost_limits(request.template, made.get("Warnings") or ()):
            client.remove_container(container, v=True, force=False)
            raise BackendError(
                Reason.PROVISION_FAILED,
                "The engine's kernel cannot apply the memory or cpu limit; enable that cgroup controller on the"
                " engine's machine, or leave the limit out.",
            )
        return container

    def _adopt(self, client: Client, job: Job, request: ProvisionRequest) -> Instance:
        """The name is taken: by an earlier call of ours whose answer was lost, or by a stranger."""
        name = shape.container_name(request.ref.uid, request.incarnation)
        found = client.inspect_container(name)["Config"].get("Labels")
        shape.refuse_foreign("container", name, found, request.ref)
        found = self._revive(client, job, request)
        return found if found is not None else self._now(client, request)

    def _launch(self, client: Client, job: Job, request: ProvisionRequest, container: str) -> Instance:
        """Write the files, then start; the container does not run."""
        self._endings.forget(container)
        if request.files:
            try:
                identity.write(client, container, request.files)
            except APIError as exc:
                if not identity.refused_as_read_only(exc):
                    raise
                container = self._recreate(client, job, request, container)
        job.proceed()
        try:
            client.start(container)
        except APIError as exc:
            if not faults.is_forgotten_start(exc):
                raise
            client.start(self._anew(client, job, request, container))
        return self._now(client, request)

    def _recreate(self, client: Client, job: Job, request: ProvisionRequest, container: str) -> str:
        """Mount the identity volume where the image's links lead.

        With a read-only root the engine writes into volumes only, and it compares resolved paths with the
        declared ones: /var/run is a link in most images. The links show only in a container made of the image.
        """
        mount = identity.resolve_directory(client, container)
        image = request.template.image
        if mount == self._identity_mounts.get(image, meta.IDENTITY_DIRECTORY):
            raise BackendError(
                Reason.PROVISION_FAILED,
                f"The identity files cannot be written into a container of {image}: its root is read-only and"
                f" {meta.IDENTITY_DIRECTORY} is no volume of it.",
            )
        self._identity_mounts[image] = mount
        return self._anew(client, job, request, container)

    def _anew(self, client: Client, job: Job, request: ProvisionRequest, container: str) -> str:
        """Another container under the same name, with the files, in place of one that does not run."""
        job.proceed()
        client.remove_container(container, v=True, force=False)
        container = self._create(client, request)
        if request.files:
            identity.write(client, container, request.files)
        return container

    def _now(self, client: Client, request: ProvisionRequest) -> Instance:
        for seen in self._reader.of(client, request.ref):
            if seen.instance.incarnation == request.incarnation:
                return seen.instance
        raise BackendError(
            Reason.PROVISION_FAILED,
            "The container vanished while it was started; somebody removed it. It is tried again.",
        )
