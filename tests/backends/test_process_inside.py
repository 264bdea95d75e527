"""What a process of the class gets: its program, environment, port, identity, and nothing of the operator's own."""

from __future__ import annotations

import json
import os
import signal
import stat
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.backends.process_kit import AT_ONCE, CLUSTER, Bench, run, see, spec

from workspace_operator.api.states import Capability
from workspace_operator.backends import process
from workspace_operator.backends.protocol import Reading, StopRequest
from workspace_operator.errors import BackendError, BadRequest


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "workspaces")
    try:
        yield made
    finally:
        await made.clean()


async def test_nothing_of_the_operators_environment_leaks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-53: credentials of the operator stay with the operator; reserved names are ours (I-55)."""
    for name in ("KUBECONFIG", "AWS_SECRET_ACCESS_KEY", "SOME_TOKEN"):
        monkeypatch.setenv(name, "operators-own")
    request = bench.request("env", port=8080)
    asked = {"MODEL": "m1", "WORKSPACE_PORT": "8080", "WORKSPACE_DATA": "/data", "WORKSPACE_UID": request.ref.uid}
    backend = bench.driver()
    instance = await run(backend, replace(request, environment=asked, files={"token": b"t"}))
    text = await bench.data(request, "env")
    found = dict(line.split("=", 1) for line in text.splitlines())
    assert "operators-own" not in text
    expected = {"PATH", "HOME", "LANG", "PYTHON", "MODEL", "PWD"} | {n for n in found if n.startswith("WORKSPACE_")}
    assert set(found) <= expected | {"OLDPWD", "SHLVL", "_"}
    assert found["WORKSPACE_PORT"] != "8080"
    assert instance.address == f"{found['WORKSPACE_BIND_ADDRESS']}:{found['WORKSPACE_PORT']}"
    assert found["WORKSPACE_DATA"] == str(bench.home(request) / "data")
    assert (Path(found["WORKSPACE_IDENTITY"]) / "token").read_text() == "t"


async def test_a_restarted_instance_keeps_its_port(bench: Bench) -> None:
    backend, request = bench.driver(), bench.request(port=8080)
    first = await run(backend, request)
    await backend.stop(StopRequest(request.ref, AT_ONCE))
    assert (await run(backend, request)).address == first.address


async def test_identity_files_are_for_the_workspaces_user_alone_and_go_with_the_process(bench: Bench) -> None:
    """I-51: nothing of an identity outlives the compute that used it, however that ended."""
    backend, request = bench.driver(), replace(bench.request(), files={"token": b"t"})
    await run(backend, request)
    identity = bench.room(request) / "identity"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o700
    assert stat.S_IMODE((identity / "token").stat().st_mode) == 0o600
    os.kill(bench.mark(request).pid, signal.SIGKILL)
    await see(backend, request, Reading.HALTED)
    assert not identity.exists()
    with pytest.raises(BackendError):
        await backend.deliver(request.ref, 1, {"token": b"late"})
    with pytest.raises(BackendError):
        await backend.provision(replace(request, files={"../escape": b"x"}))


async def test_the_volume_and_the_intent_name_their_owner(bench: Bench) -> None:
    """I-13: readable without the operator."""
    backend, request = bench.driver(), bench.request()
    await run(backend, request)
    for file in (bench.home(request) / "data.json", bench.room(request) / "instance.json"):
        assert request.ref.uid in json.dumps(json.loads(file.read_text()))


async def test_only_images_and_commands_of_the_class_run(bench: Bench) -> None:
    backend = bench.driver()
    with pytest.raises(BadRequest, match="sleep") as unknown:
        await backend.provision(bench.request("unknown"))
    assert unknown.value.failure.reason == "ImageNotFound"
    with pytest.raises(BadRequest, match="allowCommand") as command:
        await backend.provision(bench.request(command=("id",)))
    assert command.value.failure.reason == "CommandNotAllowed"
    with pytest.raises(BadRequest, match="no-such-program-here") as absent:
        await backend.provision(bench.request("absent"))
    assert absent.value.failure.reason == "ProvisionFailed"
    with pytest.raises(BadRequest, match=r"spec\.process\.images\[absent\]"):
        await backend.check()


async def test_arguments_follow_the_command(bench: Bench) -> None:
    backend = bench.driver(allow_command=True)
    request = bench.request(command=("/bin/sh", "-c", 'echo "$@"', "sh"), args=("a b", "$HOME", ""))
    await backend.provision(request)
    await see(backend, request, Reading.HALTED)
    assert await backend.logs(request.ref, 5) == "a b $HOME \n"


async def test_check_names_the_field_to_correct(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    made = process.create("laptop", spec(tmp_path / "file" / "below"), CLUSTER, None)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"spec\.process\.directory"):
        await made.check()
    await made.close()
    assert made.capabilities >= {Capability.FREEZE, Capability.DELIVER, Capability.VOLUMES, Capability.EVENTS}


async def test_the_last_lines_of_a_long_log_are_read_from_its_end(bench: Bench) -> None:
    backend, request = bench.driver(), bench.request()
    await run(backend, request)
    log = bench.room(request) / "output.log"
    log.write_text("".join(f"line {n}\n" for n in range(2_000_000)))
    assert await backend.logs(request.ref, 2) == "line 1999998\nline 1999999\n"


async def test_a_thousand_workspaces_are_listed_in_one_scan(bench: Bench) -> None:
    """One listing per interval observes the whole class; it must not cost more than it saves."""
    backend, request = bench.driver(), bench.request()
    await run(backend, request)
    await backend.stop(StopRequest(request.ref, AT_ONCE))
    record = (bench.room(request) / "instance.json").read_text()
    for _ in range(999):
        uid = str(uuid.uuid4())
        room = bench.root / CLUSTER / uid / "incarnation-1"
        room.mkdir(parents=True)
        (room / "instance.json").write_text(record.replace(request.ref.uid, uid))
    assert len(await backend.list_owned()) == 1000
