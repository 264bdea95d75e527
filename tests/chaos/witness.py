"""Who really runs on this machine: processes by the environment that their workspace gave them.

The operator's own books, the engine's and the directories of the process backend are not asked. A container's processes
are seen from outside, so this works while its engine is frozen or dead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from workspace_operator.backends.process.system import Mark, alive, boot_id, stat

_UID = b"WORKSPACE_UID="
Census = dict[str, dict[str, "Running"]]


@dataclass
class Running:
    """One instance: all processes of one container, or of one session where there is no container."""

    environment: dict[str, str]
    processes: list[Mark] = field(default_factory=list)

    @property
    def lives(self) -> bool:
        return any(alive(mark) for mark in self.processes)


def census() -> Census:
    """UID of each workspace that has a living process, to its instances by container or session."""
    found: Census = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            _count(entry, found)
    return found


def _count(entry: Path, found: Census) -> None:
    pid = int(entry.name)
    try:
        raw = (entry / "environ").read_bytes()
        if _UID not in raw:
            return
        space = (entry / "ns/pid").readlink()
        own = space == Path("/proc/self/ns/pid").readlink()
        session = os.getsid(pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return  # it ended meanwhile
    seen = stat(pid)
    if seen is None or seen.state in "ZX":
        return
    environment = dict(line.split("=", 1) for line in raw.decode(errors="replace").split("\0") if "=" in line)
    key = f"session {session}" if own else str(space)
    running = found.setdefault(environment["WORKSPACE_UID"], {}).setdefault(key, Running(environment))
    running.processes.append(Mark(pid, seen.start, boot_id(), None))


class Witness:
    """Looks ten times a second whether any of our workspaces has two instances at one moment."""

    def __init__(self, ours: Callable[[], set[str]]) -> None:
        self._ours = ours
        self.breaches: dict[str, str] = {}
        self.looks = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness", daemon=True)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.looks += 1
            for uid, instances in census().items():
                # The first was seen before the second. If it still lives now, both lived when the second was seen.
                alive_now = [one for one in instances.values() if one.lives]
                if len(alive_now) > 1 and uid in self._ours():
                    numbers = [one.environment.get("WORKSPACE_INCARNATION") for one in alive_now]
                    name = alive_now[0].environment.get("WORKSPACE_NAME")
                    self.breaches.setdefault(uid, f"{name} ({uid}): incarnations {numbers} alive at one moment")
