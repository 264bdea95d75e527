"""What stands beside a pod: its Secret and NetworkPolicy, the claim of its data, its Service. Used inside
backends/kubernetes only.

What is a pod's is owned by the pod, in its create call. The Service is the Workspace's, and exists where that can own
it. The claim has no owner, because the garbage collector must never delete data.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

from workspace_operator.api import meta
from workspace_operator.api.kubernetes import KubernetesBackend, NetworkPolicy
from workspace_operator.backends import labels
from workspace_operator.backends.kubernetes import shape
from workspace_operator.backends.protocol import ProvisionRequest, WorkspaceRef
from workspace_operator.kube.client import Conflict, KubeClient, NotFound, Object, path

CLAIMS = "v1/persistentvolumeclaims"
SECRETS = "v1/secrets"
SERVICES = "v1/services"
POLICIES = "networking.k8s.io/v1/networkpolicies"
SLICES = "discovery.k8s.io/v1/endpointslices"
#: RFC 1918, RFC 6598 (shared addresses), RFC 3927 (link-local: cloud metadata), RFC 4193 and RFC 4291 for IPv6.
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
_PRIVATE_6 = ("fc00::/7", "fe80::/10")
_DNS = 53


async def put_claim(client: KubeClient, request: ProvisionRequest, namespace: str, block: KubernetesBackend) -> None:
    """The claim of the data volume: made, or found to be this workspace's and left as it is, whatever its size."""
    ref, wish = request.ref, request.template.storage
    # In binary units, of which the API server shows the largest that fits: 50Gi.
    size = f"{-(-wish // 1024)}Ki" if wish is not None else str(block.storage_size)
    spec: Object = {"accessModes": [block.access_mode], "resources": {"requests": {"storage": size}}}
    if block.storage_class_name is not None:
        spec["storageClassName"] = block.storage_class_name
    metadata = {"name": shape.claim_name(ref.uid), "labels": labels.of(ref, labels.ROLE_DATA)}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
    await _put(client, CLAIMS, namespace, body, ref, "PersistentVolumeClaim")


async def put_service(
    client: KubeClient, ref: WorkspaceRef, namespace: str, owners: list[Object], port: int | None
) -> None:
    """A name for the workspace in its namespace, whichever incarnation runs."""
    if not owners or port is None:
        return
    owned = labels.of(ref, shape.ROLE_SERVICE)
    spec = {
        "clusterIP": "None",
        "selector": {meta.LABEL_UID: ref.uid, meta.LABEL_ROLE: labels.ROLE_INSTANCE},
        "ports": [{"name": "agent", "port": port, "protocol": "TCP"}],
    }
    metadata = {"name": ref.name, "labels": owned, "ownerReferences": owners}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    there = await _put(client, SERVICES, namespace, body, ref, "Service")
    ports = [each.get("port") for each in (there.get("spec") or {}).get("ports") or ()]
    if ports != [port]:
        await client.merge(path(SERVICES, namespace, ref.name), {"spec": {"ports": spec["ports"]}})


async def put_secret(client: KubeClient, request: ProvisionRequest, pod: Object) -> None:
    """Environment and identity of a pod that has not started; content of an earlier attempt is replaced."""
    body = _of_pod(pod, "v1", "Secret")
    content = shape.secret_data(request.environment, request.files)
    body |= {"type": f"{meta.GROUP}/instance", "data": _encoded(content)}
    there = await _put_for(client, SECRETS, pod, body, request)
    if there.get("data") != body["data"]:
        version = there["metadata"]["resourceVersion"]
        await client.update(
            path(SECRETS, pod["metadata"]["namespace"], body["metadata"]["name"]),
            {**body, "metadata": {**body["metadata"], "resourceVersion": version}},
        )


async def deliver(client: KubeClient, pod: Object, files: Mapping[str, bytes]) -> None:
    """New content of identity files; the kubelet replaces all of them at once in the pod."""
    metadata = pod["metadata"]
    patch = {"data": _encoded(shape.secret_data({}, files))}
    await client.merge(path(SECRETS, metadata["namespace"], metadata["name"]), patch)


async def put_policy(client: KubeClient, request: ProvisionRequest, pod: Object, block: KubernetesBackend) -> None:
    """The pod's NetworkPolicy, before the pod may run."""
    if not block.network_policy.enabled:
        return
    body = _of_pod(pod, "networking.k8s.io/v1", "NetworkPolicy")
    body["spec"] = policy(request, block.network_policy, await _api_servers(client))
    await _put_for(client, POLICIES, pod, body, request)


def policy(request: ProvisionRequest, wish: NetworkPolicy, api_servers: list[Object]) -> Object:
    """In: the agent port, from what the class names. Out: DNS, the API server, all that is public, and the openings."""
    sources: list[Object] = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
        for name in wish.ingress_namespaces
    ]
    sources += _blocks(wish.ingress_cidrs)
    port = request.template.port
    ingress = [{"from": sources, "ports": [{"port": port, "protocol": "TCP"}]}] if sources and port else []
    public = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(_PRIVATE)}},
        {"ipBlock": {"cidr": "::/0", "except": list(_PRIVATE_6)}},
    ]
    egress: list[Object] = [
        {"ports": [{"port": _DNS, "protocol": protocol} for protocol in ("UDP", "TCP")]},
        {"to": public + _blocks(wish.egress_cidrs)},
        *api_servers,
    ]
    return {
        "podSelector": {
            "matchLabels": {
                meta.LABEL_UID: request.ref.uid,
                meta.LABEL_INCARNATION: str(request.incarnation),
            }
        },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    }


async def _api_servers(client: KubeClient) -> list[Object]:
    """Openings to the API server of the pods' own cluster. Policies see what is behind its Service's address."""
    openings: list[Object] = []
    async for piece in client.list(path(SLICES, "default"), labels="kubernetes.io/service-name=kubernetes"):
        addresses = [address for each in piece.get("endpoints") or () for address in each.get("addresses") or ()]
        wide = "/128" if piece.get("addressType") == "IPv6" else "/32"
        ports = [{"port": each["port"], "protocol": "TCP"} for each in piece.get("ports") or ()]
        if addresses:
            openings.append({"to": _blocks(address + wide for address in addresses), "ports": ports})
    return openings


def _blocks(cidrs: Iterable[str]) -> list[Object]:
    return [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]


def _of_pod(pod: Object, api_version: str, kind: str) -> Object:
    """An object of the pod's name that goes with it."""
    metadata = pod["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    owned = {**metadata["labels"], meta.LABEL_ROLE: kind.lower()}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": metadata["name"], "labels": owned, "ownerReferences": [owner]},
    }


async def _put(client: KubeClient, resource: str, namespace: str, body: Object, ref: WorkspaceRef, kind: str) -> Object:
    """Create, or adopt what is there if it is this workspace's."""
    url = path(resource, namespace)
    try:
        return await client.create(url, body)
    except Conflict:
        there = path(resource, namespace, body["metadata"]["name"])
        try:
            found = await client.get(there)
        except NotFound:
            return await client.create(url, body)  # it went that very moment
    shape.refuse_foreign(found, kind, ref)
    return found


async def _put_for(client: KubeClient, resource: str, pod: Object, body: Object, request: ProvisionRequest) -> Object:
    """The same for what goes with a pod: that of an earlier pod of this name is on its way out, and is replaced."""
    namespace = pod["metadata"]["namespace"]
    found = await _put(client, resource, namespace, body, request.ref, body["kind"])
    owners = [owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()]
    if pod["metadata"]["uid"] in owners:
        return found
    await client.delete(path(resource, namespace, body["metadata"]["name"]), uid=found["metadata"]["uid"])
    return await client.create(path(resource, namespace), body)


def _encoded(content: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in content.items()}
