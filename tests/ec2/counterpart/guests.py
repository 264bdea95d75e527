"""What runs inside the machines: a local process for each, when the counterpart was given a way to start one."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from .machines import Machine

GRACE = 3.0


@dataclass(frozen=True)
class Guest:
    """What a guest may know: who it is, where it may listen, and its user data."""

    instance_id: str
    address: str
    user_data: str
    tags: dict[str, str]


Starter = Callable[[Guest], "subprocess.Popen[bytes]"]


class Guests:
    """Each machine has a loopback address of its own, 127.x.y.z, which DescribeInstances shows as the private one."""

    def __init__(self, starter: Starter | None) -> None:
        self._starter = starter
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def address(self, number: int) -> str:
        """Empty without guests: then moto's address stands."""
        return f"127.{64 + number // 62500}.{number // 250 % 250}.{number % 250 + 2}" if self._starter else ""

    def start(self, machine: Machine) -> None:
        if self._starter is None:
            return
        process = self._processes.get(machine.id)
        if process is not None and process.poll() is None:  # hibernated: its memory comes back
            process.send_signal(signal.SIGCONT)
            return
        guest = Guest(machine.id, machine.address, machine.user_data, dict(machine.tags))
        self._processes[machine.id] = self._starter(guest)

    def freeze(self, machine: Machine) -> None:
        if process := self._processes.get(machine.id):
            process.send_signal(signal.SIGSTOP)

    def end(self, machine: Machine) -> None:
        """Ask, wait, kill."""
        process = self._processes.pop(machine.id, None)
        if process is None:
            return
        process.terminate()
        process.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        if process.poll() is None:
            process.kill()
            process.wait()

    def process(self, instance_id: str) -> subprocess.Popen[bytes] | None:
        return self._processes.get(instance_id)

    def end_all(self) -> None:
        for identifier in list(self._processes):
            self.end(Machine(id=identifier))
