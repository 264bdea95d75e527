"""moto's server as a process of its own, and the calls that the proxy makes to it. It stays as it was installed."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import aiohttp

from .errors import AwsError
from .xml import Element, parse

STARTUP = 60.0
SSM_NAME = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{}"
PASSED_ON = ("Authorization", "Content-Type", "X-Amz-Target", "X-Amz-Date", "X-Amz-Security-Token")


def images(region: str) -> dict[str, str]:
    """Architecture to the image that moto's public SSM parameter names, so that both ways of naming it agree."""
    spec = importlib.util.find_spec("moto")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "ssm/resources/ami-amazon-linux-latest" / f"{region}.json.gz"
    named = {each["Name"]: each["Value"] for each in json.loads(gzip.decompress(path.read_bytes()))}
    return {architecture: named[SSM_NAME.format(architecture)] for architecture in ("x86_64", "arm64")}


def _image(identifier: str, architecture: str) -> dict[str, object]:
    return {
        "ami_id": identifier,
        "name": f"al2023-ami-kernel-default-{architecture}",
        "architecture": architecture,
        "owner_id": "137112412989",
        "public": True,
        "virtualization_type": "hvm",
        "hypervisor": "xen",
        "root_device_name": "/dev/xvda",
        "root_device_type": "ebs",
        "state": "available",
        "description": "Amazon Linux 2023",
        "image_location": "amazon/al2023",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Moto:
    """Starts, asks and ends the server."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.images = images(region)
        self.port = _free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="moto-")
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._one_at_a_time = asyncio.Lock()  # moto's stores are not made for threads

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        known = Path(self._directory.name) / "images.json"
        known.write_text(json.dumps([_image(value, name) for name, value in self.images.items()]))
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AWS_")},
            "MOTO_AMIS_PATH": str(known),
            "MOTO_ENABLE_AMI_VALIDATION": "true",
            "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        with (Path(self._directory.name) / "moto.log").open("wb") as log:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300))
        deadline = time.monotonic() + STARTUP
        while not await self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"moto's server did not start:\n{self.log()[-2000:]}")
            await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def log(self) -> str:
        return (Path(self._directory.name) / "moto.log").read_text()

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._directory.cleanup()

    async def reset(self) -> None:
        assert self._session is not None
        async with self._one_at_a_time, self._session.post(f"{self.url}/moto-api/reset") as answer:
            await answer.read()

    async def send(self, headers: Mapping[str, str], body: bytes, path: str = "/") -> tuple[int, str, bytes]:
        """A request as it came, to moto: status, content type, body."""
        assert self._session is not None
        kept = {name: headers[name] for name in PASSED_ON if name in headers}
        async with self._one_at_a_time, self._session.post(f"{self.url}{path}", data=body, headers=kept) as answer:
            return answer.status, answer.content_type, await answer.read()

    async def ec2(self, region: str, action: str, params: Mapping[str, str]) -> Element:
        """A call of the proxy's own, or with the parameters of a client; raises moto's refusal."""
        scope = f"Credential=COUNTERPART/20260101/{region}/ec2/aws4_request"
        headers = {
            "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
        }
        form = urlencode({**params, "Action": action, "Version": "2016-11-15"}).encode()
        status, _, body = await self.send(headers, form)
        root = parse(body)
        if status != 200:
            raise AwsError(root.findtext(".//Code", "InternalError"), root.findtext(".//Message", ""), status)
        return root
