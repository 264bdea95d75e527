"""Operators that are born grown up: forked from a process that has imported everything, which else costs 1.5 s of CPU.

``python -m tests.crash.nursery`` reads one start per line from standard input, as JSON, and answers with a pid. What it
forks runs :mod:`operator_main` to its end, in a process of its own that kill -9 ends like any other.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from tests.support.operator import ROOT

_IMPORTED = (
    "tests.crash.operator_main",
    "workspace_operator.app",
    *(f"workspace_operator.backends.{name}" for name in ("docker", "ec2", "kubernetes", "process")),
)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Newborn:
    """One operator process; its pid cannot be mistaken for a later one's."""

    def __init__(self, pid: int, log: Path) -> None:
        self.log = log
        self._process = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        return not select.select([self._process], [], [], 0)[0]

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        if self.alive:
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
            select.select([self._process], [], [], 30)

    def close(self) -> None:
        self.kill()
        os.close(self._process)


class Nursery:
    """Used by one lane."""

    def __init__(self, kubeconfig: Path) -> None:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"],
            env=environment,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(self, log: Path, *arguments: str) -> Newborn:
        """A new operator process, whose output goes to a file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(log), arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery has ended"
        return Newborn(int(answer), log)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def serve() -> None:
    """Until standard input ends."""
    modules = [importlib.import_module(name) for name in _IMPORTED]
    assert threading.active_count() == 1, "a fork keeps one thread only"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    for line in sys.stdin:
        log, arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _live(modules[0], log, arguments)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _live(module: Any, log: str, arguments: list[str]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    output, nothing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, output, output)):
        os.dup2(source, target)
    code = 1
    try:
        os.chdir(Path(log).parent)
        code = module.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
