"""Inside the machine: the user data, and the program that it carries. The rig of the conformance suite boots it."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.backends import ec2_engine

from workspace_operator.api.ec2 import Ec2Backend, MachineType
from workspace_operator.backends.ec2 import boot, userdata
from workspace_operator.backends.protocol import ProvisionRequest, Template, WorkspaceRef
from workspace_operator.errors import BadRequest

CONFIG = Ec2Backend(
    region="eu-west-1",
    image="ami-12345678",
    subnets=("subnet-12345678",),
    security_groups=("sg-12345678",),
    machine_types=(MachineType(name="t3.small", cpu=2, memory="2Gi"),),
)
REF = WorkspaceRef("cluster", "uid", "team", "agent", "machines")
GRACE = timedelta(seconds=10)


def request(
    files: Mapping[str, bytes] | None = None, environment: Mapping[str, str] | None = None, **template: Any
) -> ProvisionRequest:
    made = Template(**{"image": "agent:1", "port": 8080, **template})
    return ProvisionRequest(REF, 1, "p", made, environment or {}, files or {})


def config_of(user_data: bytes) -> dict[str, Any]:
    return dict(json.loads(user_data.partition(b"\n")[2]))


# -- the user data -----------------------------------------------------------------------------------------------------


def test_equal_requests_give_equal_bytes() -> None:
    """I-08: so that asking again is the same request to EC2."""
    one = request({"b": b"2", "a": b"1"}, {"B": "2", "A": "1"})
    two = request({"a": b"1", "b": b"2"}, {"A": "1", "B": "2"})
    assert userdata.build(one, CONFIG, GRACE) == userdata.build(two, CONFIG, GRACE)


def test_it_is_a_cloud_config_whose_secrets_lie_in_memory_for_root_only() -> None:
    data = userdata.build(request({"token": b"secret"}), CONFIG, GRACE)
    assert data.startswith(b"#cloud-config\n")
    files = {each["path"]: each for each in config_of(data)["write_files"]}
    assert files[boot.DOCUMENT]["permissions"] == "0600"
    assert boot.DOCUMENT.startswith("/run/")
    others = [each["content"] for path, each in files.items() if path != boot.DOCUMENT]
    assert "c2VjcmV0" not in "".join(others)


def test_what_yaml_reads_is_what_was_meant() -> None:
    """cloud-init reads it as YAML, boot.py as JSON: both find the same, whatever characters a value has."""
    import yaml

    data = userdata.build(request(environment={"A": "äöü 🐍 \"'\\ \n\t#: {x}"}), CONFIG, GRACE)
    assert yaml.safe_load(data.decode()) == config_of(data)
    assert boot.read(data)["environment"]["A"] == "äöü 🐍 \"'\\ \n\t#: {x}"


def test_a_long_one_is_compressed_and_a_longer_one_refused() -> None:
    """EC2 takes 16 KiB."""
    long = userdata.build(request(environment={"A": "x" * 20000}), CONFIG, GRACE)
    assert (long[:2], len(long) < userdata.LIMIT) == (b"\x1f\x8b", True)
    assert boot.read(long)["environment"]["A"] == "x" * 20000
    assert gzip.decompress(long).startswith(b"#cloud-config")
    with pytest.raises(BadRequest, match=r"spec\.env"):
        userdata.build(request(environment={"A": random.Random(1).randbytes(12000).hex()}), CONFIG, GRACE)


def test_a_usual_one_leaves_room() -> None:
    """A token, a kubeconfig, two certificates and some variables."""
    files = {"token": b"t" * 1100, "ca.crt": random.Random(1).randbytes(1100), "kubeconfig": b"k" * 700}
    data = userdata.build(request(files, {f"NAME_{n}": "value" * 10 for n in range(20)}), CONFIG, GRACE)
    assert len(data) < userdata.LIMIT


# -- the program -------------------------------------------------------------------------------------------------------


def test_values_of_variables_are_in_no_command_line() -> None:
    """Anyone on the machine can read arguments."""
    words = boot.command(userdata.document(request(environment={"KEY": "s3cr3t"}), CONFIG, 10))
    assert "s3cr3t" not in " ".join(words)
    assert words[words.index("--env") + 1] == "KEY"


def test_the_command_line_keeps_the_container_in_its_place() -> None:
    template = {"command": ("/bin/agent", "--serve"), "args": ("one",), "mount_path": "/data", "memory": 2**30}
    words = boot.command(userdata.document(request({"token": b"t"}, **template), CONFIG, 7))
    text = " ".join(words)
    assert "--cap-drop ALL --security-opt no-new-privileges" in text
    assert "--stop-timeout 7 --memory 1073741824" in text
    assert "--publish 8080:8080" in text
    assert f":{boot.MOUNT}:ro" in text
    assert "target=/data" in text
    assert text.endswith("--entrypoint /bin/agent agent:1 --serve one")
    assert "host" not in words, "the host's network would reach the metadata service"


@pytest.fixture
def metadata() -> Iterator[dict[str, Any]]:
    """A metadata service of version 2 with exchangeable user data."""
    held: dict[str, Any] = {"data": b""}

    class Service(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.answer(b"session" if self.headers.get("X-aws-ec2-metadata-token-ttl-seconds") else b"")

        def do_GET(self) -> None:
            self.answer(held["data"] if self.headers.get("X-aws-ec2-metadata-token") == "session" else b"")

        def answer(self, body: bytes) -> None:
            self.send_response(200 if body else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    held["url"] = f"http://127.0.0.1:{server.server_address[1]}"
    yield held
    server.shutdown()
    thread.join()
    server.server_close()


class Machine:
    """A directory in which boot.py thinks it is at home."""

    def __init__(self, home: Path, metadata: dict[str, Any]) -> None:
        engine = home / "bin" / "docker"
        engine.parent.mkdir()
        engine.write_text(f'#!/bin/sh\nexec {sys.executable} {ec2_engine.__file__} "$@"\n')
        engine.chmod(0o755)
        self.state, self.console = home / "state", home / "console"
        self.environment = {
            "PATH": f"{engine.parent}:/usr/bin:/bin",
            "BOOT_METADATA": metadata["url"],
            "BOOT_STATE": str(self.state),
            "BOOT_DATA": str(home / "data"),
            "BOOT_CONSOLE": str(self.console),
            "BOOT_NO_DISK": "yes",
        }

    def boot(self, mode: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, boot.__file__, mode], env=self.environment)


def test_a_boot_runs_the_workload_and_tells_how_it_ended(metadata: dict[str, Any], tmp_path: Path) -> None:
    script = 'read t < "$WORKSPACE_IDENTITY/token"; echo "$GREETING ${#t}"; exit 4'
    told = request({"token": b"12345\n"}, {"GREETING": "hello"}, command=("/bin/sh", "-c", script))
    metadata["data"] = userdata.build(told, CONFIG, GRACE)
    machine = Machine(tmp_path, metadata)
    assert machine.boot("run").wait(20) == 4
    assert machine.console.read_text() == f"{boot.OUTPUT}hello 5\n{boot.ENDED}4\n"
    assert oct(machine.state.stat().st_mode)[-3:] == "700"
    assert oct((machine.state / "identity" / "token").stat().st_mode)[-3:] == "444"


def test_a_shutdown_is_handed_on_to_the_workload(metadata: dict[str, Any], tmp_path: Path) -> None:
    script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    metadata["data"] = userdata.build(request(command=("/bin/sh", "-c", script)), CONFIG, GRACE)
    machine = Machine(tmp_path, metadata)
    process = machine.boot("run")
    for _ in range(200):
        if machine.console.exists() and "ready" in machine.console.read_text():
            break
        threading.Event().wait(0.05)
    process.terminate()
    process.wait(20)
    assert machine.console.read_text().endswith(f"{boot.ENDED}0\n")


def test_a_refresh_replaces_the_files_beside_a_running_workload(metadata: dict[str, Any], tmp_path: Path) -> None:
    """After a hibernation the machine goes on with a revoked token until it reads the new user data."""
    machine = Machine(tmp_path, metadata)
    for token in (b"first", b"second"):
        metadata["data"] = userdata.build(request({"token": token}), CONFIG, GRACE)
        assert machine.boot("refresh").wait(20) == 0
        assert (machine.state / "identity" / "token").read_bytes() == token
