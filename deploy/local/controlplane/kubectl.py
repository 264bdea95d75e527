"""Runs kubectl against one kubeconfig; what every kind of cluster here has in common."""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from controlplane import kubeconfig


class ClusterError(Exception):
    """The cluster could not do what was asked; the message is meant for a person."""


class KubectlError(ClusterError):
    """kubectl ended with an error; the message is its own."""

    def __init__(self, arguments: Sequence[str], code: int, stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)} ended with {code}: {stderr.strip()}")
        self.code = code
        self.stderr = stderr


class Cluster(ABC):
    """A Kubernetes API that the demo and the tests can use, whoever runs it."""

    directory: Path

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""

    @property
    @abstractmethod
    def server(self) -> str:
        """The URL as seen from this machine."""

    @property
    @abstractmethod
    def ca_file(self) -> Path:
        """The certificate authority that the server's certificate is checked against."""

    @abstractmethod
    def client_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig that acts as this user in these groups."""

    @abstractmethod
    def _kubectl_binary(self) -> Path: ...

    def service_account_kubeconfig(
        self, namespace: str, name: str, duration: str = "24h", server: str | None = None
    ) -> Path:
        """A kubeconfig with a fresh token of this ServiceAccount, optionally under another server URL."""
        token = self.kubectl("create", "token", name, "-n", namespace, f"--duration={duration}").strip()
        path = self.directory / "kubeconfigs" / f"{namespace}.{name}.kubeconfig"
        return kubeconfig.write(path, server or self.server, self.ca_file.read_bytes(), kubeconfig.with_token(token))

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,
        timeout: float = 60,
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> str:
        """What kubectl printed; with check=False also what it complained about."""
        command = [
            str(self._kubectl_binary()),
            f"--kubeconfig={kubeconfig or self.kubeconfig}",
            # kubectl's own discovery cache is keyed by host and port; another cluster may get our port later.
            f"--cache-dir={self.directory / 'kubectl-cache'}",
            *arguments,
        ]
        result = subprocess.run(
            command,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            # A person's kubectl preferences must not change what a test sees.
            env={**os.environ, "KUBECTL_KUBERC": "false"},
            check=False,
        )
        if check and result.returncode != 0:
            raise KubectlError(arguments, result.returncode, result.stderr)
        return result.stdout if check else result.stdout + result.stderr

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
