"""A class of pods on the tests' own nodes, and a look at its pods past the operator."""

from __future__ import annotations

import json
from typing import Any

import yaml
from tests.support.fleet import Fleet, Object
from tests.support.operator import ROOT

from controlplane.nodes import Nodes

EXAMPLE = ROOT / "deploy" / "examples" / "class-kubernetes.yaml"


def pod_class(nodes: Nodes, name: str, block: Object | None = None, **spec: Any) -> Object:
    """The example's class, turned to these nodes: images are loaded, and the operator is not in the cluster."""
    made: Object = yaml.safe_load(EXAMPLE.read_text())
    made["metadata"]["name"] = name
    made["spec"]["kubernetes"] |= {"imagePullPolicy": "Never", "storageSize": "1Mi", **(block or {})}
    made["spec"]["identity"] |= {"server": nodes.server}
    made["spec"] |= {"stopGracePeriod": "2s", "observeInterval": "5s", **spec}
    return made


class Pods:
    """The pods of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def of(self, name: str) -> list[Object]:
        """The pods of a workspace, by its labels."""
        selector = f"workspace-operator.dev/workspace-name={name},workspace-operator.dev/role=instance"
        found = json.loads(self._fleet.kubectl("get", "pods", "-l", selector, "-o=json"))
        return list(found["items"])

    def only(self, name: str) -> Object:
        (pod,) = self.of(name)
        return pod

    def python(self, name: str, code: str) -> str:
        """What a Python program in the workspace's container prints; the agent's image has nothing else."""
        return self._fleet.kubectl("exec", self.only(name)["metadata"]["name"], "--", "python", "-S", "-c", code)

    def left(self) -> list[str]:
        """Whatever of the backend's kinds is in the namespace, but what is there for everybody."""
        kinds = "pods,persistentvolumeclaims,secrets,services,networkpolicies"
        return self._fleet.kubectl("get", kinds, "-o=name").split()
