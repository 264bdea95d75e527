"""Objects that exist for one workspace: labelled as ours, owned by it, and adopted by its UID only."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from workspace_operator.api import meta
from workspace_operator.api.reasons import Reason
from workspace_operator.api.workspace import ObjectMeta
from workspace_operator.errors import BackendError
from workspace_operator.kube.client import Conflict, KubeClient, NotFound, Object

ROLES = "rbac.authorization.k8s.io/v1/roles"
BINDINGS = "rbac.authorization.k8s.io/v1/rolebindings"
_BIND_RETRIES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def account_name(workspace: str) -> str:
    """Name of the ServiceAccount, Role, RoleBinding, Lease and token Secret of a workspace."""
    return f"workspace-{workspace}"


def owned(workspace: ObjectMeta, api_version: str, kind: str, name: str, content: Object) -> Object:
    """An object of a workspace; it goes with it."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": workspace.namespace,
        "labels": {meta.MANAGED_BY_LABEL: meta.MANAGED_BY, meta.LABEL_NAME: workspace.name},
        "ownerReferences": [
            {
                "apiVersion": meta.API_VERSION,
                "kind": "Workspace",
                "name": workspace.name,
                "uid": workspace.uid,
                "controller": True,
            }
        ],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def role(workspace: ObjectMeta, name: str, rules: list[Object]) -> Object:
    """A Role of a workspace."""
    return owned(workspace, "rbac.authorization.k8s.io/v1", "Role", name, {"rules": rules})


def binding(workspace: ObjectMeta, name: str) -> Object:
    """What gives the Role of the same name to the workspace's ServiceAccount."""
    subject = {"kind": "ServiceAccount", "name": account_name(workspace.name), "namespace": workspace.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    content = {"roleRef": reference, "subjects": [subject]}
    return owned(workspace, "rbac.authorization.k8s.io/v1", "RoleBinding", name, content)


async def ensure(client: KubeClient, workspace: ObjectMeta, url: str, body: Object) -> Object:
    """Create an object of a workspace, or adopt the one that is there; rules of an earlier release are replaced.

    Raises KubeError, or BackendError when a foreign object of the same name is in the way.
    """
    there = f"{url}/{quote(body['metadata']['name'], safe='')}"
    try:
        return await client.create(url, body)
    except Conflict:
        existing = await client.get(there)
    await adopt(client, workspace, there, existing)
    if existing.get("rules") == body.get("rules"):
        return existing
    return await client.update(there, {**existing, "rules": body["rules"]})


async def adopt(client: KubeClient, workspace: ObjectMeta, url: str, existing: Object) -> None:
    """Go on with an object that is there if it is this workspace's, by UID and never by name alone (I-11).

    Raises BackendError when it is not; one of a deleted workspace is removed first.
    """
    if belongs(existing, workspace):
        return
    kind, metadata = existing.get("kind", "Object"), existing["metadata"]
    if _belonged_to_a_workspace(existing):
        await client.delete(url, uid=metadata["uid"])
        message = f"{kind} {metadata['name']!r} of a deleted workspace is being removed."
    else:
        message = f"{kind} {metadata['name']!r} exists and does not belong to this workspace; delete or rename it."
    raise BackendError(Reason.IDENTITY_FAILED, message)


async def bind(client: KubeClient, workspace: ObjectMeta, url: str, body: Object) -> None:
    """Ensure a RoleBinding. The API server checks that we hold what its Role grants, and may not have seen it: 404."""
    for delay in _BIND_RETRIES:
        try:
            await ensure(client, workspace, url, body)
        except NotFound:
            await asyncio.sleep(delay)
        else:
            return
    await ensure(client, workspace, url, body)


def belongs(existing: Object, workspace: ObjectMeta) -> bool:
    """Whether it is this workspace's, and not one's of the same name."""
    owners = existing["metadata"].get("ownerReferences", ())
    return any(owner.get("uid") == workspace.uid for owner in owners)


def _belonged_to_a_workspace(existing: Object) -> bool:
    labels = existing["metadata"].get("labels") or {}
    owners = existing["metadata"].get("ownerReferences", ())
    ours = labels.get(meta.MANAGED_BY_LABEL) == meta.MANAGED_BY
    return ours and any(owner.get("kind") == "Workspace" for owner in owners)
