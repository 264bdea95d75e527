"""A real registry with a password on a free loopback port, from Debian's package, and images for it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import requests
from tests.backends import tiny_image

USER, PASSWORD = "tester", "registry-test-pw"
_HTPASSWD = "tester:$2y$05$3rSKtTs1Zg3jArBNaBmP4OD/Il.Bj2TfV.QrBPvCJDsEBApPW46Hu"
_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/images}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}
"""
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONTAINER = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry:
    """A running registry; stop it with :meth:`close`."""

    def __init__(self, directory: Path) -> None:
        program = _program()
        self.port = _free_port()
        (directory / "htpasswd").write_text(f"{_HTPASSWD}\n")
        (directory / "config.yml").write_text(_CONFIG.format(directory=directory, port=self.port))
        log = (directory / "log").open("wb")
        self._process = subprocess.Popen([program, "serve", str(directory / "config.yml")], stdout=log, stderr=log)
        log.close()
        self._session = requests.Session()
        self._session.auth = (USER, PASSWORD)
        self._session.trust_env = False
        self._url = f"http://127.0.0.1:{self.port}/v2/"
        self._wait()

    def push(self, name: str, tag: str, layers: int = 1, layer_size: int = 1024) -> None:
        """Store an image: the tiny root file system, and layers of noise on top of it."""
        tars = [tiny_image.rootfs(), *(_noise(f"noise-{number}", layer_size) for number in range(layers - 1))]
        blobs = [gzip.compress(tar, compresslevel=1) for tar in tars]
        config = {
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sleep", "3600"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(tar) for tar in tars]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._blob(name, _CONTAINER, json.dumps(config).encode()),
            "layers": [self._blob(name, _LAYER, blob) for blob in blobs],
        }
        answer = self._session.put(
            f"{self._url}{name}/manifests/{tag}",
            data=json.dumps(manifest),
            headers={"Content-Type": _MANIFEST},
            timeout=30,
        )
        answer.raise_for_status()

    def close(self) -> None:
        """Stop the registry."""
        self._session.close()
        self._process.terminate()
        self._process.wait(10)

    def _blob(self, name: str, media_type: str, content: bytes) -> dict[str, object]:
        begun = self._session.post(f"{self._url}{name}/blobs/uploads/", timeout=30)
        begun.raise_for_status()
        digest = _digest(content)
        location = begun.headers["Location"]
        done = self._session.put(
            f"{location}{'&' if '?' in location else '?'}digest={digest}",
            data=content,
            headers={"Content-Type": "application/octet-stream"},
            timeout=60,
        )
        done.raise_for_status()
        return {"mediaType": media_type, "size": len(content), "digest": digest}

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self._session.get(self._url, timeout=2).status_code == 200:
                    return
            except requests.ConnectionError:
                time.sleep(0.1)
        self.close()
        pytest.fail("the test registry did not start; see its log in the test's temporary directory")


def _program() -> str:
    if shutil.which("docker-registry") is None and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "docker-registry"], capture_output=True, check=False)
    found = shutil.which("docker-registry")
    if found is None:
        pytest.skip("needs a registry: apt-get install docker-registry")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _noise(name: str, size: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, io.BytesIO(os.urandom(size)))
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
