"""The private Docker engine works, obeys, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from controlplane import binaries, engine, leftovers, network
from controlplane.engine import DockerEngine, EngineError
from controlplane.network import Slot

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="a private Docker engine needs root"),
]
SOURCE = Path(engine.__file__).resolve().parents[1]
IMAGE = "kubectl:test"


def quiet(_line: str) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def needs_an_engine() -> None:
    reason = DockerEngine.available(always_private=True)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[DockerEngine]:
    with DockerEngine(tmp_path / "engine", always_private=True, say=quiet) as engine:
        yield engine


def client(engine: DockerEngine, timeout: float = 30) -> Any:
    return docker.DockerClient(base_url=engine.host, timeout=timeout)


def import_image(docker_client: Any) -> None:
    """kubectl is the one static binary that is surely here; its proxy is a server that runs until it is stopped."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(binaries.ensure(quiet).kubectl, "kubectl")
    docker_client.api.import_image_from_data(archive.getvalue(), repository="kubectl", tag="test")


def run_server(docker_client: Any) -> Any:
    """A container that listens on a port published to this machine's loopback."""
    command = ["/kubectl", "proxy", "--server=http://127.0.0.1:1", "--address=0.0.0.0", "--port=8001"]
    container = docker_client.containers.run(IMAGE, command, detach=True, ports={"8001/tcp": ("127.0.0.1", None)})
    container.reload()
    return container


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(4) == b"HTTP"
    except OSError:
        return False


def traces(slot: Slot, directory: Path) -> list[str]:
    """Whatever of an engine is still on this machine."""
    return [
        *(f"process {pid}" for pid in leftovers.processes(slot, directory)),
        *(f"mount {point}" for point in leftovers.mounts(directory) + leftovers.mounts(slot.run)),
        *(f"bridge {name}" for name in network.bridges(slot)),
        *(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{slot.name}")),
        *(str(path) for path in (slot.run, directory) if path.exists()),
    ]


def test_it_runs_containers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    private = DockerEngine(tmp_path / "engine", always_private=True, say=quiet)
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    private.start()
    try:
        slot = private._private_slot
        docker_client = client(private)
        import_image(docker_client)
        docker_client.networks.create("extra")
        docker_client.volumes.create("data")
        container = run_server(docker_client)
        port = int(container.ports["8001/tcp"][0]["HostPort"])
        deadline = time.monotonic() + 15
        while not answers(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert answers(port)
        assert len(network.bridges(slot)) == 2
        assert len(traces(slot, private.directory)) > 5
        docker_client.close()
    finally:
        private.stop()
    assert traces(slot, private.directory) == []
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forwarding


def test_two_run_side_by_side(private: DockerEngine, tmp_path: Path) -> None:
    with DockerEngine(tmp_path / "second", always_private=True, say=quiet) as second:
        assert second.host != private.host
        assert second.gateway != private.gateway
        ids = set()
        for one in (private, second):
            docker_client = client(one)
            ids.add(docker_client.info()["ID"])
            docker_client.close()
        assert len(ids) == 2
    assert private.responds()


def test_a_paused_engine_does_not_answer_and_continues(private: DockerEngine) -> None:
    private.pause_process()
    assert not private.responds(timeout=1)
    private.continue_process()
    assert private.responds()


def test_data_survives_a_crash_and_a_restart(private: DockerEngine) -> None:
    docker_client = client(private)
    docker_client.volumes.create("kept")
    private.kill_process()
    assert not private.responds(timeout=1)
    private.start_process()
    assert docker_client.volumes.get("kept").name == "kept"
    private.restart()
    assert docker_client.volumes.get("kept").name == "kept"
    docker_client.close()


def test_a_paused_engine_can_be_stopped(tmp_path: Path) -> None:
    private = DockerEngine(tmp_path / "engine", always_private=True, say=quiet)
    private.start()
    slot = private._private_slot
    private.pause_process()
    private.stop()
    assert traces(slot, private.directory) == []


def test_a_running_engine_is_used_and_left_alone(
    private: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", private.host)
    with DockerEngine(tmp_path / "shared", say=quiet) as shared:
        assert shared.host == private.host
        assert not shared.private
        with pytest.raises(EngineError, match="not ours to control"):
            shared.restart()
    assert private.responds()


def test_the_next_engine_removes_what_a_crashed_one_left(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from controlplane.engine import DockerEngine\n"
        "engine = DockerEngine(pathlib.Path(sys.argv[1]), always_private=True)\n"
        "engine.start(); time.sleep(300)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "crashed")],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert any("Docker engine ready" in line for line in parent.stdout)
        crashed = DockerEngine(tmp_path / "crashed")
        slot, process = crashed._private_slot, crashed.process
        parent.send_signal(signal.SIGKILL)
    assert process is not None
    assert process.wait(5)
    with DockerEngine(tmp_path / "next", always_private=True, say=quiet):
        assert not (tmp_path / "crashed").exists()
    assert traces(slot, tmp_path / "crashed") == []
