"""Uses the cluster of the current kubeconfig context (CLUSTER=current) behind the surface of a local one."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from controlplane import binaries
from controlplane.certificates import write_private
from controlplane.cluster import LocalCluster
from controlplane.kubectl import Cluster, ClusterError
from controlplane.processes import Say, say


class CurrentCluster(Cluster):
    """An existing cluster: never started, stopped or restarted by us.

    The context is copied into a kubeconfig of its own, so that a `kubectl config use-context` during a run
    does not turn the rest of the run against another cluster.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._kubectl = binaries.find_kubectl()
        self._context = json.loads(self._config("view", "--minify", "--flatten", "--raw", "-o=json"))
        if not self._context.get("clusters"):
            raise ClusterError("kubectl has no current context; choose one with kubectl config use-context")

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop; what was written for this run stays until the directory is removed."""

    @property
    def kubeconfig(self) -> Path:
        return self._write("current.kubeconfig", self._context)

    @property
    def server(self) -> str:
        return str(self._context["clusters"][0]["cluster"]["server"])

    @property
    def ca_file(self) -> Path:
        data = self._context["clusters"][0]["cluster"].get("certificate-authority-data", "")
        path = self.directory / "current-ca.crt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
        return path

    def client_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """By impersonation: we do not have that cluster's certificate authority."""
        context = json.loads(json.dumps(self._context))
        context["users"][0]["user"] |= {"as": user, "as-groups": list(groups)}
        return self._write(f"kubeconfigs/user-{user.replace(':', '_')}.kubeconfig", context)

    def _kubectl_binary(self) -> Path:
        return self._kubectl

    def _write(self, name: str, document: object) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, yaml.safe_dump(document).encode())
        return path

    def _config(self, *arguments: str) -> str:
        command = [str(self._kubectl), "config", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if result.returncode != 0:
            raise ClusterError(f"kubectl cannot read the current context: {result.stderr.strip()}")
        return result.stdout


def connect(directory: Path, say: Say = say) -> Cluster:
    """The cluster that CLUSTER names: `current`, or (by default) a local one in this directory."""
    choice = os.environ.get("CLUSTER", "")
    if choice == "current":
        return CurrentCluster(directory)
    if choice in {"", "local"}:
        return LocalCluster(directory, say=say)
    raise ClusterError(f"CLUSTER={choice} means nothing here; leave it unset or set CLUSTER=current")
