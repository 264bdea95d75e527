"""Installs what the distribution or the Python package index offers; a failure is one readable sentence."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from controlplane.processes import Say

_POLICY = Path("/usr/sbin/policy-rc.d")
_APT = (
    "apt-get",
    "-qq",
    "-o=Acquire::http::Timeout=15",
    "-o=Acquire::Retries=1",
    "-o=DPkg::Lock::Timeout=300",
)


class PackageError(Exception):
    """A package could not be installed; the message says why."""


def apt_obstacle() -> str | None:
    """Why apt cannot be used here at all, or None."""
    if shutil.which("apt-get") is None:
        return "this machine has no apt-get"
    if os.geteuid() != 0:
        return "apt-get needs root"
    return None


def apt_offers(package: str) -> bool:
    """Whether apt could install the package, after refreshing its lists if need be."""
    if apt_obstacle() is not None:
        return False
    simulate = ("install", "--simulate", "--no-install-recommends", package)
    if _apt(*simulate) is None:
        return True
    return _apt("update") is None and _apt(*simulate) is None


def apt_install(packages: Sequence[str], say: Say) -> None:
    """Install with apt, without starting any service that the packages bring."""
    obstacle = apt_obstacle()
    if obstacle is not None:
        raise PackageError(obstacle)
    say(f"installing {' '.join(packages)} with apt-get")
    install = ("install", "--yes", "--no-install-recommends", *packages)
    with _no_services():
        if _apt(*install) is None:
            return
        say("refreshing the package lists with apt-get update")
        failure = _apt("update") or _apt(*install)
    if failure is not None:
        raise PackageError(f"apt-get could not install {' '.join(packages)}: {failure}")


def apt_unpack(package: str, target: Path, say: Say) -> None:
    """Put a package's files into a directory of its own: nothing is installed, no script of it runs."""
    say(f"fetching {package} with apt-get")
    with tempfile.TemporaryDirectory() as scratch:
        failure = _apt("download", package, directory=Path(scratch))
        if failure is not None and apt_obstacle() is None:
            say("refreshing the package lists with apt-get update")
            failure = _apt("update") or _apt("download", package, directory=Path(scratch))
        for archive in Path(scratch).glob("*.deb"):
            failure = failure or _run(["dpkg-deb", "--extract", str(archive), str(target)], timeout=300)
    if failure is not None:
        raise PackageError(f"{package} could not be fetched: {failure}")


def pip_install(requirement: str, target: Path, say: Say) -> None:
    """Put one Python package, without its dependencies, into a directory of its own."""
    say(f"installing {requirement} from the Python package index into {target}")
    arguments = ["install", "--quiet", "--no-deps", "--target", str(target), requirement]
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    elif importlib.util.find_spec("uv") is not None:
        command = [sys.executable, "-m", "uv", "pip", *arguments]
    else:
        raise PackageError("neither pip nor uv is installed for this Python")
    failure = _run(command, timeout=600)
    if failure is not None:
        raise PackageError(f"{requirement} could not be installed: {failure}")


def _apt(*arguments: str, directory: Path | None = None) -> str | None:
    return _run([*_APT, *arguments], timeout=900, directory=directory)


def _run(command: Sequence[str], timeout: float, directory: Path | None = None) -> str | None:
    """The last line of what went wrong, or None."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, cwd=directory, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end after {timeout:.0f} s"
    except FileNotFoundError:
        return f"this machine has no {command[0]}"
    if result.returncode == 0:
        return None
    lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit code {result.returncode}"


@contextmanager
def _no_services() -> Iterator[None]:
    """Tell Debian's package scripts not to start services: we start our own, on our own ports and sockets."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
