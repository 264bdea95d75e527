"""Small machines inside this one, and the switch between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from controlplane import network
from controlplane.namespaces import Namespaces
from controlplane.network import Slot
from controlplane.processes import Process

# Kernel settings that a kubelet insists on changing. They belong to the whole real machine, so it gets files instead
# that say what it wants to read (k8s.io/component-helpers/node/util/sysctl).
SETTINGS = {
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}


class Switch(Namespaces):
    """Joins the machines of a slot, and them to this machine.

    It is apart from this machine so that the firewall here has no say in it: beside a Docker engine that uses the
    firewall, a bridge of our own would forward nothing.
    """

    def __init__(self, slot: Slot, directory: Path, *, detached: bool) -> None:
        super().__init__(slot, "switch", directory, detached=detached)

    def join(self, machine: Machine, pid: int) -> None:
        """A cable from the machine with this first process; it ends with either."""
        # The same hardware address after each start: otherwise its neighbours would talk to the old one for a while.
        end = ("name", "eth0", "address", f"02:00:00:00:00:{machine.number:02x}", "netns", str(pid))
        network.ip("link", "add", machine.port, "type", "veth", "peer", *end, inside=self.pid)
        network.ip("link", "set", machine.port, "master", "switch", "up", inside=self.pid)

    def turn(self, machine: Machine, state: str) -> None:
        """`up` or `down`."""
        network.ip("link", "set", machine.port, state, inside=self.pid)

    def _connect(self, first: Process) -> None:
        uplink = f"{self.slot.name}-up"
        network.ip("link", "add", "switch", "type", "bridge", inside=first.pid)
        network.ip("link", "set", "switch", "up", inside=first.pid)
        network.ip("link", "add", uplink, "type", "veth", "peer", "name", "uplink", "netns", str(first.pid))
        network.ip("link", "set", uplink, "master", self.slot.name, "up")
        network.ip("link", "set", "uplink", "master", "switch", "up", inside=first.pid)


class Machine(Namespaces):
    """Number 1 to network.NODES of a slot, with disk, network and power of its own."""

    # Where programs inside see its directory, which survives a loss of power; the rest of /run does not.
    DATA = Path("/run/data")

    def __init__(self, switch: Switch, number: int, name: str, directory: Path, *, detached: bool) -> None:
        super().__init__(switch.slot, name, directory, detached=detached)
        self.number = number
        self._switch = switch

    @property
    def address(self) -> str:
        return self.slot.node_address(self.number)

    @property
    def pod_range(self) -> str:
        return self.slot.pod_range(self.number)

    @property
    def port(self) -> str:
        """The switch's end of its cable; the name of a network device has 15 characters at most."""
        return f"port-{self.number}"

    def disconnect(self) -> None:
        """Everything inside goes on running, cut off from all others."""
        self._switch.turn(self, "down")

    def reconnect(self) -> None:
        self._switch.turn(self, "up")

    def _mounts(self) -> Iterator[tuple[Path, str]]:
        data, log, settings = self.run / self.DATA.name, self.directory / "log", self.directory / "settings"
        for path in (data, log, settings):
            path.mkdir(exist_ok=True)
        yield self.directory, str(data)
        yield log, "/var/log"
        yield self.run, "/run"
        for name, value in SETTINGS.items():
            file = settings / name.replace("/", ".")
            file.write_text(f"{value}\n")
            yield file, f"/proc/sys/{name}"

    def _connect(self, first: Process) -> None:
        """A way to the pods of every node, whether it is there yet or not."""
        host, _, prefix = self.slot.gateway.partition("/")
        others = [number for number in range(1, network.NODES + 1) if number != self.number]
        self._switch.join(self, first.pid)
        network.ip("route", "replace", self.pod_range, "via", self.address)
        for line in (
            "link set lo up",
            f"addr add {self.address}/{prefix} dev eth0",
            "link set eth0 up",
            f"route add default via {host}",
            *(f"route add {self.slot.pod_range(other)} via {self.slot.node_address(other)}" for other in others),
        ):
            network.ip(*line.split(), inside=first.pid)
