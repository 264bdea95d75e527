"""A small image for tests, made of a static busybox without any registry."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

TAG = "workspace-operator-tests/tiny:1"
LINKED_TAG = "workspace-operator-tests/tiny:linked"  # /var/run is a link, as in most real images
COMMANDS = ("sh", "sleep", "cat", "ls", "id", "nc", "echo", "touch", "stat", "kill")


def ensure(client: Any, linked: bool = False) -> str:
    """Load the image into the engine unless it is there; returns its name. ``client`` is either of the SDK's."""
    api = getattr(client, "api", client)
    tag = LINKED_TAG if linked else TAG
    if not api.images(name=tag):
        repository, version = tag.split(":")
        api.import_image_from_data(
            rootfs(linked),
            repository=repository,
            tag=version,
            changes=['ENTRYPOINT ["/bin/sh", "-c"]', 'CMD ["echo from-the-image; sleep 3600"]'],
        )
    return tag


def rootfs(linked: bool = False) -> bytes:
    """The image's file system as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, mode in {"bin": 0o755, "data": 0o755, "tmp": 0o1777, "var": 0o755, "run": 0o755}.items():
            archive.addfile(_entry(name, tarfile.DIRTYPE, mode))
        content = _busybox().read_bytes()
        program = _entry("bin/busybox", tarfile.REGTYPE, 0o755)
        program.size = len(content)
        archive.addfile(program, io.BytesIO(content))
        links = {f"bin/{command}": "busybox" for command in COMMANDS}
        if linked:
            links["var/run"] = "/run"
        for name, target in links.items():
            link = _entry(name, tarfile.SYMTYPE, 0o777)
            link.linkname = target
            archive.addfile(link)
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _busybox() -> Path:
    path = Path("/bin/busybox")
    if not _is_static(path) and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "busybox-static"], capture_output=True, check=False)
    if not _is_static(path):
        pytest.skip("needs a static busybox: apt-get install busybox-static")
    return path


def _is_static(path: Path) -> bool:
    """Whether a 64-bit ELF program names no dynamic linker (it has no program header of type PT_INTERP)."""
    if not path.exists():
        return False
    content = path.read_bytes()
    start, size, count = struct.unpack_from("<Q", content, 32)[0], *struct.unpack_from("<HH", content, 54)
    kinds = [struct.unpack_from("<I", content, start + number * size)[0] for number in range(count)]
    return 3 not in kinds
