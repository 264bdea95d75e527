"""The conformance suite on Kubernetes: pods of a real kubelet, in a namespace that admits only the restricted standard.

    pytest tests/conformance --backend=kubernetes

The driver is told that this is another cluster, so that it delivers identity files, and has a kubeconfig with the
operator's own rights (deploy/base/rbac.yaml). Data is read from the directories that the node's volumes are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conformance.rigs import MOUNT_PATH, PORT, Rig, Workload, script

from controlplane.cluster import LocalCluster
from controlplane.images import BUSYBOX_TAG
from workspace_operator.api.base import NamespacedRef
from workspace_operator.api.kubernetes import KubernetesBackend
from workspace_operator.api.quantity import size
from workspace_operator.api.states import PullPolicy
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends import kubernetes
from workspace_operator.backends.kubernetes import shape
from workspace_operator.backends.protocol import Backend, StopRequest, Template, WorkspaceRef

NAMESPACE = "pods-of-conformance"
NOWHERE = "https://127.0.0.1:9"  # nobody listens on the discard port
NOT_USED: Any = None  # the client of the operator's own cluster


@cache
def restricted_namespace(cluster: LocalCluster, name: str) -> str:
    """A namespace that enforces the strictest Pod Security Standard."""
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return name


class KubernetesRig(Rig):
    """Pods on the node of the session fixture ``node``."""

    name = "kubernetes"

    def __init__(self, request: pytest.FixtureRequest, directory: Path) -> None:
        super().__init__(request, directory)
        request.getfixturevalue("node")
        self._cluster: LocalCluster = request.getfixturevalue("cluster")
        self._volumes: Path = request.getfixturevalue("nodes").volumes
        self._namespace = restricted_namespace(self._cluster, NAMESPACE)
        kubeconfig: Path = request.getfixturevalue("operator_kubeconfig")
        self._kubeconfig = yaml.safe_load(kubeconfig.read_text())
        self._server = self._cluster.server
        self._directories: dict[WorkspaceRef, Path] = {}

    def create(self, class_name: str, cluster: str) -> Backend:
        document = json.loads(json.dumps(self._kubeconfig))
        document["clusters"][0]["cluster"]["server"] = self._server

        async def resolve(namespace: str, name: str) -> Mapping[str, bytes]:
            return {"kubeconfig": yaml.safe_dump(document).encode()}

        block = KubernetesBackend(
            namespace=self._namespace,
            kubeconfig_secret_ref=NamespacedRef(namespace="operator", name="cluster"),
            image_pull_policy=PullPolicy.NEVER,
            storage_class_name="shared",  # is there a second sooner than one that waits for the pod's node
            storage_size="1Mi",
        )
        # A grace that a kubelet has begun to grant is not cut short, and a test may ask for a minute.
        spec = WorkspaceClassSpec(kubernetes=block, stop_grace_period="6s")
        return kubernetes.create(class_name, spec, cluster, resolve, NOT_USED)

    def template(self, workload: Workload = Workload.COUNTER, *, port: bool = False) -> Template:
        return Template(
            image=BUSYBOX_TAG,
            command=("/bin/sh", "-c", script(workload)),
            port=PORT if port else None,
            mount_path=MOUNT_PATH,
        )

    async def read_data(self, ref: WorkspaceRef, name: str) -> str | None:
        if ref not in self._directories:
            claim = await self._claim(ref)
            if claim is None:
                return None
            self._directories[ref] = self._volumes / f"pvc-{claim['metadata']['uid']}"
        file = self._directories[ref] / name
        return file.read_text() if file.exists() else None

    async def data_labels(self, ref: WorkspaceRef) -> Mapping[str, str] | None:
        claim = await self._claim(ref)
        return None if claim is None else dict(claim["metadata"]["labels"])

    async def data_size(self, ref: WorkspaceRef) -> int:
        claim = await self._claim(ref)
        assert claim is not None
        return size(claim["status"]["capacity"]["storage"])

    def break_connection(self) -> None:
        self._server = NOWHERE

    def mend_connection(self) -> None:
        self._server = self._cluster.server

    async def clean(self) -> None:
        """The pods go by themselves within a second or so, and the claims with the cluster: no test sees another's."""
        self.mend_connection()
        for ref in self._refs:
            backend = await self.make(ref.class_name, ref.cluster, check=False)
            await backend.stop(StopRequest(ref, timedelta(0), release=True))
        for backend in self._made:
            await backend.close()

    async def _claim(self, ref: WorkspaceRef) -> dict[str, Any] | None:
        text = await asyncio.to_thread(
            self._cluster.kubectl,
            *("-n", self._namespace, "get", "pvc", shape.claim_name(ref.uid), "--ignore-not-found", "-o=json"),
        )
        return dict(json.loads(text)) if text.strip() else None


__all__ = ["KubernetesRig", "restricted_namespace"]
