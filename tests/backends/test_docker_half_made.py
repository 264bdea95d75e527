"""What an engine leaves behind that was killed halfway: a volume without labels, a container that cannot be started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import docker
import docker.errors
import pytest
from tests.backends.docker_kit import Lab, lab_of, released, started

from workspace_operator.api import meta
from workspace_operator.backends.protocol import Reading
from workspace_operator.errors import BackendError

pytestmark = pytest.mark.engine


@pytest.fixture
async def lab(engine: Any) -> AsyncIterator[Lab]:
    """The engine, with this test's own cluster id."""
    async with lab_of(engine) as made:
        yield made


async def test_an_empty_one_is_made_anew(lab: Lab) -> None:
    """I-13: with its labels; else the workspace would wait for a person for ever."""
    driver, request = lab.driver(), lab.request(mount_path="/data")
    name = f"wsp-{request.ref.uid}-data"
    lab.api.create_volume(name)
    await started(driver, request)
    assert lab.api.inspect_volume(name)["Labels"][meta.LABEL_UID] == request.ref.uid
    await released(driver, request)
    assert await driver.delete_data(request.ref)


async def test_an_empty_one_goes_with_its_workspace(lab: Lab) -> None:
    driver, request = lab.driver(), lab.request(mount_path="/data")
    name = f"wsp-{request.ref.uid}-data"
    lab.api.create_volume(name)
    assert await driver.delete_data(request.ref)
    with pytest.raises(docker.errors.NotFound):
        lab.api.inspect_volume(name)


async def test_one_with_content_is_somebodys(lab: Lab) -> None:
    """I-11: neither used nor removed."""
    driver, request = lab.driver(), lab.request(mount_path="/data")
    name = f"wsp-{request.ref.uid}-data"
    lab.api.create_volume(name)
    host = lab.api.create_host_config(binds=[f"{name}:/data"])
    script = ["/bin/sh", "-c", "echo mine > /data/file"]
    made = lab.api.create_container(lab.image, script, entrypoint=[], host_config=host)["Id"]
    lab.api.start(made)
    assert lab.api.wait(made)["StatusCode"] == 0
    try:
        with pytest.raises(BackendError, match=f"docker volume rm {name}"):
            await driver.provision(request)
        lab.api.remove_container(made)
        with pytest.raises(BackendError, match=f"docker volume rm {name}"):
            await driver.provision(request)
        assert await driver.delete_data(request.ref), "this workspace has none"
        assert lab.api.inspect_volume(name)
    finally:
        lab.api.remove_volume(name)


async def test_a_container_that_can_never_be_started_is_made_anew(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """containerd keeps the task of a start that the engine forgot; each further start of that container fails."""
    driver, request = lab.driver(), lab.request(mount_path="/data", files={"token": b"x"})
    start, refused = docker.APIClient.start, list[str]()

    def forgotten(client: Any, container: str) -> None:
        refused[:] = refused or [container]
        if container == refused[0]:
            answer = SimpleNamespace(status_code=500, reason="Internal Server Error", url="")
            raise docker.errors.APIError("500", response=answer, explanation=f"task {container}: already exists")
        start(client, container)

    monkeypatch.setattr(docker.APIClient, "start", forgotten)
    instance = await started(driver, request)
    assert instance.reading is Reading.RUNNING
    assert instance.id not in refused
    assert len(await driver.observe(request.ref)) == 1
    assert lab.run(request, "/bin/cat", f"{meta.IDENTITY_DIRECTORY}/token") == "x"
