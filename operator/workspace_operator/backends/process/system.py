"""What the Linux kernel knows about processes: identity, liveness, groups, locks. Imported by this package only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MARKER = "WORKSPACE_STATE"  # environment variable that names the incarnation's directory: who carries it is ours
OPERATOR = 0  # as the holder of a lock: an operator preparing or removing, so no process runs
_MARKER = f"{MARKER}=".encode()


@cache
def boot_id() -> str:
    """Identity of this boot; a pid of another boot means nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read(path: str, limit: int = 65536) -> bytes | None:
    """A small file's content, None when there is none. Twice as fast as pathlib, for listings."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Mark:
    """A process for all times: pid, start time and boot; and the port that it was given."""

    pid: int
    start: int
    boot: str
    port: int | None

    @classmethod
    def load(cls, path: str) -> Mark | None:
        """The mark in a pid file; None while it is not (completely) written."""
        fields = (read(path) or b"").decode(errors="replace").split(" ")
        if len(fields) != 4 or not fields[3].endswith("\n"):
            return None
        try:
            return cls(int(fields[0]), int(fields[1]), fields[2], int(fields[3]) or None)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Stat:
    """The part of /proc/PID/stat that matters here."""

    state: str
    parent: int
    group: int
    start: int


def stat(pid: int) -> Stat | None:
    """A process as the kernel shows it now; None when there is none."""
    try:
        raw = read(f"/proc/{pid}/stat")
    except ProcessLookupError:  # it ended between open and read
        return None
    if not raw:
        return None
    fields = raw[raw.rindex(b")") + 2 :].split()
    return Stat(fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[19]))


def alive(mark: Mark | None) -> Stat | None:
    """The marked process if it lives; a zombie does not."""
    if mark is None or mark.boot != boot_id():
        return None
    seen = stat(mark.pid)
    if seen is None or seen.start != mark.start or seen.state in "ZX":
        return None
    return seen


def runs(pid: int) -> bool:
    """Whether a process that was just found still executes."""
    seen = stat(pid)
    return seen is not None and seen.state not in "ZX"


def halted(pid: int) -> bool:
    """Whether a process executes nothing now: stopped or ended."""
    seen = stat(pid)
    return seen is None or seen.state in "TZX"


def exit_status(kind: int, pid_or_fd: int) -> int | None:
    """Reap an ended child (``os.P_PID`` or ``os.P_PIDFD``): its exit code, 128 + signal if it was killed.

    None when it is not our child (an adopted process), has not ended, or was reaped before.
    """
    try:
        result = os.waitid(kind, pid_or_fd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def reap(mark: Mark) -> int | None:
    """Reap the marked process if it is an ended child of ours; its exit code."""
    seen = stat(mark.pid)
    if seen is None or seen.start != mark.start or seen.parent != os.getpid():
        return None
    return exit_status(os.P_PID, mark.pid)


def signal_group(mark: Mark, number: signal.Signals) -> None:
    """Signal the process group of a main process that was just seen alive."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(mark.pid, number)


def group_remains(mark: Mark | None) -> bool:
    """Whether an ended main process left members of its group; its pid cannot be reused while they exist."""
    if mark is None or mark.boot != boot_id() or stat(mark.pid) is not None:
        return False
    try:
        os.killpg(mark.pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True


def carriers() -> dict[str, list[int]]:
    """Every process that carries a marker, by the incarnation directory that the marker names."""
    found: dict[str, list[int]] = {}
    own = os.getpid()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == own:
            continue
        try:
            environment = read(f"/proc/{entry.name}/environ", 1 << 20) or b""
        except OSError:  # it ended, or belongs to another user and so cannot be ours
            continue
        at = environment.find(_MARKER)
        if at > 0 and environment[at - 1] != 0:
            at = environment.find(b"\0" + _MARKER) + 1 or -1
        if at >= 0:
            end = environment.find(b"\0", at)
            value = environment[at + len(_MARKER) : end if end >= 0 else None]
            found.setdefault(os.fsdecode(value), []).append(int(entry.name))
    return found


class Census:
    """Scans of /proc, shared by all who ask while one is waited for: a burst of stops costs a few scans only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = float("-inf")
        self._found: dict[str, list[int]] = {}

    def take(self) -> dict[str, list[int]]:
        """Pids by the incarnation directory that their marker names, by a scan that began after this call."""
        asked = time.monotonic()
        with self._lock:
            if self._begun < asked:
                self._begun = time.monotonic()
                self._found = carriers()
            return self._found

    def of(self, directory: str) -> list[int]:
        """Pids that carry the marker of one incarnation."""
        return self.take().get(directory, [])


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal single processes, found by a census a moment ago."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def lock_held(path: str) -> bool:
    """Whether somebody holds the lock. Looking never disturbs another look, and waits out one that takes it briefly."""
    for attempt in range(4):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            if attempt < 3:
                time.sleep(0.002)
        finally:
            os.close(fd)
    return True


def take_lock(path: str, patience: float = 0.1) -> int | None:
    """Take the lock and return its descriptor, None if it stays held. Looks (``lock_held``) are waited out.

    Its text then says that an operator holds it for a moment, and no process.
    """
    deadline = time.monotonic() + patience
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Locked an inode that was removed meanwhile: it protects nothing, take the new file.
            if _same_file(fd, path):
                name_holder(fd, OPERATOR)
                return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                return None
            time.sleep(0.003)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def name_holder(lock: int, incarnation: int) -> None:
    """Say in the lock file whose lock it is; in one write of a fixed width, so that no reader sees a part."""
    os.pwrite(lock, f"{incarnation:>10}\n".encode(), 0)


def _same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), Path(path).stat())
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition that the kernel meets within moments (a signal's effect)."""
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.01)
    return True
