"""Offers a Docker engine: the one that runs already, else a private one that leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import docker
import docker.errors
import requests.exceptions

from controlplane import ground, leftovers, network
from controlplane.ground import GroundError
from controlplane.network import Slot
from controlplane.packages import PackageError, apt_install, apt_obstacle, apt_offers
from controlplane.processes import Process, Say, say, spawn, tail

DEFAULT_SOCKET = Path("/var/run/docker.sock")
_READY_TIMEOUT = 60.0
_PRIVATE = "a private Docker engine"


class EngineError(Exception):
    """No engine could be had, or it did not do as told; the message is meant for a person."""


class DockerEngine:
    """The running Docker engine, or a private one under a directory.

    A private engine changes no firewall rule and no kernel setting, so several can run beside each other and
    beside the machine's own: containers reach each other, the host and published ports, but not the outside.
    """

    def __init__(
        self, directory: Path, *, always_private: bool = False, detached: bool = False, say: Say = say
    ) -> None:
        self.directory = directory.absolute()
        self._always_private = always_private
        self._detached = detached
        self._say = say
        self._shared_host: str | None = None
        self._slot = network.held_by(self.directory)
        self._process = self._known_process()

    # What it is

    @property
    def private(self) -> bool:
        return self._slot is not None

    @property
    def host(self) -> str:
        """For DOCKER_HOST and docker.DockerClient(base_url=...)."""
        if self._slot is not None:
            return f"unix://{self._slot.run}/docker.sock"
        if self._shared_host is not None:
            return self._shared_host
        raise EngineError("the engine is not started")

    @property
    def gateway(self) -> str:
        """The address under which containers of a private engine reach this machine."""
        return self._private_slot.host

    @property
    def process(self) -> Process | None:
        return self._process

    @property
    def log(self) -> Path:
        return self.directory / "dockerd.log"

    def responds(self, timeout: float = 5) -> bool:
        return _responds(self.host, timeout)

    @classmethod
    def available(cls, always_private: bool = False) -> str | None:
        """Why no engine can be had on this machine, or None. May refresh apt's lists, installs nothing."""
        if not always_private and running_engine() is not None:
            return None
        obstacle = ground.no_privileges(_PRIVATE)
        if obstacle is not None or not _missing_packages():
            return obstacle
        obstacle = apt_obstacle()
        if obstacle is not None:
            return f"dockerd is not installed and {obstacle}"
        return None if apt_offers("docker.io") else "dockerd is not installed and apt cannot reach docker.io"

    # Its life

    def start(self) -> None:
        """Find or start it; a failure or Ctrl-C leaves nothing behind."""
        if self._process is not None and self._process.alive:
            raise EngineError(f"an engine runs in {self.directory} already; stop it first")
        if not self._always_private:
            self._shared_host = running_engine()
        if self._shared_host is not None:
            self._say(f"using the running Docker engine at {self._shared_host}")
            return
        self._install()
        self._prepare()
        try:
            self.start_process()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End a private engine with all its containers and data; a shared one is left alone."""
        self._shared_host = None
        ground.give_back(self.directory, self._slot)
        self._slot = None
        if self._process is not None:
            self._process.end(grace=0)
            self._process = None

    def restart(self) -> None:
        """An orderly restart: containers are stopped, and stay so unless their restart policy says more."""
        self._running_process.end(grace=20)
        self.start_process()

    def kill_process(self) -> None:
        """The engine dies as in a crash; start_process() brings it back."""
        self._running_process.end(grace=0)

    def pause_process(self) -> None:
        """From now on requests are accepted by the kernel and never answered."""
        self._running_process.pause()

    def continue_process(self) -> None:
        self._running_process.send(signal.SIGCONT)

    def start_process(self) -> None:
        """Start dockerd on the directory's data and wait until it answers."""
        slot = self._private_slot
        self._say(f"starting a private Docker engine on bridge {slot.name}")
        begin = time.monotonic()
        leftovers.forget_dead(slot)
        self._process = spawn(
            self._command(slot),
            self.log,
            die_with_parent=not self._detached,
            environment={"PATH": network.search_path()},
        )
        owners = [self._process]
        if not self._detached and (myself := Process.of(os.getpid())) is not None:
            owners.append(myself)  # while we live, the slot is ours, also between kill_process() and start_process()
        slot.write_owner(self.directory, owners)
        while not _responds(self.host, 2):
            if not self._process.alive:
                raise EngineError(f"dockerd ended while starting; its log ends:\n{tail(self.log)}")
            if time.monotonic() > begin + _READY_TIMEOUT:
                raise EngineError(f"dockerd not ready after {_READY_TIMEOUT:.0f} s:\n{tail(self.log)}")
            time.sleep(0.1)
        self._say(f"Docker engine ready at {self.host} after {time.monotonic() - begin:.1f} s")

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

    # How

    @property
    def _private_slot(self) -> Slot:
        if self._slot is None:
            raise EngineError("this is not a private engine; it is not ours to control")
        return self._slot

    @property
    def _running_process(self) -> Process:
        if self._slot is None or self._process is None:
            raise EngineError("this is not a private engine; it is not ours to control")
        return self._process

    def _known_process(self) -> Process | None:
        processes = self._slot.read_owner()[1] if self._slot is not None else []
        return processes[0] if processes else None

    def _install(self) -> None:
        obstacle = ground.no_privileges(_PRIVATE)
        if obstacle is not None:
            raise EngineError(f"no Docker engine runs, and a private one cannot be started: {obstacle}")
        packages = _missing_packages()
        if packages:
            try:
                apt_install(packages, self._say)
            except PackageError as error:
                raise EngineError(f"no Docker engine runs, and none could be installed: {error}") from error

    def _prepare(self) -> None:
        try:
            self._slot = ground.take(self.directory)
        except GroundError as error:
            raise EngineError(f"{_PRIVATE} cannot be started: {error}") from error

    def _configuration(self, dockerd: str) -> Path:
        """Our own, so that the machine's daemon.json neither applies nor collides with our flags."""
        version = subprocess.run([dockerd, "--version"], capture_output=True, text=True, check=True).stdout
        # Up to 20.10 the key behind an engine's ID is shared by the whole machine; later ones refuse the setting.
        old = re.search(r"version (1\d|20)\.", version) is not None
        content = {"deprecated-key-path": str(self.directory / "key.json")} if old else {}
        path = self.directory / "daemon.json"
        path.write_text(json.dumps(content))
        return path

    def _command(self, slot: Slot) -> list[str]:
        dockerd = shutil.which("dockerd", path=network.search_path())
        if dockerd is None:
            raise EngineError("dockerd is not installed")
        return [
            dockerd,
            f"--config-file={self._configuration(dockerd)}",
            f"--host={self.host}",
            f"--data-root={self.directory / 'data'}",
            f"--exec-root={slot.run / 'exec'}",
            f"--pidfile={slot.run / 'docker.pid'}",
            f"--bridge={slot.name}",
            f"--default-address-pool=base={slot.pool},size=26",
            f"--cgroup-parent=/{slot.name}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            # Every engine flushes the one DOCKER chain of the machine when it starts; ours must not touch it.
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "--shutdown-timeout=2",
            "--log-level=warn",
        ]


def running_engine() -> str | None:
    """The host URL of an engine that answers: the one DOCKER_HOST names, else the machine's own."""
    host = os.environ.get("DOCKER_HOST")
    if host:
        return host if _responds(host, 5) else None
    default = f"unix://{DEFAULT_SOCKET}"
    return default if DEFAULT_SOCKET.is_socket() and _responds(default, 5) else None


def _responds(host: str, timeout: float) -> bool:
    if host.startswith("unix://"):
        return _socket_responds(host.removeprefix("unix://"), timeout)
    with suppress(docker.errors.DockerException, requests.exceptions.RequestException, OSError):
        # from_env knows DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.
        client = docker.from_env(
            version="1.24", timeout=int(timeout) or 1, environment={**os.environ, "DOCKER_HOST": host}
        )
        try:
            return bool(client.ping())
        finally:
            client.close()
    return False


def _socket_responds(path: str, timeout: float) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return connection.recv(64).split()[1:2] == [b"200"]
    return False


def _missing_packages() -> list[str]:
    """Debian packages of what is not there. AppArmor's parser only where the kernel enforces AppArmor."""
    apparmor = Path("/sys/module/apparmor/parameters/enabled")
    needed = {"dockerd": "docker.io", "ip": "iproute2"}
    if apparmor.exists() and apparmor.read_text().strip() == "Y":
        needed["apparmor_parser"] = "apparmor"
    return [package for program, package in needed.items() if shutil.which(program, path=network.search_path()) is None]
