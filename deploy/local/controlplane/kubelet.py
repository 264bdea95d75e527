"""Kubernetes' own programs of a node: kubelet and kube-proxy, configured for one machine (machine.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from controlplane.binaries import NodeBinaries
from controlplane.containerd import SOCKET
from controlplane.machine import Machine

PORT = 10250
HEALTH_PORT = 10248
_ROOT = Machine.DATA / "kubelet"


def kubelet(binaries: NodeBinaries, machine: Machine) -> list[str]:
    """Write its configuration; returns the command to run inside. The keys are in the machine's directory already."""
    path = _write(machine, "kubelet.yaml", _kubelet_configuration(machine))
    return [
        str(binaries.kubelet),
        f"--config={path}",
        f"--kubeconfig={machine.DATA / 'kubelet.kubeconfig'}",
        f"--hostname-override={machine.name}",
        f"--node-ip={machine.address}",
        f"--root-dir={_ROOT}",
    ]


def kube_proxy(binaries: NodeBinaries, machine: Machine) -> list[str]:
    """What makes a Service's address work, that of the API server (10.96.0.1) above all."""
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": machine.name,
        "clientConnection": {"kubeconfig": str(machine.DATA / "kube-proxy.kubeconfig")},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # Zero leaves the kernel's settings of the connection table alone; they are the real machine's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return [str(binaries.kube_proxy), f"--config={_write(machine, 'kube-proxy.yaml', configuration)}"]


def _kubelet_configuration(machine: Machine) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(machine.DATA / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(machine.DATA / "kubelet.crt"),
        "tlsPrivateKeyFile": str(machine.DATA / "kubelet.key"),
        "address": "0.0.0.0",  # noqa: S104 (of the machine's own network)
        "port": PORT,
        "healthzPort": HEALTH_PORT,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        # Everything that its pods use is under this one, by which it is found again (leftovers.py).
        "cgroupRoot": f"/{machine.slot.name}/{machine.name}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        # There is no cluster DNS: pods resolve nothing.
        "resolvConf": "",
        # Found dead within the grace that components.py gives the node, in seconds.
        "nodeLeaseDurationSeconds": 12,
        "nodeStatusUpdateFrequency": "5s",
        # An image that was imported cannot be fetched again; and how full this machine's disk is says nothing here.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "makeIPTablesUtilChains": False,
        "maxPods": 200,
    }


def _write(machine: Machine, name: str, document: Mapping[str, object]) -> Path:
    (machine.directory / name).write_text(yaml.safe_dump(document, sort_keys=False))
    return machine.DATA / name
