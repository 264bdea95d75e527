"""The operator as a pod: a cluster of one's own with a node, and the chart on it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet, Object
from tests.support.helm import CHART, NAMESPACE, RELEASE, Helm, values_of

from controlplane.cluster import LocalCluster
from controlplane.nodes import Nodes

PATIENCE = 180
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
_IMAGE: Object = {"image.tag": "dev", "image.pullPolicy": "Never"}


class Installed:
    """A cluster with one node that has the operator's image, and Helm; ``values`` are those of each installation."""

    def __init__(self, cluster: LocalCluster, helm: Helm, values: Object) -> None:
        self.cluster, self.helm = cluster, helm
        self.fleet = Fleet(cluster, "team")
        self._values = {**_IMAGE, **values}

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.cluster.kubectl("-n", NAMESPACE, *arguments, **more)

    def install(self, **changed: Any) -> str:
        """Install or upgrade, and wait until all replicas are ready."""
        values = values_of({**self._values, **changed})
        command = ("upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--wait", "--timeout=300s")
        return self.helm(*command, *values, timeout=320)

    def uninstall(self) -> str:
        """Have Helm remove what it does not keep; what it said."""
        return self.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout=300s", timeout=320)

    def pods(self) -> dict[str, Object]:
        """Those that are not on their way out."""
        listed = json.loads(self.kubectl("get", "pods", "-o=json"))["items"]
        return {pod["metadata"]["name"]: pod for pod in listed if "deletionTimestamp" not in pod["metadata"]}

    def lease(self) -> Object:
        found = self.kubectl("get", "lease", "workspace-operator", "--ignore-not-found", "-o=jsonpath={.spec}")
        return dict(json.loads(found or "{}"))

    def leader(self) -> str:
        """The pod that leads; empty between two."""
        return str(self.lease().get("holderIdentity") or "").partition("_")[0]

    def explain(self) -> str:
        logs = self.kubectl("logs", "--all-containers", "-l=app.kubernetes.io/component=operator", check=False)
        return f"{self.kubectl('describe', 'pods')}\n{self.lease()}\n{logs}"

    @contextmanager
    def recorded(self) -> Iterator[list[Object]]:
        """Every state of the Lease meanwhile."""
        spoken = ("get", "lease", "workspace-operator", "--watch", "-o=jsonpath={.spec}{'\\n'}")
        kubectl = [str(self.cluster._kubectl_binary()), f"--kubeconfig={self.cluster.kubeconfig}", "-n", NAMESPACE]
        states: list[Object] = []
        with subprocess.Popen([*kubectl, *spoken], stdout=subprocess.PIPE, text=True) as watch:
            try:
                yield states
            finally:
                watch.terminate()
                states += [json.loads(line) for line in (watch.stdout or ()) if line.strip()]


@contextmanager
def installed(home: Path, *archives: Path, values: Object | None = None) -> Iterator[Installed]:
    """A cluster and a node with these images, and nothing installed yet. What Helm removes is not the session's."""
    obstacle = Nodes.available()
    if obstacle is not None:
        pytest.fail(f"no node can be had here: {obstacle}")

    def quiet(_text: str) -> None:
        pass

    with LocalCluster(home / "c", say=quiet) as cluster, Nodes(cluster, home / "n", say=quiet) as nodes:
        node = nodes.add()
        for archive in archives:
            node.load(archive)
        for name in (NAMESPACE, "team"):
            cluster.kubectl("create", "namespace", name)
            cluster.kubectl("label", "namespace", name, RESTRICTED)
        yield Installed(cluster, Helm(home / "helm", cluster.kubeconfig), values or {})
