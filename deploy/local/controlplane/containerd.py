"""The container runtime of a node: containerd and its network plug-ins, configured for one machine (machine.py)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from controlplane import images, network
from controlplane.images import BUSYBOX_TAG
from controlplane.machine import Machine

# As seen from inside. State and addresses given to pods are lost with the power, images and containers are not.
_STATE = Path("/run/containerd")
SOCKET = _STATE / "containerd.sock"
_CNI = Path("/run/cni")
_PLUGINS = Path("/usr/lib/cni")
# Debian packages by a file that each brings.
_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    str(_PLUGINS / "ptp"): "containernetworking-plugins",
    str(images.BUSYBOX): "busybox-static",
    "ip": "iproute2",
    "iptables": "iptables",
    "mount": "mount",
    "nsenter": "util-linux",
}
_IMPORT_TIMEOUT = 300.0


class ImageError(Exception):
    """The node did not take an image; the message is meant for a person."""


def missing_packages() -> list[str]:
    """Debian packages of what is not there."""
    path = network.search_path()
    return sorted({package for program, package in _PACKAGES.items() if shutil.which(program, path=path) is None})


def configure(machine: Machine) -> list[str]:
    """Write its configuration; returns the command to run inside."""
    cni = machine.run / _CNI.name
    cni.mkdir(exist_ok=True)
    (cni / "10-pods.conflist").write_text(json.dumps(_pod_network(machine), indent=2))
    file = machine.directory / "containerd.toml"
    file.write_text(_CONFIGURATION)
    return ["containerd", f"--config={machine.DATA / file.name}"]


def responds(machine: Machine) -> bool:
    return _ctr(machine, "version", timeout=5).returncode == 0


def load(machine: Machine, archive: Path) -> None:
    """Import an image from an archive, as `docker save` and images.write make it."""
    result = _ctr(machine, "images", "import", str(archive), timeout=_IMPORT_TIMEOUT)
    if result.returncode != 0:
        raise ImageError(f"{machine.name} does not take {archive}: {result.stderr.strip()}")


def _ctr(machine: Machine, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """From outside, where the archives are; the kubelet's images are those in the namespace k8s.io."""
    socket = machine.run / SOCKET.relative_to("/run")
    command = ["ctr", f"--address={socket}", "--namespace=k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def _pod_network(machine: Machine) -> dict[str, object]:
    """Each pod on a cable of its own, its traffic routed: no bridge, whose filter would need a kernel module."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": machine.pod_range}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(_CNI / "addresses"),
    }
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": addresses}],
    }


# Version 2 is read by containerd 1.4 and all later ones. restrict_oom_score_adj: lowering a score takes
# CAP_SYS_RESOURCE, which root has not everywhere; without it runc ends with an EOF that names no reason.
_CONFIGURATION = f"""\
version = 2
root = "{Machine.DATA}/containerd"
state = "{_STATE}"

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{BUSYBOX_TAG}"
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_PLUGINS}"
    conf_dir = "{_CNI}"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""
