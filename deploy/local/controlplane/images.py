"""Writes container images as archives, which a Docker engine loads and containerd imports: no engine, no registry."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

# Debian's static busybox: a shell and `sleep` in one file, which needs nothing else in the image.
BUSYBOX = Path("/bin/busybox")
BUSYBOX_TAG = "workspace-operator/busybox:dev"
_APPLETS = ("cat", "chmod", "false", "id", "ls", "mkdir", "nc", "rm", "sh", "sleep", "true")
_EPOCH = "1970-01-01T00:00:00Z"


def write(archive: Path, tag: str, layer: Path, config: Mapping[str, object]) -> None:
    """An image of one layer, an uncompressed tar; the same input gives the same bytes.

    `config` has the fields of OCI's image configuration: Env, Entrypoint, User, Labels and so on. The format is that
    of `docker save`, the one that every engine and every containerd reads.
    """
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    machine = platform.machine()
    description = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "os": "linux",
        "created": _EPOCH,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": _EPOCH}],
    }
    encoded = json.dumps(description, sort_keys=True).encode()
    name = f"{hashlib.sha256(encoded).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, name, encoded)
        with layer.open("rb") as content:
            info = tarfile.TarInfo(f"{digest}/layer.tar")
            info.size = layer.stat().st_size
            tar.addfile(info, content)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def write_busybox(archive: Path) -> None:
    """A shell for tests, and a sleep that holds the namespaces of each pod."""
    layer = archive.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        info = tarfile.TarInfo("bin/busybox")
        info.mode = 0o755
        info.size = BUSYBOX.stat().st_size
        with BUSYBOX.open("rb") as content:
            tar.addfile(info, content)
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    write(archive, BUSYBOX_TAG, layer, {"Env": ["PATH=/bin"], "Entrypoint": ["sleep"], "Cmd": ["infinity"]})
    layer.unlink()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
