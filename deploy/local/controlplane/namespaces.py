"""Kernel namespaces held by one process: when it ends, the kernel ends all that runs in them and takes them away."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from controlplane import network
from controlplane.network import Slot
from controlplane.processes import Process, child_of, spawn, tail

_INIT = Path(__file__).with_name("namespaces_init.py")
_READY_TIMEOUT = 60.0


class NamespacesError(Exception):
    """They could not be made or entered; the message is meant for a person."""


class Namespaces:
    """Processes, mounts, a host name and a network of their own; what runs inside sees this machine's other files.

    Nothing outlives the first process but files: processes, mounts and network devices go with it. Where that process
    is known from is the slot (leftovers.py), so any process can end it.
    """

    def __init__(self, slot: Slot, name: str, directory: Path, *, detached: bool) -> None:
        self.slot, self.name = slot, name
        self.directory = directory
        self._detached = detached

    @property
    def run(self) -> Path:
        """Its /run, as seen from outside."""
        return self.slot.run / self.name

    @property
    def on(self) -> bool:
        return (first := self._first) is not None and first.alive

    def log(self, program: str) -> Path:
        return self.directory / f"{program}.log"

    def power_on(self) -> None:
        if self.on:
            raise NamespacesError(f"{self.name} is on already")
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir()
        self.directory.mkdir(parents=True, exist_ok=True)
        first = self._boot()
        staging = self._file.with_suffix(".new")
        staging.write_text(json.dumps(vars(first)))
        staging.replace(self._file)
        try:
            self._connect(first)
        except OSError as error:
            self.power_off()
            raise NamespacesError(f"{self.name} gets no network: {error}") from error

    def power_off(self) -> None:
        """At once, as when a cable is pulled: nothing inside gets to know of it."""
        if (first := self._first) is not None:
            first.end(grace=0)
        self._file.unlink(missing_ok=True)

    def spawn(self, program: str, command: Sequence[str]) -> Process:
        """Start a program inside; the process is the program itself, as seen from outside."""
        enter = [_tool("nsenter"), f"--target={self.pid}", "--mount", "--uts", "--pid", "--net", "--"]
        entered = self._spawn(program, [*enter, *command])
        deadline = time.monotonic() + _READY_TIMEOUT
        while (process := child_of(entered)) is None:
            if not entered.alive or time.monotonic() > deadline:
                raise NamespacesError(f"{program} did not start on {self.name}:\n{tail(self.log(program))}")
            time.sleep(0.01)
        return process

    @property
    def pid(self) -> int:
        """Of the first process, by which others reach the namespaces."""
        if (first := self._first) is None:
            raise NamespacesError(f"{self.name} is off")
        return first.pid

    # What kinds of it add

    def _mounts(self) -> Iterable[tuple[Path, str]]:
        """What to see where, in this order."""
        return [(self.run, "/run")]

    def _connect(self, first: Process) -> None:
        """Give it its network; raises OSError."""

    # How

    @property
    def _file(self) -> Path:
        return self.slot.run / f"{self.name}.init"

    @property
    def _first(self) -> Process | None:
        try:
            return Process(**json.loads(self._file.read_text()))
        except FileNotFoundError:
            return None

    def _boot(self) -> Process:
        kinds = ["--mount", "--uts", "--pid", "--net", "--mount-proc", "--fork", "--kill-child"]
        script = [sys.executable, "-I", "-S", str(_INIT), self.name]
        mounts = [f"{source}={target}" for source, target in self._mounts()]
        outer = self._spawn("init", [_tool("unshare"), *kinds, *script, *mounts])
        deadline = time.monotonic() + _READY_TIMEOUT
        while not (self.run / "ready").exists() or (first := child_of(outer)) is None:
            if not outer.alive or time.monotonic() > deadline:
                outer.end(grace=0)  # and with it all inside
                raise NamespacesError(f"{self.name} did not start; its log ends:\n{tail(self.log('init'))}")
            time.sleep(0.02)
        return first

    def _spawn(self, program: str, command: Sequence[str]) -> Process:
        log = self.log(program)
        log.unlink(missing_ok=True)
        environment = {"PATH": network.search_path()}
        return spawn(command, log, die_with_parent=not self._detached, environment=environment)


def _tool(name: str) -> str:
    path = shutil.which(name, path=network.search_path())
    if path is None:
        raise NamespacesError(f"{name} (of util-linux) is not installed")
    return path
