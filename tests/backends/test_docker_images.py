"""Image pulls by the Docker driver, from a real registry that asks for a password."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import docker
import pytest
from tests.backends import registry
from tests.backends.docker_kit import Lab, lab_of, started, stopping, watching
from tests.backends.registry import Registry
from tests.backends.relay import Relay

from workspace_operator.api.reasons import Reason
from workspace_operator.backends.docker import DockerDriver
from workspace_operator.backends.protocol import Instance, Progress, ProvisionRequest, Reading
from workspace_operator.errors import BackendError, BadRequest, OperatorError

pytestmark = pytest.mark.engine
SECRET = ("platform", "registry")
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def store(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A running registry."""
    made = Registry(tmp_path_factory.mktemp("registry"))
    yield made
    made.close()


@pytest.fixture
def line(store: Registry) -> Iterator[Relay]:
    """What the engine sees of the registry: its requests are recorded, and it can be slow."""
    made = Relay(store.port)
    yield made
    made.close()


@pytest.fixture
async def lab(engine: Any) -> AsyncIterator[Lab]:
    """The engine, with this test's own cluster id; images that it pulls are removed again."""
    async with lab_of(engine) as made:
        yield made
    client = docker.APIClient(base_url=engine.host, version="auto")
    for image in client.images(name="127.0.0.1:*/*"):
        client.remove_image(image["Id"], force=True)
    client.close()


@pytest.fixture
def image(store: Registry, line: Relay) -> str:
    """An image that nobody pulled yet, with three layers of noise."""
    name = f"tiny-{uuid.uuid4().hex[:8]}"
    store.push(name, "1", layers=4, layer_size=2 * MIB)
    return f"127.0.0.1:{line.port}/{name}:1"


def puller(lab: Lab, line: Relay, password: str = registry.PASSWORD, **spec: Any) -> DockerDriver:
    """A driver whose class has credentials for the registry."""
    auth = base64.b64encode(f"{registry.USER}:{password}".encode()).decode()
    config = {"auths": {f"127.0.0.1:{line.port}": {"auth": auth}, "elsewhere.invalid": {"auth": "eDp5"}}}
    secrets: Mapping[Any, Any] = {SECRET: {".dockerconfigjson": json.dumps(config).encode()}}
    ref = {"namespace": SECRET[0], "name": SECRET[1]}
    return lab.driver(secrets=secrets, **{"pull_policy": "IfNotPresent", "image_pull_secret_ref": ref, **spec})


async def test_a_pull_is_shown_in_progress_and_then_the_workspace_runs(lab: Lab, line: Relay, image: str) -> None:
    driver, request = puller(lab, line), lab.request(image=image)
    line.bytes_per_second = 4 * MIB
    messages: list[str] = []
    async with watching(driver) as (woken, _):
        async with asyncio.timeout(60):
            while isinstance(found := await driver.provision(request), Progress):
                assert found.reason == Reason.IMAGE_PULLING
                messages.append(found.message)
                await asyncio.sleep(0.05)
        assert found.reading is Reading.RUNNING
        assert request.ref.uid in woken, "the end of the pull wakes the workspace"
    assert messages[0] == f"Pulling {image}: waiting for the registry"
    assert any(" of 4 layers, " in message and message.endswith("MiB)") for message in messages), messages


async def test_one_pull_serves_all_workspaces_that_want_the_image(lab: Lab, line: Relay, image: str) -> None:
    """I-83: a fleet that starts does not pull the same image forty times."""
    driver = puller(lab, line)
    requests = [lab.request(image=image) for _ in range(8)]
    found = await asyncio.gather(*(started(driver, request) for request in requests))
    assert {one.reading for one in found} == {Reading.RUNNING}
    blobs = [seen for seen in line.seen if "/blobs/" in seen]
    assert len(blobs) == len(set(blobs)), line.seen


async def test_wrong_credentials_are_said_once_and_tried_anew(lab: Lab, line: Relay, image: str) -> None:
    """I-53: neither the password nor the registry's body is in the message."""
    driver, request = puller(lab, line, password="s3cret-wrong"), lab.request(image=image)
    for _ in range(2):
        error = await _failure(driver, request)
        assert isinstance(error, BackendError) and error.failure.reason == Reason.IMAGE_PULL_FAILED
        assert "check docker.imagePullSecretRef" in str(error)
        assert "s3cret" not in str(error) and "daemon" not in str(error) and "http" not in str(error)
        assert isinstance(await driver.provision(request), Progress), "the next provision pulls anew"


async def test_credentials_go_to_their_own_registry_only(lab: Lab, line: Relay, image: str) -> None:
    driver = puller(lab, line)
    assert (await driver._images.credentials(image))["password"] == registry.PASSWORD
    assert await driver._images.credentials("other.invalid/x:1") == {}
    assert await driver._images.credentials("library-image") == {}


async def test_no_credentials_at_all_are_said(lab: Lab, line: Relay, image: str) -> None:
    driver = puller(lab, line, image_pull_secret_ref=None)
    error = await _failure(driver, lab.request(image=image))
    assert "docker.imagePullSecretRef" in str(error)


async def test_a_missing_image_is_the_users_to_correct(lab: Lab, line: Relay) -> None:
    name = f"127.0.0.1:{line.port}/nonesuch:1"
    error = await _failure(puller(lab, line), lab.request(image=name))
    assert isinstance(error, BadRequest) and error.failure.reason == Reason.IMAGE_NOT_FOUND
    assert name in str(error)


async def test_a_registry_that_is_away_is_said(lab: Lab, line: Relay, image: str) -> None:
    line.close()
    error = await _failure(puller(lab, line), lab.request(image=image))
    assert isinstance(error, BackendError) and "cannot reach the registry" in str(error)


async def test_always_pulls_before_each_create_and_not_before_a_start(lab: Lab, line: Relay, image: str) -> None:
    driver = puller(lab, line, pull_policy="Always")
    first = lab.request(image=image)
    await started(driver, first)
    asked = len(line.seen)
    assert isinstance(await started(driver, first), Instance)
    assert len(line.seen) == asked
    await started(driver, lab.request(image=image))
    assert len(line.seen) > asked


async def test_a_pull_does_not_hold_up_other_workspaces(lab: Lab, line: Relay, image: str) -> None:
    driver = puller(lab, line)
    line.hang = True
    waiting = [lab.request(image=f"{image}{number}") for number in range(20)]
    for request in waiting:
        assert isinstance(await driver.provision(request), Progress)
    other = lab.request()
    async with asyncio.timeout(5):
        assert (await started(driver, other)).reading is Reading.RUNNING
        assert await driver.stop(stopping(waiting[0], release=True)) == ()


async def test_never_says_that_the_image_must_be_loaded(lab: Lab) -> None:
    with pytest.raises(BadRequest, match="load it into the engine or set pullPolicy"):
        await lab.driver(pull_policy="Never").provision(lab.request(image="nonesuch:1"))


async def _failure(driver: DockerDriver, request: ProvisionRequest) -> OperatorError:
    async with asyncio.timeout(30):
        while True:
            try:
                assert isinstance(await driver.provision(request), Progress)
            except OperatorError as exc:
                return exc
            await asyncio.sleep(0.05)
