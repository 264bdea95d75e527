"""Claims a slice of network for one Docker engine or one cluster's nodes: a name, a bridge, unused addresses."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from controlplane.processes import Process

_RUN = Path("/run")
_BLOCKS = list(ipaddress.IPv4Network("172.30.0.0/15").subnets(new_prefix=20))
# A block has 16 ranges of 256 addresses: the bridge's own, one for each node's pods, and 8 for an engine's networks.
NODES = 7


class NoFreeBlock(Exception):
    """All address blocks for private engines and nodes are in use."""


@dataclass(frozen=True)
class Slot:
    """One of 32 numbered places for a private engine, or for the nodes of one cluster.

    Everything that either has outside its directory bears its slot's name: the bridge, the cgroup, and /run/NAME
    with its sockets (short, because a socket's path has 108 bytes at most).
    """

    number: int

    @property
    def name(self) -> str:
        return f"wsop-{self.number}"

    @property
    def run(self) -> Path:
        return _RUN / self.name

    @property
    def gateway(self) -> str:
        """This machine's own address on the bridge, and the prefix of the network on it."""
        return f"{self._ranges[0].network_address + 1}/24"

    @property
    def host(self) -> str:
        """The address under which containers and nodes reach this machine."""
        return self.gateway.partition("/")[0]

    def node_address(self, node: int) -> str:
        """Of node 1 to NODES, on the bridge; the prefix is the bridge's."""
        return str(self._ranges[0].network_address + 1 + node)

    def pod_range(self, node: int) -> str:
        """Where the pods of node 1 to NODES have their addresses."""
        return str(self._ranges[node])

    @property
    def pool(self) -> str:
        """Where the engine takes the subnets of user-made networks from."""
        return str(list(self._block.subnets(new_prefix=21))[1])

    @property
    def _block(self) -> ipaddress.IPv4Network:
        return _BLOCKS[self.number]

    @property
    def _ranges(self) -> list[ipaddress.IPv4Network]:
        return list(self._block.subnets(new_prefix=24))

    def overlaps(self, network: ipaddress.IPv4Network) -> bool:
        return self._block.overlaps(network)

    @property
    def owner(self) -> Path:
        return self.run / "owner.json"

    def read_owner(self) -> tuple[Path, list[Process]]:
        """Its owner's directory, and the processes of which one must live for the claim to hold."""
        with suppress(FileNotFoundError, ValueError, KeyError):
            content = json.loads(self.owner.read_text())
            return Path(content["directory"]), [Process(**process) for process in content["processes"]]
        return Path(), []

    def write_owner(self, directory: Path, processes: list[Process]) -> None:
        content = {"directory": str(directory), "processes": [vars(process) for process in processes]}
        staging = self.owner.with_suffix(".new")
        staging.write_text(json.dumps(content))
        staging.replace(self.owner)


def claim(directory: Path, release_dead: Callable[[Slot], None]) -> Slot:
    """Take a free slot and make its bridge; slots of those that died are cleaned up first."""
    with _locked():
        for slot in taken():
            if not any(process.alive for process in slot.read_owner()[1]):
                release_dead(slot)
        used = list(_routed_networks())
        for slot in map(Slot, range(len(_BLOCKS))):
            if slot.run.exists() or any(slot.overlaps(network) for network in used):
                continue
            slot.run.mkdir(mode=0o700)
            myself = Process.of(os.getpid())
            slot.write_owner(directory, [myself] if myself else [])
            _make_bridge(slot)
            return slot
    raise NoFreeBlock("all 32 address blocks in 172.30.0.0/15 are in use; stop some private engines or nodes")


def taken() -> list[Slot]:
    numbers = [path.name.removeprefix("wsop-") for path in _RUN.glob("wsop-*")]
    return [Slot(int(number)) for number in numbers if number.isdigit()]


def held_by(directory: Path) -> Slot | None:
    """The slot of whoever was started in this directory, by this process or another."""
    return next((slot for slot in taken() if slot.read_owner()[0] == directory), None)


def hosts() -> list[str]:
    """Every address that this machine may have on a slot's bridge."""
    return [Slot(number).host for number in range(len(_BLOCKS))]


def release(slot: Slot) -> None:
    """Remove the bridges of the slot (its own, and those of networks made by users) and its name."""
    for bridge in bridges(slot):
        ip("link", "delete", bridge, check=False)
    shutil.rmtree(slot.run, ignore_errors=True)


def bridges(slot: Slot) -> list[str]:
    """User-made networks have bridges of any name; their addresses tell whose they are."""
    found = [slot.name] if Path(f"/sys/class/net/{slot.name}").exists() else []
    for _index, name in socket.if_nameindex():
        is_bridge = Path(f"/sys/class/net/{name}/bridge").is_dir()
        address = _address(name)
        if is_bridge and name != slot.name and address and slot.overlaps(ipaddress.IPv4Network(address)):
            found.append(name)
    return found


def _make_bridge(slot: Slot) -> None:
    try:
        ip("link", "add", slot.name, "type", "bridge")
        ip("addr", "add", slot.gateway, "dev", slot.name)
        ip("link", "set", slot.name, "up")
    except BaseException:
        release(slot)
        raise


def ip(*arguments: str, inside: int | None = None, check: bool = True) -> None:
    """Run ip(8), if need be in the network of another process."""
    enter = [] if inside is None else ["nsenter", f"--target={inside}", "--net", "--"]
    environment = {**os.environ, "PATH": search_path()}
    command = [*enter, "ip", *arguments]
    result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if check and result.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")


def search_path() -> str:
    """ip and dockerd live in sbin, which is not on everyone's PATH."""
    return os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


def _address(interface: str) -> str | None:
    """The interface's IPv4 address, asked from the kernel (SIOCGIFADDR)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            answer = fcntl.ioctl(handle, 0x8915, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _routed_networks() -> Iterator[ipaddress.IPv4Network]:
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        destination, mask = (socket.inet_ntoa(struct.pack("<I", int(fields[i], 16))) for i in (1, 7))
        if mask != "0.0.0.0":  # noqa: S104 (the default route covers everything and says nothing)
            yield ipaddress.IPv4Network(f"{destination}/{mask}", strict=False)


@contextmanager
def _locked() -> Iterator[None]:
    with (_RUN / "workspace-operator.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
