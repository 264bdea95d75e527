"""Pods by hand, past the operator: what the local node's own tests and comparisons need."""

from __future__ import annotations

import json
from typing import Any

import yaml

from controlplane.images import BUSYBOX_TAG
from controlplane.kubectl import Cluster

AGENT = "workspace-operator/reference-agent:dev"
CARD = "/.well-known/agent-card.json"
Object = dict[str, Any]


def pod(name: str, image: str = BUSYBOX_TAG, container: Object | None = None, **spec: Any) -> Object:
    """A pod of one container that the strictest Pod Security Standard admits; it runs until it is deleted."""
    inside = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **(container or {}),
    }
    user = {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"terminationGracePeriodSeconds": 1, "securityContext": user, "containers": [inside], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Space:
    """A namespace that admits only what `pod` makes."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self.name = cluster, name
        cluster.kubectl("create", "namespace", name)
        self.admit("restricted")

    def __call__(self, *arguments: str, **more: Any) -> str:
        return self._cluster.kubectl("-n", self.name, *arguments, **more)

    def admit(self, standard: str) -> None:
        label = f"pod-security.kubernetes.io/enforce={standard}"
        self._cluster.kubectl("label", "--overwrite", "namespace", self.name, label)

    def apply(self, *objects: Object) -> None:
        self("apply", "-f", "-", input=yaml.safe_dump_all(objects))

    def run(self, manifest: Object) -> Object:
        """The pod, once it is Ready."""
        self.apply(manifest)
        name = manifest["metadata"]["name"]
        self("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s", timeout=130)
        return dict(json.loads(self("get", "pod", name, "-o=json")))

    def state(self, name: str, state: str) -> str:
        """The reason that the kubelet gives for this state (`waiting`, `terminated`) of the pod's container."""
        return self("get", "pod", name, f"-o=jsonpath={{.status.containerStatuses[0].state.{state}.reason}}")

    def remove(self) -> None:
        self("delete", "pods", "--all", "--timeout=120s", timeout=130)
        self._cluster.kubectl("delete", "namespace", self.name, "--wait=false")
