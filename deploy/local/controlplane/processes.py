"""Starts, watches and ends child processes so that none outlives its purpose."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]

# Runs in the child before the command: ask the kernel for SIGKILL when the parent dies (PR_SET_PDEATHSIG, 1),
# and leave at once if the parent died before we could ask.
_DIE_WITH_PARENT = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)\n"
    "os.getppid() == int(sys.argv[1]) or os._exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


def say(line: str) -> None:
    """The default way to tell a person what is going on."""
    print(line, flush=True)


@dataclass(frozen=True)
class Process:
    """A process by pid and start time, so that a reused pid is never taken for it."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    @property
    def alive(self) -> bool:
        child = _children.get(self)
        if child is not None:
            return child.poll() is None  # reaps it as well: not every init collects zombies
        return _start_time(self.pid) == self.started

    @property
    def exit_code(self) -> int | None:
        """Known only for our own children that have ended."""
        child = _children.get(self)
        return None if child is None else child.poll()

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def pause(self) -> None:
        """SIGSTOP; returns when every thread has stopped: the signal alone takes effect some time later."""
        self.send(signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while self.alive and set(_thread_states(self.pid)) - {"T", "Z", "X"}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} did not stop within 30 s of SIGSTOP")
            time.sleep(0.01)

    def wait(self, timeout: float) -> bool:
        """Whether it ended within the timeout."""
        deadline = time.monotonic() + timeout
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def end(self, grace: float = 5) -> None:
        """SIGTERM, then SIGKILL after the grace; returns when it is gone."""
        if grace > 0:
            self.send(signal.SIGTERM)
            if self.wait(grace):
                return
        self.send(signal.SIGKILL)
        if not self.wait(30):
            raise TimeoutError(f"process {self.pid} survived SIGKILL for 30 s")


def spawn(
    command: Sequence[str],
    log: Path,
    die_with_parent: bool,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Process:
    """Start a command in a session of its own (a Ctrl-C reaches only us, and we end it in order)."""

    def run() -> Process:
        line = list(command)
        if die_with_parent:
            line = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *line]
        with log.open("ab") as output:
            child = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=directory,
                start_new_session=True,
            )
        # A command that has ended already has no start time any more; its exit code is still to be had.
        process = Process.of(child.pid) or Process(child.pid, -1)
        _children[process] = child
        return process

    return _spawner().run(run)


def child_of(process: Process) -> Process | None:
    """The first child of the process's first thread, for programs like unshare and nsenter that only wait for it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return Process.of(int(pids[0])) if pids else None
    return None


def tail(log: Path, lines: int = 15) -> str:
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def free_port(address: str = "127.0.0.1") -> int:
    """A port that is free now; the caller must cope with someone else taking it first."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


class _Spawner:
    """Starts all children from one thread that lives as long as this process.

    The kernel counts the *thread* that forked as the parent: a child started from a worker thread would be
    killed when that thread ends.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Process], Future[Process]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="spawner", daemon=True).start()

    def run(self, job: Callable[[], Process]) -> Process:
        future: Future[Process] = Future()
        self._jobs.put((job, future))
        return future.result()

    def _work(self) -> None:
        while True:
            job, future = self._jobs.get()
            try:
                future.set_result(job())
            except BaseException as error:  # belongs to the caller of run()
                future.set_exception(error)


_children: dict[Process, subprocess.Popen[bytes]] = {}
_current: _Spawner | None = None


def _spawner() -> _Spawner:
    global _current
    # After a fork the thread exists only in the parent.
    if _current is None or _current.owner != os.getpid():
        _current = _Spawner()
    return _current


def _thread_states(pid: int) -> Iterator[str]:
    """The state letter of each thread (proc(5): R, S, D, T stopped, Z zombie, ...)."""
    for status in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield status.read_text().rpartition(")")[2].split()[0]


def _start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process started; None when there is none or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])
