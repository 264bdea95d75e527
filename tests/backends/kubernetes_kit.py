"""What the tests of the kubernetes driver share: requests, classes and drivers."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workspace_operator.api.kubernetes import KubernetesBackend
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends import kubernetes
from workspace_operator.backends.kubernetes import KubernetesDriver
from workspace_operator.backends.protocol import ProvisionRequest, Template, WorkspaceRef
from workspace_operator.kube.client import KubeClient

NAMESPACE = "pods-of-backends"
SECRET = "s3cr3t-value"


async def no_secret(namespace: str, name: str) -> Mapping[str, bytes]:
    raise AssertionError(f"nobody should ask for the Secret {namespace}/{name}")


def request_of(**more: Any) -> ProvisionRequest:
    uid = str(uuid.uuid4())
    ref = WorkspaceRef("cluster-1", uid, "team-a", f"agent-{uid[:8]}", "pods")
    template = Template("registry.example.com/agent:1", ("run", "$(HOME)"), None, 0.5, 64 << 20, 8080, "/data")
    environment = {"API_KEY": SECRET, "WORKSPACE_NAME": ref.name}
    made = ProvisionRequest(ref, 3, "hash", template, environment, {"token": SECRET.encode(), "lease": b"x"})
    return replace(made, **more)


def spec_of(**block: Any) -> WorkspaceClassSpec:
    return WorkspaceClassSpec(kubernetes=KubernetesBackend(**{"namespace": NAMESPACE, **block}))


def driver_of(client: KubeClient, spec: WorkspaceClassSpec | None = None) -> KubernetesDriver:
    made = kubernetes.create("pods", spec or spec_of(), "cluster-1", no_secret, client)
    assert isinstance(made, KubernetesDriver)
    return made
