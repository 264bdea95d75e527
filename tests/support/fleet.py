"""A namespace of workspaces to talk to in sentences."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import yaml

from controlplane.kubectl import Cluster

API_VERSION = "workspace-operator.dev/v1alpha1"
Object = dict[str, Any]


def workspace(name: str, **spec: Any) -> Object:
    """A Workspace manifest; ``image`` and ``agent`` default to the reference agent."""
    spec = {"image": "workspace-operator/reference-agent:dev", **spec}
    return {"apiVersion": API_VERSION, "kind": "Workspace", "metadata": {"name": name}, "spec": spec}


def workspace_class(name: str, **spec: Any) -> Object:
    """A WorkspaceClass manifest."""
    return {"apiVersion": API_VERSION, "kind": "WorkspaceClass", "metadata": {"name": name}, "spec": spec}


class Fleet:
    """Speaks kubectl in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **more)

    def apply(self, *objects: Object, check: bool = True) -> str:
        return self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects), check=check)

    def get(self, name: str) -> Object:
        return dict(json.loads(self.kubectl("get", "workspace", name, "-o", "json")))

    def all(self) -> list[Object]:
        return list(json.loads(self.kubectl("get", "workspaces", "-o", "json"))["items"])

    def status(self, name: str) -> Object:
        return dict(self.get(name).get("status") or {})

    def phase(self, name: str) -> str | None:
        return self.status(name).get("phase")

    def condition(self, name: str, kind: str) -> Object | None:
        return next((c for c in self.status(name).get("conditions", ()) if c["type"] == kind), None)

    def patch(self, name: str, **spec: Any) -> None:
        self.kubectl("patch", "workspace", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def desire(self, name: str, state: str) -> None:
        self.patch(name, desiredState=state)

    def wait_phase(self, name: str, phase: str, seconds: float = 60) -> None:
        self.kubectl(
            "wait",
            f"--for=jsonpath={{.status.phase}}={phase}",
            f"workspace/{name}",
            f"--timeout={seconds:.0f}s",
            timeout=seconds + 10,
        )

    def wait_ready(self, *names: str, seconds: float = 60) -> None:
        targets = [f"workspace/{name}" for name in names] or ["workspace", "--all"]
        self.kubectl("wait", "--for=condition=Ready", *targets, f"--timeout={seconds:.0f}s", timeout=seconds + 10)

    def wait_reason(
        self, name: str, reason: str, kind: str = "Ready", seconds: float = 60, status: str | None = None
    ) -> Object:
        def said() -> Object | None:
            found = self.condition(name, kind)
            meant = found is not None and found["reason"] == reason and status in (None, found["status"])
            return found if meant else None

        return until(
            said,
            seconds,
            lambda: f"{name}: {self.condition(name, kind)}",
        )

    def delete(self, *names: str, seconds: float = 60) -> None:
        self.kubectl("delete", "workspace", *names, f"--timeout={seconds:.0f}s", timeout=seconds + 10)

    def drop_classes(self, *names: str) -> None:
        """Each goes once no workspace uses it, which is not waited for."""
        self.cluster.kubectl("delete", "workspaceclass", "--ignore-not-found", "--wait=false", *names)


def until(probe: Callable[[], Any], seconds: float = 30, explain: Callable[[], str] = str) -> Any:
    """Call ``probe`` until it answers something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {explain()}")
        time.sleep(0.1)
