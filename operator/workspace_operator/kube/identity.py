"""The identity of a workspace: a ServiceAccount, a Lease it may renew, and a token that ends with its Secret.

The token is bound to a Secret object: deleting that Secret revokes it (the API server may honour a token it has just
seen for at most 10 s more). The Secret holds no data, so reading Secrets gives nobody the token.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from workspace_operator.api import meta
from workspace_operator.api.meta import IDENTITY_DIRECTORY
from workspace_operator.api.reasons import Reason
from workspace_operator.api.workspace import Workspace
from workspace_operator.errors import BackendError
from workspace_operator.kube.client import Conflict, KubeClient, KubeError, NotFound, Object, path

LEASE_SECONDS = 30
_BIND_RETRIES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SERVICE_ACCOUNTS = "v1/serviceaccounts"
_SECRETS = "v1/secrets"
_LEASES = "coordination.k8s.io/v1/leases"
_ROLES = "rbac.authorization.k8s.io/v1/roles"
_BINDINGS = "rbac.authorization.k8s.io/v1/rolebindings"


_NEVER_RENEWED = {
    "metadata": {"annotations": {meta.AGENT_STATE_ANNOTATION: None, meta.AGENT_MESSAGE_ANNOTATION: None}},
    "spec": {"renewTime": None, "holderIdentity": None},
}


@dataclass(frozen=True)
class Credentials:
    """An issued token with what the workload needs to use it."""

    secret_name: str
    expires: datetime
    files: dict[str, bytes]

    def __repr__(self) -> str:
        return f"Credentials({self.secret_name!r}, expires={self.expires})"


def account_name(workspace: str) -> str:
    """Name of the ServiceAccount, Role, RoleBinding, Lease and token Secret of a workspace."""
    return f"workspace-{workspace}"


class Identities:
    """Issues and revokes the identities of workspaces."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._ca = _read(client.ca_file)

    async def issue(
        self, workspace: Workspace, lifetime: timedelta, server: str | None, *, fresh_start: bool
    ) -> Credentials:
        """Make sure the identity exists and get a token; everything is in place before any compute uses it (I-50).

        ``fresh_start`` wipes the Lease's last renewal, so that a renewal seen later can only be the new instance's.
        Raises KubeError, or BackendError when a foreign object of the same name is in the way.
        """
        namespace, name = workspace.metadata.namespace, account_name(workspace.metadata.name)
        *independent, (bindings, binding) = _objects(workspace)
        objects = await asyncio.gather(*(self._ensure(workspace, url, body) for url, body in independent))
        await self._bind(workspace, bindings, binding)
        secret, lease = objects[0], objects[-1]
        if fresh_start and (lease.get("spec") or {}).get("renewTime"):
            await self._client.merge(path(_LEASES, namespace, name), _NEVER_RENEWED)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": int(lifetime.total_seconds()),
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "name": name,
                    "uid": secret["metadata"]["uid"],
                },
            },
        }
        answer = await self._client.create(path(_SERVICE_ACCOUNTS, namespace, name, "token"), request)
        status = answer["status"]
        files = _files(status["token"], self._ca, namespace, server or self._client.server, name)
        return Credentials(name, datetime.fromisoformat(status["expirationTimestamp"]), files)

    async def revoke(self, workspace: Workspace) -> None:
        """End the token by deleting its Secret; nothing happens when there is none of this workspace."""
        url = path(_SECRETS, workspace.metadata.namespace, account_name(workspace.metadata.name))
        try:
            secret = await self._client.get(url)
        except NotFound:
            return
        if _belongs(secret, workspace):
            await self._client.delete(url, uid=secret["metadata"]["uid"])

    async def _bind(self, workspace: Workspace, url: str, body: Object) -> None:
        """The API server checks that we hold what the Role grants, and may not have seen the Role yet: 404."""
        for delay in _BIND_RETRIES:
            try:
                await self._ensure(workspace, url, body)
            except NotFound:
                await asyncio.sleep(delay)
            else:
                return
        await self._ensure(workspace, url, body)

    async def _ensure(self, workspace: Workspace, url: str, body: Object) -> Object:
        try:
            return await self._client.create(url, body)
        except Conflict:
            existing = await self._client.get(f"{url}/{body['metadata']['name']}")
        if _belongs(existing, workspace):
            return existing
        kind, name = body["kind"], body["metadata"]["name"]
        if _belonged_to_a_workspace(existing):
            await self._client.delete(f"{url}/{name}", uid=existing["metadata"]["uid"])
            raise BackendError(Reason.IDENTITY_FAILED, f"{kind} {name!r} of a deleted workspace is being removed.")
        raise BackendError(
            Reason.IDENTITY_FAILED,
            f"{kind} {name!r} exists and does not belong to this workspace; delete or rename it.",
        )


def _objects(workspace: Workspace) -> list[tuple[str, Object]]:
    """What to create, the Secret first, the RoleBinding (it needs the Role) last; all owned by the workspace."""
    namespace, name = workspace.metadata.namespace, account_name(workspace.metadata.name)
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {meta.MANAGED_BY_LABEL: meta.MANAGED_BY, meta.LABEL_NAME: workspace.metadata.name},
        "ownerReferences": [
            {
                "apiVersion": meta.API_VERSION,
                "kind": "Workspace",
                "name": workspace.metadata.name,
                "uid": workspace.metadata.uid,
                "controller": True,
            }
        ],
    }
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [name],
        "verbs": ["get", "patch", "update"],
    }
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    bodies: list[tuple[str, str, Object]] = [
        (_SECRETS, "v1 Secret", {"type": f"{meta.GROUP}/token-anchor"}),
        (_SERVICE_ACCOUNTS, "v1 ServiceAccount", {"automountServiceAccountToken": False}),
        (_ROLES, "rbac.authorization.k8s.io/v1 Role", {"rules": [rule]}),
        (_LEASES, "coordination.k8s.io/v1 Lease", {"spec": {"leaseDurationSeconds": LEASE_SECONDS}}),
        (_BINDINGS, "rbac.authorization.k8s.io/v1 RoleBinding", {"roleRef": role, "subjects": [subject]}),
    ]
    result = []
    for resource, version_kind, content in bodies:
        version, kind = version_kind.split()
        body = {"apiVersion": version, "kind": kind, "metadata": metadata, **content}
        result.append((path(resource, namespace), body))
    return result


def _belongs(existing: Object, workspace: Workspace) -> bool:
    """Adoption is by UID, never by name alone (I-11)."""
    owners = existing["metadata"].get("ownerReferences", ())
    return any(owner.get("uid") == workspace.metadata.uid for owner in owners)


def _belonged_to_a_workspace(existing: Object) -> bool:
    labels = existing["metadata"].get("labels") or {}
    owners = existing["metadata"].get("ownerReferences", ())
    ours = labels.get(meta.MANAGED_BY_LABEL) == meta.MANAGED_BY
    return ours and any(owner.get("kind") == "Workspace" for owner in owners)


def _files(token: str, ca: bytes, namespace: str, server: str, lease: str) -> dict[str, bytes]:
    """The identity directory (deploy/agent/CONTRACT.md)."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"tokenFile": f"{IDENTITY_DIRECTORY}/token"}}],
        "contexts": [{"name": "w", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "current-context": "w",
    }
    return {
        "token": token.encode(),
        "ca.crt": ca,
        "namespace": namespace.encode(),
        "server": server.encode(),
        "lease": lease.encode(),
        "kubeconfig": json.dumps(kubeconfig, indent=2).encode(),
    }


def _read(file: str | None) -> bytes:
    if not file:
        return b""
    with open(file, "rb") as stream:  # noqa: PTH123 - a path given by the kubernetes library
        return stream.read()


__all__ = ["LEASE_SECONDS", "Credentials", "Identities", "KubeError", "account_name"]
