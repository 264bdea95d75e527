"""Where the pods of a class are: which cluster, which namespace. Used inside backends/kubernetes only."""

from __future__ import annotations

import asyncio

from workspace_operator.api import meta
from workspace_operator.api.kubernetes import KubernetesBackend
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.protocol import ResolveSecret, WorkspaceRef
from workspace_operator.errors import BadRequest
from workspace_operator.kube.client import KubeClient, Object
from workspace_operator.kube.elsewhere import configuration_from

KEY = "kubeconfig"


class Place:
    """The cluster and the namespaces of one class."""

    def __init__(self, spec: KubernetesBackend, own: KubeClient, resolve_secret: ResolveSecret) -> None:
        self.own_cluster = spec.kubeconfig_secret_ref is None
        self.own_namespace = spec.namespace is None
        self._spec, self._own, self._resolve_secret = spec, own, resolve_secret
        self._other: KubeClient | None = None
        self._secret = b""
        self._opening = asyncio.Lock()

    @property
    def at_home(self) -> bool:
        """Pods stand beside their Workspace: it can own them, and its ServiceAccount is there."""
        return self.own_cluster and self.own_namespace

    @property
    def everywhere(self) -> str | None:
        """The namespace to list in; None lists all."""
        return self._spec.namespace

    def namespace(self, ref: WorkspaceRef) -> str:
        """Where a workspace's pods are."""
        return self._spec.namespace or ref.namespace

    async def client(self, *, fresh: bool = False) -> KubeClient:
        """The client of the pods' cluster; ``fresh`` reads its Secret again. Raises BadRequest for a bad one."""
        if self.own_cluster:
            return self._own
        async with self._opening:
            if self._other is None or fresh:
                await self._open()
            assert self._other is not None
            return self._other

    async def close(self) -> None:
        """The operator's own client is not ours to close."""
        if self._other is not None:
            await self._other.close()
            self._other = None

    def owners(self, ref: WorkspaceRef) -> list[Object]:
        """The Workspace as owner, where the garbage collector can see it; elsewhere it would take it for deleted."""
        if not self.at_home:
            return []
        owner = {"apiVersion": meta.API_VERSION, "kind": "Workspace", "name": ref.name, "uid": ref.uid}
        return [{**owner, "controller": False, "blockOwnerDeletion": False}]

    async def _open(self) -> None:
        ref = self._spec.kubeconfig_secret_ref
        assert ref is not None
        content = (await self._resolve_secret(ref.namespace, ref.name)).get(KEY)
        if content is None:
            raise BadRequest(
                Reason.MISCONFIGURED,
                f"kubernetes.kubeconfigSecretRef: Secret {ref.name!r} in namespace {ref.namespace!r} has no key {KEY}.",
            )
        if self._other is not None and content == self._secret:
            return
        configuration = await configuration_from(content, "kubernetes.kubeconfigSecretRef")
        await self.close()
        self._other, self._secret = KubeClient(configuration), content
