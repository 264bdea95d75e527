"""Whether the cluster is what the class says, and allows what a driver does. Used inside backends/kubernetes only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from workspace_operator.api.kubernetes import KubernetesBackend
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.kubernetes import faults
from workspace_operator.backends.kubernetes.place import Place
from workspace_operator.errors import BadRequest
from workspace_operator.kube.client import KubeClient, NotFound, path

_REVIEWS = path("authorization.k8s.io/v1/selfsubjectaccessreviews")
_NAMED = (
    ("storage_class_name", "storageClassName", "storage.k8s.io/v1/storageclasses", "StorageClass"),
    ("runtime_class_name", "runtimeClassName", "node.k8s.io/v1/runtimeclasses", "RuntimeClass"),
    ("priority_class_name", "priorityClassName", "scheduling.k8s.io/v1/priorityclasses", "PriorityClass"),
)

Right = tuple[str, str, str, str | None]  # verb, group, resource; namespace, or None: the pods'
_CLUSTER = ""  # instead of a namespace: a right on what is in none


async def ask(client: KubeClient, spec: KubernetesBackend, place: Place) -> str:
    """The server's version. Raises BadRequest naming the field or the right to fix, or BackendUnreachable."""
    with faults.told("Asking the cluster about itself"):
        version = str((await client.get("/version")).get("gitVersion", "of unknown version"))
    if spec.namespace is not None:
        await _exists(client, path("v1/namespaces", None, spec.namespace), "namespace", f"Namespace {spec.namespace}")
    for attribute, field, resource, kind in _NAMED:
        name = getattr(spec, attribute)
        if name is not None:
            await _exists(client, path(resource, None, name), field, f"{kind} {name}")
    wanted = list(_rights(spec, place))
    allowed = await asyncio.gather(*(_may(client, right, spec.namespace) for right in wanted))
    missing = [right for right, may in zip(wanted, allowed, strict=True) if not may]
    if missing:
        who = "operator" if place.own_cluster else "user of kubernetes.kubeconfigSecretRef"
        text = f"The {who} may not {_told(missing, spec.namespace)}; {faults.RIGHTS} grant what is needed."
        raise BadRequest(Reason.MISCONFIGURED, text)
    return version


def _rights(spec: KubernetesBackend, place: Place) -> Iterator[Right]:
    """What the operator itself will use. Logs are for a command, and what a class names was just looked for."""
    for verb in ("create", "delete", "get", "list", "patch", "watch"):
        yield verb, "", "pods", None
    for verb in ("create", "delete", "get"):
        yield verb, "", "persistentvolumeclaims", None
    for verb in ("create", "delete", "get", "patch", "update"):
        yield verb, "", "secrets", None
    yield "get", "", "nodes", _CLUSTER
    if place.at_home:
        for verb in ("create", "get", "patch"):
            yield verb, "", "services", None
    if spec.network_policy.enabled:
        for verb in ("create", "delete", "get"):
            yield verb, "networking.k8s.io", "networkpolicies", None
        yield "list", "discovery.k8s.io", "endpointslices", "default"


def _told(missing: list[Right], pods: str | None) -> str:
    where = f" in namespace {pods}" if pods else " in all namespaces"
    theirs = ", ".join(f"{verb} {resource}" for verb, _, resource, namespace in missing if namespace is None)
    others = [
        f"{verb} {resource}{f' in namespace {namespace}' if namespace else ''}"
        for verb, _, resource, namespace in missing
        if namespace is not None
    ]
    return ", ".join([theirs + where, *others] if theirs else others)


async def _may(client: KubeClient, right: Right, pods: str | None) -> bool:
    verb, group, resource, namespace = right
    where = pods if namespace is None else namespace
    attributes = {"verb": verb, "group": group, "resource": resource, "namespace": where or ""}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    with faults.told("Asking for the operator's rights"):
        answer = await client.create(_REVIEWS, body)
    return bool((answer.get("status") or {}).get("allowed"))


async def _exists(client: KubeClient, url: str, field: str, what: str) -> None:
    with faults.told(f"Looking for {what}"):
        try:
            await client.get(url)
        except NotFound as error:
            text = f"kubernetes.{field}: {what} does not exist in the cluster; create it or correct the class."
            raise BadRequest(Reason.MISCONFIGURED, text) from error
