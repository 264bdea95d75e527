"""Removes everything that a private Docker engine or nodes had: processes, containers, cgroups, mounts, bridges.

It needs nothing but the slot and the directory, so it works on a crashed engine or node as on a running one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from controlplane import network
from controlplane.network import Slot
from controlplane.processes import Process

_PROGRAMS = ("dockerd", "containerd", "runc", "docker-proxy")
_CGROUPS = Path("/sys/fs/cgroup")
_PATIENCE = 15.0


def remove(slot: Slot, directory: Path) -> None:
    """Kill first, then unmount, then delete: no step finds busy what an earlier one should have ended."""
    sockets = list(_shim_sockets(slot))
    for machine in machines(slot):
        machine.end(grace=0)
    _kill_everything(slot, directory)
    _unmount(slot.run)
    _unmount(directory)
    for path in sockets:
        path.unlink(missing_ok=True)
    for cgroup in _cgroups(slot):
        _remove_cgroup(cgroup)
    network.release(slot)


def machines(slot: Slot) -> list[Process]:
    """The first processes of nodes (namespaces.py): none of them ends before all in its namespaces have."""
    return [Process(**json.loads(file.read_text())) for file in slot.run.glob("*.init")]


def forget_dead(slot: Slot) -> None:
    """Remove pid files of the dead after a crash.

    A dead containerd is a zombie where the machine's init collects none; dockerd takes that for a running one
    and waits for it in vain.
    """
    for file in (slot.run / "docker.pid", slot.run / "exec" / "containerd" / "containerd.pid"):
        if file.exists():
            process = Process.of(int(file.read_text()))
            if process is None or process.wait(5):
                file.unlink(missing_ok=True)


def processes(slot: Slot, directory: Path) -> set[int]:
    """The engine, its containerd and shims, and whatever runs in its containers."""
    found: set[int] = set()
    marks = (f"{slot.run}/", f"{directory}/data")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            program = Path(arguments[0]).name
            if program.startswith(_PROGRAMS) and any(mark in line for mark in marks for line in arguments):
                found.add(int(entry.name))
    for cgroup in _cgroups(slot):
        for members in cgroup.rglob("cgroup.procs"):
            with suppress(OSError):
                found.update(int(pid) for pid in members.read_text().split())
    return found


def mounts(directory: Path) -> list[str]:
    """Mount points at or below the directory, the innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [point for point in points if point == str(directory) or point.startswith(f"{directory}/")]
    return sorted(inside, key=len, reverse=True)


def _kill_everything(slot: Slot, directory: Path) -> None:
    # More than one round: a container that is just starting appears between the look and the kill.
    deadline = time.monotonic() + _PATIENCE
    while remaining := processes(slot, directory):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(remaining)} of {slot.name} survive SIGKILL")
        for pid in remaining:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap(remaining)
        time.sleep(0.05)


def _reap(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _unmount(directory: Path) -> None:
    for point in mounts(directory):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def _cgroups(slot: Slot) -> list[Path]:
    """One per controller (cgroup v1) or a single one (v2)."""
    candidates = [_CGROUPS / slot.name, *_CGROUPS.glob(f"*/{slot.name}")]
    return [path for path in candidates if path.is_dir()]


def _remove_cgroup(cgroup: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while cgroup.exists():
        for path in sorted([cgroup, *cgroup.rglob("*/")], key=lambda path: len(str(path)), reverse=True):
            with suppress(OSError):
                path.rmdir()
        if not cgroup.exists() or time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _shim_sockets(slot: Slot) -> Iterator[Path]:
    """containerd's shims put their sockets into a place that all engines share; each notes its own."""
    for note in slot.run.rglob("address"):
        with suppress(OSError):
            address = note.read_text().strip()
            if address.startswith("unix:///run/containerd/s/"):
                yield Path(address.removeprefix("unix://"))
