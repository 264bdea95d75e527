"""Finds Kubernetes' programs, etcd, kwok and helm, and fetches or builds what is missing."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from controlplane import gobuild
from controlplane.packages import PackageError, apt_unpack
from controlplane.processes import Say, say

VERSION = "v1.36.3"
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kubectl")
# What a cluster with nodes needs in addition.
NODES = ("kube-scheduler", "kubelet", "kube-proxy")
# The distribution's 3.4 cannot tell the API server how far it has got: each consistent list would then be read from
# etcd, as on no cluster of today. Kubernetes names the minor version that it is tested with.
ETCD_VERSION = "v3.6.16"
KWOK_VERSION = "v0.8.0"
HELM_VERSION = "v3.22.0"
_CONNECT_TIMEOUT = 5.0
_OPTIONS = (
    "set KUBEBUILDER_ASSETS to a directory that has them, allow this machine the network (release downloads, "
    "or a package mirror and the Go module proxy), install Go 1.26 or newer, or use an existing cluster with "
    "CLUSTER=current"
)

Found = dict[str, Path]


class _Answer(Protocol):
    """The part of an HTTP answer that is used here."""

    def read(self, amount: int, /) -> bytes: ...


# Given the names still wanted, a source returns those it has; it never raises for "not here".
Source = Callable[[Sequence[str], Say], Found]


class BinariesMissing(Exception):
    """No source had them; the message lists what a person can do."""


@dataclass(frozen=True)
class Binaries:
    """Paths of everything a local control plane needs."""

    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path
    etcd: Path


@dataclass(frozen=True)
class NodeBinaries:
    """Paths of Kubernetes' own programs that a cluster with nodes needs in addition."""

    kube_scheduler: Path
    kubelet: Path
    kube_proxy: Path


def ensure(say: Say = say) -> Binaries:
    """Find every binary; fetch or build the missing ones, at most once per machine."""
    found = _kubernetes(KUBERNETES, say)
    found |= _find_built("etcd", gobuild.etcd(ETCD_VERSION), say)
    _require([*KUBERNETES, "etcd"], found)
    return Binaries(found["kube-apiserver"], found["kube-controller-manager"], found["kubectl"], found["etcd"])


def ensure_nodes(say: Say = say) -> NodeBinaries:
    """Also what a cluster with nodes needs; what must be built is built in one go, together with the rest."""
    found = _kubernetes((*KUBERNETES, *NODES), say)
    _require(NODES, found)
    return NodeBinaries(found["kube-scheduler"], found["kubelet"], found["kube-proxy"])


def ensure_kwok(say: Say = say) -> Path:
    """The program that plays fake nodes."""
    return ensure_built("kwok", gobuild.kwok(KWOK_VERSION), say)


def ensure_helm(say: Say = say) -> Path:
    """Helm in the one version that the chart is tested with."""
    return ensure_built("helm", gobuild.helm(HELM_VERSION, VERSION), say)


def ensure_built(name: str, module: gobuild.Module, say: Say = say) -> Path:
    """A program that is always built, because its releases, if any, come without a checksum beside them."""
    found = _find_built(name, module, say)
    _require([name], found)
    return found[name]


def _find_built(name: str, module: gobuild.Module, say: Say) -> Found:
    cache = _cache() / f"{name}-{module.version}"
    found = search([name], (from_assets, lambda names, _say: _in(cache, names)), say)
    if not found:
        with _locked(cache, say):
            found = _in(cache, [name]) or _built([name], module, cache, say)
    return found


def ensure_prometheus(say: Say = say) -> Found:
    """``prometheus`` and ``promtool`` for the tests of deploy/monitoring; the package is unpacked, not installed."""
    names, unpacked = ("prometheus", "promtool"), _cache() / "prometheus"
    found = search(names, (from_assets, from_path, lambda wanted, _say: _in(unpacked / "usr/bin", wanted)), say)
    if _missing(names, found):
        with _locked(unpacked, say):
            found = _in(unpacked / "usr/bin", names)
            if _missing(names, found):
                apt_unpack("prometheus", unpacked, say)
                found = _in(unpacked / "usr/bin", names)
    _require(names, found)
    return found


def _kubernetes(names: Sequence[str], say: Say) -> Found:
    found = search(names, (from_assets, from_cache), say)
    wanted = _missing(names, found)
    if wanted:
        with _locked(cache_directory(), say):
            # Another process may have built them while this one waited for the lock.
            found |= search(wanted, (from_cache, from_release, from_build, kubectl_from_path), say)
    return found


def _require(names: Sequence[str], found: Found) -> None:
    missing = _missing(names, found)
    if missing:
        raise BinariesMissing(f"cannot find or make {', '.join(missing)}: {_OPTIONS}")


def find_kubectl() -> Path:
    """A kubectl for an existing cluster: the user's own first, which knows their login plugins."""
    found = search(["kubectl"], (from_path, from_assets, from_cache), say)
    if not found:
        raise BinariesMissing("kubectl is not on PATH; CLUSTER=current needs it")
    return found["kubectl"]


def search(names: Sequence[str], sources: Sequence[Source], say: Say) -> Found:
    """Ask the sources in order; the first that has a binary decides."""
    found: Found = {}
    for source in sources:
        wanted = _missing(names, found)
        if not wanted:
            break
        found |= source(wanted, say)
    return found


def cache_directory() -> Path:
    return _cache() / f"kubernetes-{VERSION}"


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "workspace-operator"


def from_assets(names: Sequence[str], _say: Say) -> Found:
    directory = os.environ.get("KUBEBUILDER_ASSETS")
    return _in(Path(directory), names) if directory else {}


def from_cache(names: Sequence[str], _say: Say) -> Found:
    return _in(cache_directory(), names)


def from_path(names: Sequence[str], _say: Say) -> Found:
    return {name: Path(path) for name in names if (path := shutil.which(name)) is not None}


def kubectl_from_path(names: Sequence[str], say: Say) -> Found:
    """The last resort: a kubectl of another version mostly works."""
    return from_path([name for name in names if name == "kubectl"], say)


def from_release(names: Sequence[str], say: Say) -> Found:
    """Official downloads, each checked against its published SHA-256."""
    base = os.environ.get("KUBERNETES_RELEASE_URL", "https://dl.k8s.io/release").rstrip("/")
    found: Found = {}
    for name in names:
        url = f"{base}/{VERSION}/bin/linux/{_architecture()}/{name}"
        say(f"downloading {url}")
        try:
            found[name] = _download(url, cache_directory() / name)
        except (OSError, ValueError) as error:
            # The others come from the same place, so one failure decides for all.
            say(f"no release download ({error}); trying the next source")
            break
    return found


def from_build(names: Sequence[str], say: Say) -> Found:
    return _built(names, gobuild.kubernetes(VERSION), cache_directory(), say)


def _built(names: Sequence[str], module: gobuild.Module, cache: Path, say: Say) -> Found:
    try:
        return gobuild.build(names, module, cache, say)
    except (gobuild.BuildError, PackageError, OSError) as error:
        say(f"no build from source: {error}")
        return {}


def _missing(names: Sequence[str], found: Found) -> list[str]:
    return [name for name in names if name not in found]


def _in(directory: Path, names: Sequence[str]) -> Found:
    paths = {name: directory.expanduser() / name for name in names}
    return {name: path for name, path in paths.items() if path.is_file() and os.access(path, os.X_OK)}


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _download(url: str, target: Path) -> Path:
    """Download next to the target and rename: a half-written or wrong file never has the target's name."""
    expected = _fetch(f"{url}.sha256").decode().split()[0]
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}-{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with _open(url) as answer, staging.open("wb") as file:
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != expected:
            raise ValueError(f"checksum mismatch for {url}: {digest.hexdigest()} is not {expected}")
        staging.chmod(0o755)
        return staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)


def _fetch(url: str) -> bytes:
    with _open(url) as answer:
        content = answer.read(4096)
        if not content.split():
            raise ValueError(f"{url} is empty")
        return content


@contextmanager
def _open(url: str) -> Iterator[_Answer]:
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"{url} is neither http nor https")
    with urllib.request.urlopen(url, timeout=_CONNECT_TIMEOUT) as answer:  # noqa: S310 (checked above)
        yield answer


@contextmanager
def _locked(directory: Path, say: Say) -> Iterator[None]:
    """One process at a time: two builds at once would take twice as long and gain nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is preparing the binaries; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
