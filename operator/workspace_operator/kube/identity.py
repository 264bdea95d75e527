"""The identity of a workspace: a ServiceAccount, a Lease it may renew, and a token that ends with its Secret.

The token is bound to a Secret object: deleting that Secret revokes it (the API server may honour a token it has just
seen for at most 10 s more). The Secret holds no data, so reading Secrets gives nobody the token.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from workspace_operator.api import meta
from workspace_operator.api.meta import IDENTITY_DIRECTORY
from workspace_operator.api.workspace import ObjectMeta, Workspace
from workspace_operator.kube.admission import Admission
from workspace_operator.kube.client import KubeClient, KubeError, NotFound, Object, path
from workspace_operator.kube.owned import BINDINGS, ROLES, account_name, belongs, bind, binding, ensure, owned, role

LEASE_SECONDS = 30
_SERVICE_ACCOUNTS = "v1/serviceaccounts"
_SECRETS = "v1/secrets"
_LEASES = "coordination.k8s.io/v1/leases"

_REPORT = (meta.AGENT_STATE_ANNOTATION, meta.AGENT_MESSAGE_ANNOTATION, meta.ACTIVE_TASKS_ANNOTATION)
_NEVER_RENEWED = {
    "metadata": {"annotations": dict.fromkeys(_REPORT)},
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


class Identities:
    """Issues and revokes the identities of workspaces."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._ca = _read(client.ca_file)
        self._admission = Admission(client)

    async def issue(
        self, workspace: Workspace, lifetime: timedelta, server: str | None, *, fresh_start: bool
    ) -> Credentials:
        """Make sure the identity exists and get a token; everything is in place before any compute uses it (I-50).

        ``fresh_start`` wipes the Lease's last renewal, so that a renewal seen later can only be the new instance's.
        Raises KubeError, or BackendError when a foreign object of the same name is in the way.
        """
        namespace, name = workspace.metadata.namespace, account_name(workspace.metadata.name)
        secret, _ = await asyncio.gather(
            ensure(self._client, workspace.metadata, *_anchor(workspace.metadata)),
            self._establish(workspace.metadata, fresh_start=fresh_start),
        )
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
        files = {"token": status["token"].encode(), **self._files(workspace.metadata, server)}
        return Credentials(name, datetime.fromisoformat(status["expirationTimestamp"]), files)

    async def prepare(self, workspace: Workspace, server: str | None) -> dict[str, bytes]:
        """The identity for a backend that gets the token by itself: all but that. Raises as ``issue`` does."""
        await self._establish(workspace.metadata, fresh_start=True)
        return self._files(workspace.metadata, server)

    async def revoke(self, workspace: Workspace) -> None:
        """End the token by deleting its Secret; nothing happens when there is none of this workspace."""
        url = path(_SECRETS, workspace.metadata.namespace, account_name(workspace.metadata.name))
        try:
            secret = await self._client.get(url)
        except NotFound:
            return
        if belongs(secret, workspace.metadata):
            await self._client.delete(url, uid=secret["metadata"]["uid"])

    async def _establish(self, owner: ObjectMeta, *, fresh_start: bool) -> None:
        """The account, what it may do, and its Lease."""
        *independent, (bindings, body) = _objects(owner, delegates=await self._admission.installed())
        objects = await asyncio.gather(*(ensure(self._client, owner, url, each) for url, each in independent))
        await bind(self._client, owner, bindings, body)
        lease = objects[-1]
        if fresh_start and (lease.get("spec") or {}).get("renewTime"):
            await self._client.merge(path(_LEASES, owner.namespace, account_name(owner.name)), _NEVER_RENEWED)

    def _files(self, owner: ObjectMeta, server: str | None) -> dict[str, bytes]:
        return _files(self._ca, owner.namespace, server or self._client.server, account_name(owner.name))


def _anchor(workspace: ObjectMeta) -> tuple[str, Object]:
    """The Secret to which the token is bound."""
    content = {"type": f"{meta.GROUP}/token-anchor"}
    return path(_SECRETS, workspace.namespace), owned(workspace, "v1", "Secret", account_name(workspace.name), content)


def _objects(workspace: ObjectMeta, *, delegates: bool) -> list[tuple[str, Object]]:
    """What to create, the RoleBinding (it needs the Role) last; all owned by the workspace."""
    namespace, name = workspace.namespace, account_name(workspace.name)
    account = {"automountServiceAccountToken": False}
    lease = {"spec": {"leaseDurationSeconds": LEASE_SECONDS}}
    return [
        (path(_SERVICE_ACCOUNTS, namespace), owned(workspace, "v1", "ServiceAccount", name, account)),
        (path(ROLES, namespace), role(workspace, name, _rules(workspace.name, delegates))),
        (path(_LEASES, namespace), owned(workspace, "coordination.k8s.io/v1", "Lease", name, lease)),
        (path(BINDINGS, namespace), binding(workspace, name)),
    ]


def _rules(workspace: str, delegates: bool) -> list[Object]:
    """What every workspace may do: renew its Lease, and create Delegations in its own name, where admission sees to
    that. What it may read of them is granted by name (kube/grants.py)."""
    renew = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [account_name(workspace)],
        "verbs": ["get", "patch", "update"],
    }
    if not delegates:
        return [renew]
    return [
        renew,
        {"apiGroups": [meta.GROUP], "resources": [meta.DELEGATIONS], "verbs": ["create"]},
        {
            "apiGroups": [meta.GROUP],
            "resources": [meta.WORKSPACES],
            "resourceNames": [workspace],
            "verbs": ["delegate"],
        },
    ]


def _files(ca: bytes, namespace: str, server: str, lease: str) -> dict[str, bytes]:
    """The identity directory but for the token (deploy/agent/CONTRACT.md)."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"tokenFile": f"{IDENTITY_DIRECTORY}/token"}}],
        "contexts": [{"name": "w", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "current-context": "w",
    }
    return {
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
