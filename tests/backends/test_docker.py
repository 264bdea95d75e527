"""The Docker driver against a real engine: what a container of ours is, and how it lives and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import docker
import pytest
from tests.backends import tiny_image
from tests.backends.docker_kit import CLASS, Lab, ended, eventually, lab_of, name_of, released, started, stopping

from workspace_operator.api import meta
from workspace_operator.backends.docker import DockerDriver, create
from workspace_operator.backends.protocol import Instance, Reading
from workspace_operator.errors import BackendError, BadRequest

pytestmark = pytest.mark.engine
IDENTITY = meta.IDENTITY_DIRECTORY


@pytest.fixture
async def lab(engine: Any) -> AsyncIterator[Lab]:
    """The engine, with this test's own cluster id."""
    async with lab_of(engine) as made:
        yield made


async def test_labels_and_name_are_part_of_the_create_call(lab: Lab) -> None:
    """I-05, I-13, I-15: container and volume say whose they are from the first moment on."""
    driver, request = lab.driver(), lab.request(mount_path="/data")
    await started(driver, request)
    ref = request.ref
    owner = {
        meta.LABEL_CLUSTER: lab.cluster,
        meta.LABEL_UID: ref.uid,
        meta.LABEL_NAMESPACE: ref.namespace,
        meta.LABEL_NAME: ref.name,
        meta.LABEL_CLASS: CLASS,
        meta.MANAGED_BY_LABEL: meta.MANAGED_BY,
    }
    assert lab.inspect(request)["Config"]["Labels"] == {
        **owner,
        meta.LABEL_ROLE: "instance",
        meta.LABEL_INCARNATION: "1",
        meta.LABEL_PARAMETERS: "hash",
    }
    volume = lab.api.inspect_volume(f"wsp-{ref.uid}-data")
    assert volume["Labels"] == {**owner, meta.LABEL_ROLE: "data"}


async def test_limits_and_confinement_are_what_the_engine_enforces(lab: Lab) -> None:
    driver = lab.driver(read_only_root_filesystem=True, user="1000:1000")
    request = lab.request(memory=32 * 1024 * 1024, cpu=0.5)
    await started(driver, request)
    host = lab.inspect(request)["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (32 * 1024 * 1024, 500_000_000, 4096)
    assert (host["CapDrop"], host["SecurityOpt"], host["Privileged"]) == (["ALL"], ["no-new-privileges"], False)
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["ReadonlyRootfs"] is True and host["Init"] is True
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert "uid=1000 gid=1000" in lab.run(request, "id")
    assert "Read-only" in lab.run(request, "touch", "/data/x")
    assert lab.run(request, "touch", "/tmp/x") == ""


async def test_command_replaces_entry_point_and_drops_the_images_arguments(lab: Lab) -> None:
    driver = lab.driver()
    both = lab.request(command=("/bin/sh", "-c"), args=("echo from-the-spec",))
    only_command = lab.request(command=("/bin/echo",))
    only_args = lab.request(command=None, args=("echo from-args",))
    neither = lab.request(command=None)
    for request, output in ((both, "from-the-spec"), (only_command, ""), (only_args, "from-args")):
        await started(driver, request)
        await ended(driver, request)
        assert (await driver.logs(request.ref, 10)).strip() == output
    await started(driver, neither)
    await eventually(lambda: _logged(driver, neither, "from-the-image"))


async def test_the_agent_port_is_published_at_an_address_that_answers(lab: Lab) -> None:
    driver = lab.driver()
    request = lab.request(command=("/bin/sh", "-c", "while :; do echo hello | nc -l -p 8000; done"), port=8000)
    instance = await started(driver, request)
    assert instance.address is not None and instance.address.startswith("127.0.0.1:")
    host, port = instance.address.rsplit(":", 1)

    async def answers() -> bool:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        data = await reader.read(10)
        writer.close()
        return data.startswith(b"hello")

    await eventually(answers)


async def test_environment_reaches_the_process_and_not_the_repr(lab: Lab) -> None:
    """I-53: the values are in the container and in no text of ours."""
    request = lab.request(command=("/bin/sh", "-c", "echo $A; sleep 3600"), environment={"A": "s3cret=x"})
    driver = lab.driver()
    await started(driver, request)
    await eventually(lambda: _logged(driver, request, "s3cret=x"))
    assert "s3cret" not in repr(request)


async def test_identity_files_are_readable_and_written_anew_at_each_start(lab: Lab) -> None:
    driver = lab.driver(user="1000")
    ref = lab.ref()
    first = lab.request(ref, files={"token": b"one", "ca.crt": b"ca"})
    await started(driver, first)
    assert lab.run(first, "cat", f"{IDENTITY}/token", f"{IDENTITY}/ca.crt") == "oneca"
    assert lab.run(first, "stat", "-L", "-c", "%a %u", f"{IDENTITY}/token").strip() == "444 0"
    await driver.stop(stopping(first, grace=timedelta(0)))
    await started(driver, lab.request(ref, files={"token": b"two", "ca.crt": b"ca"}))
    assert lab.run(first, "cat", f"{IDENTITY}/token") == "two"


async def test_delivered_files_replace_the_old_ones_while_running(lab: Lab) -> None:
    """A reader never sees a part of a token: content changes by turning a link over."""
    driver, big = lab.driver(), {name: 500_000 * name.encode() for name in ("a", "b", "c")}
    request = lab.request(files={"token": big["a"], "other": b"kept"})
    await started(driver, request)
    odd: list[str] = []

    async def read_all_the_time() -> None:
        while True:
            content = await asyncio.to_thread(lab.run, request, "cat", f"{IDENTITY}/token")
            if content.encode() not in big.values() and "No such file" not in content:
                odd.append(content[:40])

    reader = asyncio.create_task(read_all_the_time())
    for name in "bcbcabca":
        await driver.deliver(request.ref, 1, {"token": big[name]})
    reader.cancel()
    await asyncio.wait([reader])
    assert not odd
    assert lab.run(request, "cat", f"{IDENTITY}/token").encode() == big["a"]
    assert lab.run(request, "cat", f"{IDENTITY}/other") == "kept"


async def test_a_frozen_container_finds_new_files_when_it_thaws(lab: Lab) -> None:
    """A frozen workspace keeps its credentials, so they are renewed while it is frozen."""
    driver, request = lab.driver(), lab.request(files={"token": b"one"})
    await started(driver, request)
    await driver.stop(stopping(request, freeze=True))
    await driver.deliver(request.ref, 1, {"token": b"two"})
    await started(driver, request)
    assert lab.run(request, "cat", f"{IDENTITY}/token") == "two"


async def test_delivery_to_what_does_not_run_is_refused(lab: Lab) -> None:
    with pytest.raises(BackendError, match="does not run"):
        await lab.driver().deliver(lab.ref(), 1, {"token": b"x"})


@pytest.mark.parametrize("linked", [False, True], ids=["plain", "var-run-is-a-link"])
async def test_identity_files_reach_a_container_with_a_read_only_root(lab: Lab, linked: bool) -> None:
    """The engine refuses to write there unless the volume is mounted where the image's links lead."""
    image = tiny_image.ensure(lab.api, linked)
    driver = lab.driver(read_only_root_filesystem=True)
    for _ in range(2):  # the second time the driver knows the image
        request = lab.request(image=image, files={"token": b"one"})
        await started(driver, request)
        assert lab.run(request, "cat", f"{IDENTITY}/token") == "one"
        await driver.deliver(request.ref, 1, {"token": b"two"})
        assert lab.run(request, "cat", f"{IDENTITY}/token") == "two"


async def test_release_removes_the_identity_volume_and_keeps_the_data(lab: Lab) -> None:
    """I-13: what is anonymous goes with the container; the labelled data volume stays until it is deleted."""
    driver, request = lab.driver(), lab.request(files={"token": b"x"}, mount_path="/data")
    await started(driver, request)
    mounts = {mount["Destination"]: mount["Name"] for mount in lab.inspect(request)["Mounts"]}
    assert not await driver.delete_data(request.ref), "a volume in use is not deleted"
    await released(driver, request)
    with pytest.raises(docker.errors.NotFound):
        lab.api.inspect_volume(mounts[IDENTITY])
    assert lab.api.inspect_volume(mounts["/data"])
    assert await driver.delete_data(request.ref)
    assert await driver.delete_data(request.ref), "absent is deleted"


async def test_a_foreign_volume_is_neither_used_nor_removed(lab: Lab) -> None:
    """I-15: a name is no proof of ownership."""
    driver, request = lab.driver(), lab.request(mount_path="/data")
    name = f"wsp-{request.ref.uid}-data"
    lab.api.create_volume(name, labels={meta.LABEL_CLUSTER: "another"})
    try:
        with pytest.raises(BackendError, match=f"docker volume rm {name}"):
            await driver.provision(request)
        assert await driver.delete_data(request.ref), "this workspace has none"
        assert lab.api.inspect_volume(name)
        assert not lab.api.containers(all=True, filters={"name": name_of(request)})
    finally:
        lab.api.remove_volume(name)


async def test_a_foreign_container_of_our_name_is_refused(lab: Lab) -> None:
    """I-11, I-15: adopted is what carries our labels, never what has our name."""
    driver, request = lab.driver(), lab.request()
    lab.api.create_container(lab.image, name=name_of(request), labels={meta.LABEL_CLUSTER: "another"})
    try:
        with pytest.raises(BackendError, match=f"docker rm {name_of(request)}"):
            await driver.provision(request)
        assert await driver.stop(stopping(request, release=True)) == ()
        assert lab.inspect(request)["State"]["Status"] == "created"
    finally:
        lab.api.remove_container(name_of(request))


async def test_a_crash_between_create_and_start_resolves_by_the_next_provision(lab: Lab) -> None:
    """I-05, I-09."""
    driver, request = lab.driver(), lab.request(files={"token": b"late"})
    await started(driver, request)
    config = lab.inspect(request)["Config"]
    lab.api.remove_container(name_of(request), force=True, v=True)
    lab.api.create_container_from_config(config, name=name_of(request))
    (found,) = await driver.observe(request.ref)
    assert found.reading is Reading.HALTED
    assert (await started(driver, request)).reading is Reading.RUNNING
    assert lab.run(request, "cat", f"{IDENTITY}/token") == "late"


async def test_a_second_incarnation_waits_for_the_end_of_the_first(lab: Lab) -> None:
    """I-06: never two live instances of one workspace."""
    driver, ref = lab.driver(), lab.ref()
    await started(driver, lab.request(ref))
    with pytest.raises(BackendError, match="Incarnation 1 of this workspace still runs"):
        await driver.provision(lab.request(ref, 2))

    async def restarted() -> bool:
        found = await driver.restart(lab.request(ref, 2), timedelta(0))
        assert len(await driver.observe(ref)) <= 1
        return isinstance(found, Instance) and found.incarnation == 2

    await eventually(restarted)


async def test_twenty_parallel_provisions_make_twenty_containers(lab: Lab) -> None:
    """I-83: the driver's own threads bound what the engine gets at once."""
    driver = lab.driver()
    requests = [lab.request() for _ in range(20)]
    found = await asyncio.gather(*(started(driver, request) for request in requests))
    assert {one.reading for one in found} == {Reading.RUNNING}
    assert {one.ref for one in await driver.list_owned()} == {request.ref for request in requests}
    await asyncio.gather(*(driver.stop(stopping(request, release=True, grace=timedelta(0))) for request in requests))
    assert await driver.list_owned() == ()


async def test_the_same_provision_in_parallel_makes_one_container(lab: Lab) -> None:
    """I-06: also through two drivers, as two operators would."""
    drivers, request = (lab.driver(), lab.driver()), lab.request()
    found = await asyncio.gather(
        *(driver.provision(request) for driver in drivers for _ in range(3)), return_exceptions=True
    )
    assert any(isinstance(one, Instance) for one in found), found
    assert len(await drivers[0].list_owned()) == 1


@pytest.mark.parametrize(
    ("spec", "template", "message"),
    [
        ({"runtime": "nonesuch"}, {}, "docker.runtime"),
        ({"network": "nonesuch"}, {}, "docker.network"),
        ({"network": "host"}, {}, "docker.network"),
        ({"user": "nonesuch"}, {}, "docker.user"),
        ({"publish_address": "192.0.2.1"}, {"port": 80}, "docker.publishAddress"),
        ({}, {"cpu": 4096.0}, "cpu limit"),
        ({}, {"memory": 1024}, "6 MiB"),
        ({}, {"mount_path": "relative"}, "storage.mountPath"),
        ({}, {"image": "NOT a reference"}, "valid reference"),
        ({}, {"image": "nonesuch:1"}, "load it into the engine or set pullPolicy"),
    ],
)
async def test_what_the_engine_refuses_is_said_in_words_of_ours(
    lab: Lab, spec: dict[str, Any], template: dict[str, Any], message: str
) -> None:
    """I-53: no raw body of the engine, and the secret in the environment nowhere."""
    request = lab.request(environment={"KEY": "s3cret"}, **template)
    with pytest.raises(BadRequest, match=message) as caught:
        await lab.driver(**spec).provision(request)
    text = str(caught.value)
    assert "s3cret" not in text and "daemon" not in text and "OCI" not in text and "http" not in text


async def test_check_proves_the_configuration(lab: Lab) -> None:
    assert (await lab.driver().check()).startswith("Docker ")
    with pytest.raises(BadRequest, match=r"docker\.network: the engine has no network nonesuch"):
        await lab.driver(network="nonesuch").check()
    with pytest.raises(BadRequest, match=r"docker\.runtime: the engine has no runtime nonesuch"):
        await lab.driver(runtime="nonesuch").check()
    secrets = {("a", "b"): {".dockerconfigjson": b"s3cret, not JSON"}}
    with pytest.raises(BadRequest, match=r"docker\.imagePullSecretRef") as caught:
        await lab.driver(secrets=secrets, image_pull_secret_ref={"namespace": "a", "name": "b"}).check()
    assert "s3cret" not in repr(caught.value.__cause__)


async def test_a_class_without_a_docker_block_is_refused_by_name() -> None:
    from workspace_operator.api.workspaceclass import WorkspaceClassSpec

    with pytest.raises(BadRequest, match="WorkspaceClass some"):
        create("some", WorkspaceClassSpec(), "cluster", None)  # type: ignore[arg-type]


async def _logged(driver: DockerDriver, request: Any, text: str) -> bool:
    return text in await driver.logs(request.ref, 10)
