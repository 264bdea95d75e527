"""The verbs of backends/protocol.py as pods. Only backends/door.py may import it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from workspace_operator.api.quantity import duration
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends.kubernetes import beside, checks, events, faults, readings, shape
from workspace_operator.backends.kubernetes.nodes import Nodes
from workspace_operator.backends.kubernetes.place import Place
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
from workspace_operator.kube.client import Conflict, KubeClient, KubeError, NotFound, Object, path

PODS = "v1/pods"
_ALWAYS = {Capability.LOGS, Capability.VOLUMES, Capability.VOLUME_SIZE, Capability.EVENTS, Capability.LIMITS}


def create(
    class_name: str, spec: WorkspaceClassSpec, cluster: str, resolve_secret: ResolveSecret, own: KubeClient
) -> Backend:
    """The driver of one WorkspaceClass; ``own`` is the client of the operator's cluster. Makes no call."""
    if spec.kubernetes is None:
        raise BadRequest(Reason.MISCONFIGURED, f"WorkspaceClass {class_name} has no kubernetes block; add one.")
    return KubernetesDriver(class_name, spec, cluster, Place(spec.kubernetes, own, resolve_secret))


class KubernetesDriver:
    """Pods of one class of one operator's cluster."""

    def __init__(self, class_name: str, spec: WorkspaceClassSpec, cluster: str, place: Place) -> None:
        assert spec.kubernetes is not None
        self._class_name, self._cluster = class_name, cluster
        self._spec, self._block, self._place = spec, spec.kubernetes, place
        # A kubelet does not cut a grace period short once it grants it, so none is asked for above the class's own.
        self._grace = duration(spec.stop_grace_period)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Where the pods have their Workspace's ServiceAccount the kubelet gets their token, else it is delivered."""
        return frozenset(_ALWAYS | {Capability.TOKENS if self._place.at_home else Capability.DELIVER})

    async def check(self) -> str:
        """Cluster, namespace, named classes and the operator's rights there."""
        client = await self._place.client(fresh=True)
        version = await checks.ask(client, self._block, self._place)
        where = f"namespace {self._block.namespace}" if self._block.namespace else "each workspace's namespace"
        return f"Kubernetes {version} at {client.server}, pods in {where}"

    async def list_owned(self) -> tuple[Instance, ...]:
        """One listing for the whole class; in pages, all of them or an error."""
        wanted = shape.selector(cluster=self._cluster, class_name=self._class_name)
        return await self._read(await self._pods(wanted, self._place.everywhere))

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        """The pods of one workspace, oldest incarnation first."""
        return await self._read(await self._pods_of(ref))

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        """Find the pod of the incarnation or create it, and take it from behind its gate."""
        pods = await self._pods_of(request.ref)
        for pod in pods:
            if readings.incarnation_of(pod) != request.incarnation and readings.read(pod).reading in LIVE:
                raise BackendError(
                    Reason.PROVISION_FAILED,
                    f"Incarnation {readings.incarnation_of(pod)} of this workspace still runs;"
                    f" it is released before incarnation {request.incarnation} may start.",
                )
        own = next((pod for pod in pods if readings.incarnation_of(pod) == request.incarnation), None)
        if own is None:
            own = await self._create(request)
        if readings.read(own).reading is Reading.HALTED:
            own = await self._start(request, own)
        (instance,) = await self._read([own])
        return instance

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        """Have each pod that is meant deleted. The kubelet ends it within its grace, and kills it then."""
        for pod in await self._pods_of(request.ref):
            if request.only_before is not None and readings.incarnation_of(pod) >= request.only_before:
                continue
            if request.release or readings.read(pod).reading in LIVE:
                await self._end(pod, shape.seconds(min(request.grace, self._grace)))
        return await self.observe(request.ref)

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        """Release older incarnations, then provision."""
        return await replace(self, request, grace)

    async def deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        """Change the pod's Secret, and then the pod, which makes the kubelet look at the Secret at once."""
        for pod in await self._pods_of(ref):
            if readings.incarnation_of(pod) != incarnation or readings.read(pod).reading not in LIVE:
                continue
            client = await self._place.client()
            note = {"annotations": {shape.DELIVERED: datetime.now(UTC).isoformat()}, "uid": pod["metadata"]["uid"]}
            with faults.told("Delivering identity files", Reason.IDENTITY_FAILED):
                await beside.deliver(client, pod, files)
                await client.merge(self._url(ref, pod["metadata"]["name"]), {"metadata": note})
            return
        raise BackendError(
            Reason.IDENTITY_FAILED,
            "The identity files cannot be delivered: the pod does not run. Each start writes them.",
        )

    async def delete_data(self, ref: WorkspaceRef) -> bool:
        """Remove the claim, if it is this workspace's; never under a pod, as a claim's deletion cannot be undone."""
        if await self._pods_of(ref):
            return False
        client, url = await self._place.client(), self._url(ref, shape.claim_name(ref.uid), beside.CLAIMS)
        with faults.told("Removing a data volume", Reason.STOP_FAILED):
            try:
                claim = await client.get(url)
                if not shape.is_of(claim, ref):
                    return True  # a stranger's: this workspace has none
                if not claim["metadata"].get("deletionTimestamp"):
                    await client.delete(url, uid=claim["metadata"]["uid"])
                await client.get(url)
            except NotFound:
                return True
            except Conflict:
                return False  # another claim by now: the next look decides
        return False

    async def logs(self, ref: WorkspaceRef, tail: int) -> str:
        """Output of the newest incarnation, both streams; it goes with the pod."""
        pods = await self._pods_of(ref)
        if not pods:
            return ""
        url = path(PODS, self._place.namespace(ref), pods[-1]["metadata"]["name"], "log")
        query = urlencode({"container": shape.CONTAINER, "tailLines": tail})
        client = await self._place.client()
        with faults.told("Reading logs"):
            try:
                return await client.text(f"{url}?{query}")
            except KubeError as error:
                if error.status in (400, 404):  # not started yet, or gone
                    return ""
                raise

    async def watch(self, wake: Wake) -> None:
        """Follow the class's pods."""
        wanted = shape.selector(cluster=self._cluster, class_name=self._class_name)
        client = (await self._place.client()).apart()
        try:
            await events.follow(client, path(PODS, self._place.everywhere), wanted, wake)
        finally:
            await client.close()

    async def close(self) -> None:
        """Pods stay as they are."""
        await self._place.close()

    # -- parts ---------------------------------------------------------------------------------------------------------

    async def _create(self, request: ProvisionRequest) -> Object:
        """Claim, Service and the pod behind its gate."""
        client, ref, namespace = await self._place.client(), request.ref, self._place.namespace(request.ref)
        with faults.told("Creating the data volume", Reason.PROVISION_FAILED):
            if request.template.mount_path is not None:
                await beside.put_claim(client, request, namespace, self._block)
        with faults.told("Creating the Service", Reason.PROVISION_FAILED):
            await beside.put_service(client, ref, namespace, self._place.owners(ref), request.template.port)
        with faults.told("Creating the pod", Reason.PROVISION_FAILED):
            try:
                return await client.create(path(PODS, namespace), shape.pod(request, self._spec, self._place))
            except Conflict:
                pass  # an earlier call of ours whose answer was lost, or a stranger's
            found = await client.get(self._url(ref, shape.pod_name(ref.uid, request.incarnation)))
        shape.refuse_foreign(found, "pod", ref)
        return found

    async def _start(self, request: ProvisionRequest, pod: Object) -> Object:
        """Put beside the pod what it needs, then take its gate off."""
        client, uid = await self._place.client(), pod["metadata"]["uid"]
        with faults.told("Preparing the pod", Reason.PROVISION_FAILED):
            await asyncio.gather(
                beside.put_secret(client, request, pod), beside.put_policy(client, request, pod, self._block)
            )
        with faults.told("Starting the pod", Reason.PROVISION_FAILED):
            try:
                patch = {"metadata": {"uid": uid}, "spec": {"schedulingGates": None}}
                return await client.merge(self._url(request.ref, pod["metadata"]["name"]), patch)
            except (NotFound, Conflict) as error:
                raise BackendError(
                    Reason.PROVISION_FAILED,
                    "The pod vanished while it was started; somebody removed it. It is tried again.",
                ) from error

    async def _end(self, pod: Object, grace: int) -> None:
        """Ask for the pod's deletion; or for a shorter grace, if it is being deleted already."""
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp") and int(metadata.get("deletionGracePeriodSeconds") or 0) <= grace:
            return
        client = await self._place.client()
        with faults.told("Deleting the pod", Reason.STOP_FAILED):
            try:
                url = path(PODS, metadata["namespace"], metadata["name"])
                await client.delete(url, uid=metadata["uid"], grace=grace)
            except Conflict:
                return  # another pod by now: the next look decides

    async def _pods_of(self, ref: WorkspaceRef) -> list[Object]:
        return await self._pods(shape.selector(cluster=ref.cluster, uid=ref.uid), self._place.namespace(ref))

    async def _pods(self, selector: str, namespace: str | None) -> list[Object]:
        client = await self._place.client()
        with faults.told("Listing pods"):
            found = [pod async for pod in client.list(path(PODS, namespace), labels=selector)]
        return sorted(found, key=readings.incarnation_of)

    async def _read(self, pods: list[Object]) -> tuple[Instance, ...]:
        nodes = Nodes(await self._place.client())
        return tuple([readings.instance_of(pod, await nodes.problem_of(pod)) for pod in pods])

    def _url(self, ref: WorkspaceRef, name: str, resource: str = PODS) -> str:
        return path(resource, self._place.namespace(ref), name)
