"""Gives a local cluster real nodes: containerd, kubelet and kube-proxy, each set in a small machine (machine.py)."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from controlplane import binaries, containerd, ground, images, kubelet, leftovers, network, volumes
from controlplane.cluster import LocalCluster
from controlplane.containerd import ImageError
from controlplane.ground import GroundError
from controlplane.kubectl import ClusterError
from controlplane.machine import Machine, Switch
from controlplane.namespaces import NamespacesError
from controlplane.network import Slot
from controlplane.packages import PackageError, apt_install, apt_obstacle, apt_offers
from controlplane.processes import Process, Say, say, tail

_READY_TIMEOUT = 120.0
_WHAT = "a node"
_NUMBER = "number"


class NodeError(ClusterError):
    """No node could be had, or it did not do as told; the message is meant for a person."""


class Node:
    """One node of a cluster; made by Nodes.add()."""

    def __init__(self, cluster: LocalCluster, machine: Machine, say: Say) -> None:
        self.machine = machine
        self._cluster = cluster
        self._say = say
        self.processes: dict[str, Process] = {}

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def ready(self) -> bool:
        """What the API server says of it; of a node that just died, it says so for half a minute more."""
        return self._ready_condition()[0]

    def load(self, *archives: Path) -> None:
        """Import images, each from an archive as `docker save` and images.write make it."""
        for archive in archives:
            try:
                containerd.load(self.machine, archive)
            except ImageError as error:
                raise NodeError(str(error)) from error

    def start(self) -> None:
        """Switch it on and wait until it is Ready; images and the pods that were bound to it come back with it."""
        begin = time.monotonic()
        try:
            self.machine.power_on()
            self._start()
        except NamespacesError as error:
            raise NodeError(str(error)) from error
        self._say(f"{self.name} ready at {self.machine.address} after {time.monotonic() - begin:.1f} s")

    def power_off(self) -> None:
        """It dies with all its pods, at once and without a word; the API server will notice by and by."""
        self.machine.power_off()
        self.processes.clear()

    def disconnect(self) -> None:
        """Its pods go on running, and nobody can reach them or the kubelet."""
        self.machine.disconnect()

    def reconnect(self) -> None:
        self.machine.reconnect()

    # How

    def _start(self) -> None:
        tools = binaries.ensure_nodes(self._say)
        _make_cgroups(self.machine)
        self._spawn("containerd", containerd.configure(self.machine))
        self._wait("containerd", lambda: containerd.responds(self.machine))
        self.load(self._busybox())
        self._spawn("kubelet", kubelet.kubelet(tools, self.machine))
        self._spawn("kube-proxy", kubelet.kube_proxy(tools, self.machine))
        # What it said before it was switched off does not count; what the API server notes is in whole seconds.
        begin = datetime.now(UTC).replace(microsecond=0)
        self._wait("kubelet", lambda: self._ready_condition() > (True, begin))

    def _ready_condition(self) -> tuple[bool, datetime]:
        """Whether it is Ready, and when its kubelet last said so."""
        found = json.loads(self._cluster.kubectl("get", "node", self.name, "--ignore-not-found", "-o=json") or "{}")
        for condition in found.get("status", {}).get("conditions", ()):
            if condition["type"] == "Ready":
                return condition["status"] == "True", datetime.fromisoformat(condition["lastHeartbeatTime"])
        return False, datetime.min.replace(tzinfo=UTC)

    def _spawn(self, program: str, command: list[str]) -> None:
        self.processes[program] = self.machine.spawn(program, command)

    def _wait(self, program: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT
        while not ready():
            for name, process in self.processes.items():
                if not process.alive:
                    raise NodeError(f"{name} ended on {self.name}; its log ends:\n{tail(self.machine.log(name))}")
            if time.monotonic() > deadline:
                log = tail(self.machine.log(program))
                raise NodeError(f"{program} on {self.name} not ready after {_READY_TIMEOUT:.0f} s:\n{log}")
            time.sleep(0.2)

    def _busybox(self) -> Path:
        archive = self.machine.directory / "busybox.tar"
        if not archive.exists():
            images.write_busybox(archive)
        return archive


class Nodes:
    """The nodes of one cluster, on one bridge of this machine.

    They end with the cluster's owner as the cluster itself does, and stop() leaves nothing of them behind. Each runs
    as root in namespaces of its own: neither firewall rules nor kernel settings of this machine are changed.
    """

    def __init__(self, cluster: LocalCluster, directory: Path, *, say: Say = say) -> None:
        self.cluster = cluster
        self.directory = directory.absolute()
        self._say = say
        self._slot = network.held_by(self.directory)
        if self._slot is not None and not self._switch.on:
            self._slot = None  # what a killed process left; it is cleaned up when the slot is taken anew
        self._nodes = self._known() if self._slot is not None else {}

    @classmethod
    def available(cls) -> str | None:
        """Why no node can be had on this machine, or None. May refresh apt's lists, installs nothing."""
        obstacle = ground.no_privileges(_WHAT)
        missing = containerd.missing_packages()
        if obstacle is not None or not missing:
            return obstacle
        obstacle = apt_obstacle()
        if obstacle is not None:
            return f"{', '.join(missing)} are not installed and {obstacle}"
        lacking = [package for package in missing if not apt_offers(package)]
        return f"apt cannot reach {', '.join(lacking)}" if lacking else None

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    @property
    def host(self) -> str:
        """The address under which nodes and pods reach this machine."""
        return self._held.host

    @property
    def server(self) -> str:
        """The API server's URL as seen from nodes and pods."""
        return f"https://{self.host}:{self.cluster.port}"

    @property
    def volumes(self) -> Path:
        """Where the data of all PersistentVolumes is."""
        return self.directory / "volumes"

    def add(self, name: str | None = None) -> Node:
        """Start one more node and wait until it is Ready; a failure leaves nothing of it running."""
        number = len(self._nodes) + 1
        name = name or f"node-{number}"
        if number > network.NODES:
            raise NodeError(f"a cluster has at most {network.NODES} nodes here")
        if self._slot is None:
            self._take_slot()
        self.prepare()
        machine = self._machine(name, number)
        self._say(f"starting {name}")
        node = Node(self.cluster, machine, self._say)
        try:
            self._furnish(machine)
            node.start()
        except BaseException:
            machine.power_off()
            shutil.rmtree(machine.directory, ignore_errors=True)
            raise
        self._nodes[name] = node
        if self.cluster.detached:
            # It is the nodes then that hold the slot; otherwise we do, while we live.
            self._held.write_owner(self.directory, leftovers.machines(self._held))
        return node

    def prepare(self) -> None:
        """Start what a cluster with nodes needs, unless it runs: add() does, a cluster that was resumed has to ask."""
        self.cluster.start_scheduler()
        self.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(self._endpoint()))
        volumes.start(self.cluster, self.volumes)

    def stop(self) -> None:
        """End all nodes and pods and remove all their data, that of volumes too; the API server is not told."""
        self.cluster.stop_addition(volumes.PROGRAM)
        ground.give_back(self.directory, network.held_by(self.directory))
        self._slot = None
        self._nodes.clear()

    # How

    @property
    def _held(self) -> Slot:
        if self._slot is None:
            raise NodeError(f"no nodes were started in {self.directory}")
        return self._slot

    def _take_slot(self) -> None:
        obstacle = ground.no_privileges(_WHAT)
        if obstacle is not None:
            raise NodeError(obstacle)
        packages = containerd.missing_packages()
        try:
            if packages:
                apt_install(packages, self._say)
            binaries.ensure_nodes(self._say)
            self._slot = ground.take(self.directory)
            self._switch.power_on()
        except (PackageError, GroundError, NamespacesError) as error:
            raise NodeError(f"{_WHAT} cannot be started: {error}") from error

    def _endpoint(self) -> dict[str, object]:
        """What is behind 10.96.0.1, the address of the API server that every pod is told."""
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [self.host]}],
            "ports": [{"name": "https", "port": self.cluster.port, "protocol": "TCP"}],
        }

    @property
    def _switch(self) -> Switch:
        return Switch(self._held, self.directory / "switch", detached=self.cluster.detached)

    def _machine(self, name: str, number: int) -> Machine:
        return Machine(self._switch, number, name, self.directory / name, detached=self.cluster.detached)

    def _furnish(self, machine: Machine) -> None:
        """Names, keys and certificates, which it keeps when it is switched off and on again."""
        machine.directory.mkdir()
        (machine.directory / _NUMBER).write_text(str(machine.number))
        self.cluster.issue(machine.directory, "kubelet", (machine.address, machine.name))
        users = {"kubelet": (f"system:node:{machine.name}", ["system:nodes"]), "kube-proxy": ("system:kube-proxy", [])}
        for program, (user, groups) in users.items():
            made = self.cluster.client_kubeconfig(user, groups, self.server)
            shutil.copy(made, machine.directory / f"{program}.kubeconfig")

    def _known(self) -> dict[str, Node]:
        """Those that another process started in this directory."""
        numbers = {file.parent.name: int(file.read_text()) for file in self.directory.glob(f"*/{_NUMBER}")}
        names = sorted(numbers, key=lambda name: numbers[name])
        return {name: Node(self.cluster, self._machine(name, numbers[name]), self._say) for name in names}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _make_cgroups(machine: Machine) -> None:
    """The kubelet wants its root to exist: one per controller (cgroup v1), a single one (v2), or both."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, point, kind = line.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            slot = Path(point) / machine.slot.name
            (slot / machine.name).mkdir(parents=True, exist_ok=True)
            if kind == "cgroup2":
                _pass_on_controllers(Path(point))
                _pass_on_controllers(slot)


def _pass_on_controllers(cgroup: Path) -> None:
    """Below a cgroup of version 2 there are only those that it passes on."""
    for controller in (cgroup / "cgroup.controllers").read_text().split():
        with suppress(OSError):
            (cgroup / "cgroup.subtree_control").write_text(f"+{controller}")
