"""Where the control plane's binaries come from, and in which order."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane import binaries, gobuild
from controlplane.packages import PackageError
from controlplane.processes import Say

ALL = (*binaries.KUBERNETES, "etcd")


def program(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text(f"#!/bin/sh\necho {directory.name}\n")
        (directory / name).chmod(0o755)


def cached_etcd() -> Path:
    """The directory in which etcd was built before."""
    directory = binaries.cache_directory().parent / f"etcd-{binaries.ETCD_VERSION}"
    program(directory, "etcd")
    return directory


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has nothing and reaches nothing."""

    def unreachable(*_arguments: object, **_options: object) -> None:
        raise PackageError("no network in this test")

    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("KUBERNETES_RELEASE_URL", "http://127.0.0.1:1/release")
    monkeypatch.setattr(gobuild, "pip_install", unreachable)
    return tmp_path


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def __contains__(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_assets_come_before_the_cache(bare: Path, monkeypatch: pytest.MonkeyPatch, heard: Heard) -> None:
    program(bare / "assets", *ALL)
    program(binaries.cache_directory(), *binaries.KUBERNETES)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bare / "assets"))
    found = binaries.ensure(heard)
    assert {path.parent for path in vars(found).values()} == {bare / "assets"}
    assert heard.lines == []


def test_what_assets_lack_comes_from_the_cache(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare / "assets", "kube-apiserver", "etcd")
    program(binaries.cache_directory(), *binaries.KUBERNETES)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bare / "assets"))
    found = binaries.ensure()
    assert found.etcd == bare / "assets" / "etcd"
    assert found.kube_apiserver.parent == bare / "assets"
    assert found.kubectl.parent == binaries.cache_directory()


def test_what_is_on_path_does_not_come_before_the_cache(bare: Path) -> None:
    """Its version is anybody's."""
    program(binaries.cache_directory(), *binaries.KUBERNETES)
    cached_etcd()
    program(bare / "path", "etcd", "kubectl")
    found = binaries.ensure()
    assert found.etcd.parent == cached_etcd()
    assert found.kubectl.parent == binaries.cache_directory()


def test_kubectl_on_path_is_the_last_resort(bare: Path, monkeypatch: pytest.MonkeyPatch, heard: Heard) -> None:
    program(bare / "path", "kubectl")
    cached_etcd()
    program(binaries.cache_directory(), "kube-apiserver", "kube-controller-manager")
    found = binaries.ensure(heard)
    assert found.kubectl == bare / "path" / "kubectl"
    assert "no release download" in heard
    assert "no build from source" in heard


def builds(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Make every build succeed; returns what is built, one list for each build."""
    done: list[list[str]] = []

    def build(names: list[str], _module: gobuild.Module, cache: Path, _say: Say) -> dict[str, Path]:
        done.append(list(names))
        program(cache, *names)
        return {name: cache / name for name in names}

    monkeypatch.setattr(gobuild, "build", build)
    return done


def test_a_build_serves_where_the_release_is_out_of_reach(
    bare: Path, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    built = builds(monkeypatch)
    cached_etcd()
    assert binaries.ensure(heard).kube_apiserver.parent == binaries.cache_directory()
    assert [line for line in heard.lines if line.startswith("downloading")] == heard.lines[:1]
    assert built == [list(binaries.KUBERNETES)]


def test_with_nodes_everything_is_built_in_one_go(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = builds(monkeypatch)
    assert binaries.ensure_nodes().kubelet == binaries.cache_directory() / "kubelet"
    assert built == [[*binaries.KUBERNETES, *binaries.NODES]]
    cached_etcd()
    binaries.ensure()
    assert len(built) == 1


def test_what_nodes_need_is_built_only_for_nodes(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = builds(monkeypatch)
    program(binaries.cache_directory(), *binaries.KUBERNETES)
    cached_etcd()
    binaries.ensure()
    assert built == []
    assert binaries.ensure_kwok().parent.name == f"kwok-{binaries.KWOK_VERSION}"
    assert binaries.ensure_kwok().name == "kwok"
    assert built == [["kwok"]]


def test_one_sentence_lists_the_options_when_no_source_works(bare: Path, heard: Heard) -> None:
    with pytest.raises(binaries.BinariesMissing) as failure:
        binaries.ensure(heard)
    sentence = str(failure.value)
    assert "\n" not in sentence
    for option in ("KUBEBUILDER_ASSETS", "network", "Go 1.26", "CLUSTER=current", *ALL):
        assert option in sentence


@pytest.fixture
def release(tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A release server on this machine, with right checksums; returns the directory it serves."""
    served = tmp_path / "release"
    binary_directory = served / binaries.VERSION / "bin" / "linux" / binaries._architecture()
    program(binary_directory, *binaries.KUBERNETES)
    for name in binaries.KUBERNETES:
        digest = hashlib.sha256((binary_directory / name).read_bytes()).hexdigest()
        (binary_directory / f"{name}.sha256").write_text(digest)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, directory=str(served))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("KUBERNETES_RELEASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield binary_directory
        server.shutdown()
        thread.join()


def test_a_release_download_is_checked_and_cached(bare: Path, release: Path) -> None:
    cached_etcd()
    found = binaries.ensure()
    assert found.kube_apiserver == binaries.cache_directory() / "kube-apiserver"
    assert found.kube_apiserver.stat().st_mode & 0o777 == 0o755
    shutil.rmtree(release)
    assert binaries.ensure() == found


def test_a_wrong_checksum_is_refused(bare: Path, release: Path, heard: Heard) -> None:
    (release / "kube-apiserver.sha256").write_text("0" * 64)
    cached_etcd()
    with pytest.raises(binaries.BinariesMissing):
        binaries.ensure(heard)
    assert "checksum mismatch" in heard
    assert [path.name for path in binaries.cache_directory().iterdir() if path.name != ".lock"] == []


def test_a_download_cut_short_leaves_no_binary(bare: Path, release: Path, heard: Heard) -> None:
    (release / "kubectl").write_bytes(b"half")
    cached_etcd()
    with pytest.raises(binaries.BinariesMissing):
        binaries.ensure(heard)
    assert not (binaries.cache_directory() / "kubectl").exists()


@pytest.mark.parametrize(
    ("module", "requirement"),
    [
        (gobuild.kubernetes(binaries.VERSION), f"require k8s.io/kubernetes {binaries.VERSION}\n"),
        (
            gobuild.helm(binaries.HELM_VERSION, binaries.VERSION),
            f"require helm.sh/helm/v3 {binaries.HELM_VERSION}\n",
        ),
        (gobuild.etcd(binaries.ETCD_VERSION), f"require go.etcd.io/etcd/server/v3 {binaries.ETCD_VERSION}\n"),
        (gobuild.kwok(binaries.KWOK_VERSION), f"require sigs.k8s.io/kwok {binaries.KWOK_VERSION}\n"),
    ],
)
def test_a_build_is_pinned_to_the_version_that_is_asked_for(module: gobuild.Module, requirement: str) -> None:
    assert requirement in (module.workspace / "go.mod").read_text()
    assert (module.workspace / "go.sum").exists()
