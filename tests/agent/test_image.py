"""The image is built from local files only, and what is in it answers."""

from __future__ import annotations

import time
from typing import Protocol

import docker
import pytest

import image
from controlplane import pythonimage


class Engine(Protocol):
    host: str


@pytest.mark.engine
def test_the_image_is_built_once_and_runs_the_agent_without_any_network(engine: Engine) -> None:
    client = docker.DockerClient(base_url=engine.host)
    said: list[str] = []
    try:
        first = pythonimage.build(image.RECIPE, client, "workspace-operator/reference-agent:test", said.append)
        assert pythonimage.build(image.RECIPE, client, "workspace-operator/reference-agent:test", said.append) == first
        assert "up to date" in said[-1]
        _answers_without_network(client, first)
    finally:
        client.close()


def _answers_without_network(client: docker.DockerClient, image_id: str) -> None:
    container = client.containers.run(
        image_id, detach=True, network_mode="none", environment={"WORKSPACE_NAME": "boxed"}, read_only=True
    )
    card = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/.well-known/agent-card.json').read())"
    try:
        deadline = time.monotonic() + 20
        while True:
            code, output = container.exec_run(["python", "-c", card])
            if code == 0:
                break
            assert time.monotonic() < deadline, output
            time.sleep(0.2)
        assert b'"name":"boxed"' in output
        assert container.exec_run(["python", "-c", "import os; print(os.getuid())"]).output == b"10001\n"
        container.stop(timeout=10)
        assert container.wait()["StatusCode"] == 0
    finally:
        container.remove(force=True)
