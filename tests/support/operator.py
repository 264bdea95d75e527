"""The operator as a process of its own, with the rights of deploy/base and nothing more."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from controlplane.kubectl import Cluster

ROOT = Path(__file__).resolve().parents[2]
STARTUP = 30.0


class Operator:
    """Starts, kills and asks one operator process."""

    def __init__(
        self,
        kubeconfig: Path,
        directory: Path,
        *,
        lease: str = "workspace-operator",
        module: str = "workspace_operator",
        command: tuple[str, ...] = ("run",),
    ) -> None:
        self._kubeconfig, self._directory, self._lease = kubeconfig, directory, lease
        self._module, self._command = module, command
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.address = ""

    @property
    def log(self) -> Path:
        return self._directory / f"operator-{self._starts}.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> Self:
        """Start it; with ``wait``, until it leads and has listed everything."""
        self._starts += 1
        self.address = ""  # of the one before, if that ended by itself
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the process backend's `python3`
            "KUBECONFIG": str(self._kubeconfig),
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
        }
        arguments = [
            *(sys.executable, "-m", self._module, *self._command),
            *("--listen-host", "127.0.0.1", "--listen-port", "0", "--log-level", "INFO"),
            *("--namespace", "workspace-operator-system", "--lease", self._lease),
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log, cwd=self._directory)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Until ``/readyz`` answers 200."""
        deadline = time.monotonic() + STARTUP
        while time.monotonic() < deadline:
            assert self.alive, f"the operator ended:\n{self.tail()}"
            if self.get("/readyz")[0] == 200:
                return
            time.sleep(0.05)
        raise AssertionError(f"the operator is not ready:\n{self.tail()}")

    def get(self, path: str) -> tuple[int, str]:
        """GET a path of the operator's own server: status (0: none) and body."""
        if not self.address:
            found = re.search(r"metrics on (http://[\w.:]+)", self.log.read_text(errors="replace"))
            if found is None:
                return 0, ""
            self.address = found[1]
        try:
            with urllib.request.urlopen(self.address + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric that carry these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith((name + "{", name + " ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def all_logs(self) -> str:
        return "".join(file.read_text(errors="replace") for file in sorted(self._directory.glob("operator-*.log")))

    def _end(self, number: signal.Signals) -> int:
        self.address = ""
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return self._process.wait(30)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: object) -> None:
        if self.alive:
            self.stop()


def uninstall(cluster: Cluster, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`workspace-operator uninstall` as a person runs it: from outside, with an administrator's kubeconfig."""
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": str(ROOT / "operator")}
    lease = ("--namespace", "workspace-operator-system")
    command = [sys.executable, "-m", "workspace_operator", "uninstall", *lease, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
