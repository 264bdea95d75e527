"""What only the process backend promises: survival of the operator, the hand-over of the lock, a clean environment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from workspace_operator.api.states import Capability
from workspace_operator.api.workspace import EnvVar
from workspace_operator.api.workspaceclass import ImageAlias, ProcessBackend, WorkspaceClassSpec
from workspace_operator.backends import process
from workspace_operator.backends.process import system
from workspace_operator.backends.protocol import (
    LIVE,
    Backend,
    Instance,
    ProvisionRequest,
    Reading,
    StopRequest,
    Template,
    WorkspaceRef,
)
from workspace_operator.errors import BackendError, BackendUnreachable, BadRequest

AT_ONCE = timedelta(0)
CLUSTER = "cluster-1"
SCRIPTS = {
    "sleep": "exec sleep 300",
    "env": 'env > "$WORKSPACE_DATA/env"; exec sleep 300',
    "children": "sleep 300 & sleep 300 & wait",
    "leaves-child": 'sleep 300 & echo $! > "$WORKSPACE_DATA/child"; exit 4',
    "escapes": 'setsid sleep 300 & echo $! > "$WORKSPACE_DATA/child"; wait',
    # An agent's tool run: another session, and Python closes every inherited file, the lock among them.
    "escapes-far": 'exec "$PYTHON" -c \'import subprocess, os, time\n'
    'p = subprocess.Popen(["sleep", "300"], start_new_session=True)\n'
    'open(os.environ["WORKSPACE_DATA"] + "/child", "w").write(str(p.pid))\n'
    "time.sleep(300)'",
    "closes-files": "exec \"$PYTHON\" -c 'import os, time\nos.closerange(3, 256)\ntime.sleep(300)'",
}


def spec(directory: Path, *, allow_command: bool = False) -> WorkspaceClassSpec:
    env = (EnvVar(name="PYTHON", value=sys.executable),)
    images = tuple(ImageAlias(name=n, command=("/bin/sh", "-c", s, "sh"), env=env) for n, s in SCRIPTS.items())
    absent = ImageAlias(name="absent", command=("no-such-program-here",))
    return WorkspaceClassSpec(
        process=ProcessBackend(directory=str(directory), images=(*images, absent), allow_command=allow_command)
    )


class Bench:
    """A directory, drivers on it, and the removal of everything that they started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self._made: list[Backend] = []
        self._refs: list[WorkspaceRef] = []

    def driver(self, *, allow_command: bool = False) -> Backend:
        async def no_secret(namespace: str, name: str) -> dict[str, bytes]:
            raise AssertionError

        made = process.create("laptop", spec(self.root, allow_command=allow_command), CLUSTER, no_secret)
        self._made.append(made)
        return made

    def request(self, image: str = "sleep", incarnation: int = 1, **template: object) -> ProvisionRequest:
        uid = str(uuid.uuid4())
        ref = WorkspaceRef(CLUSTER, uid, "team-a", f"agent-{uid[:4]}", "laptop")
        self._refs.append(ref)
        fields: dict[str, object] = {"mount_path": "/data"}
        return ProvisionRequest(ref, incarnation, "hash", Template(image, **(fields | template)))  # type: ignore[arg-type]

    def home(self, request: ProvisionRequest) -> Path:
        return self.root / CLUSTER / request.ref.uid

    def room(self, request: ProvisionRequest) -> Path:
        return self.home(request) / f"incarnation-{request.incarnation}"

    def mark(self, request: ProvisionRequest) -> system.Mark:
        mark = system.Mark.load(f"{self.room(request)}/pid")
        assert mark is not None
        return mark

    async def data(self, request: ProvisionRequest, name: str) -> str:
        file = self.home(request) / "data" / name
        await until(lambda: file.exists() and file.read_text().strip() != "")
        return file.read_text()

    async def clean(self) -> None:
        last = self.driver()
        for ref in self._refs:
            for _ in range(100):
                if not await last.stop(StopRequest(ref, AT_ONCE, release=True)):
                    break
                await asyncio.sleep(0.02)
            await last.delete_data(ref)
        for made in self._made:
            await made.close()


async def until(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "not seen in time"
        await asyncio.sleep(0.01)


async def run(backend: Backend, request: ProvisionRequest) -> Instance:
    instance = await backend.provision(request)
    assert isinstance(instance, Instance)
    assert instance.reading is Reading.RUNNING
    return instance


async def see(backend: Backend, request: ProvisionRequest, reading: Reading) -> Instance:
    deadline = time.monotonic() + 10
    while True:
        (seen,) = await backend.observe(request.ref)
        if seen.reading is reading:
            return seen
        assert time.monotonic() < deadline, f"wanted {reading}, saw {seen}"
        await asyncio.sleep(0.01)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "workspaces")
    try:
        yield made
    finally:
        await made.clean()


# -- surviving the operator

OPERATOR = """
import asyncio, sys
sys.path.insert(0, {source!r})
from tests.backends.test_process import CLUSTER, spec
from workspace_operator.backends import process
from workspace_operator.backends.protocol import ProvisionRequest, Template, WorkspaceRef
from pathlib import Path

async def main():
    backend = process.create("laptop", spec(Path({root!r})), CLUSTER, None)
    ref = WorkspaceRef(CLUSTER, {uid!r}, "team-a", "agent", "laptop")
    print("go", flush=True)
    await backend.provision(ProvisionRequest(ref, 1, "hash", Template("sleep", mount_path="/data")))
    print("done", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def operator(bench: Bench, uid: str) -> asyncio.subprocess.Process:
    """An operator in a process of its own, about to provision."""
    source = str(Path(process.__file__).parents[3])
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        OPERATOR.format(source=source, root=str(bench.root), uid=uid),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"go\n"
    return child


async def test_a_killed_operator_leaves_its_workspaces_running_and_the_next_adopts_them(bench: Bench) -> None:
    """I-05, I-09: kill -9 of the operator disturbs nothing."""
    request = bench.request()
    first = await operator(bench, request.ref.uid)
    assert first.stdout is not None
    assert await first.stdout.readline() == b"done\n"
    first.kill()
    await first.wait()
    backend = bench.driver()
    pid = bench.mark(request).pid
    assert (await run(backend, request)).ref.uid == request.ref.uid
    assert bench.mark(request).pid == pid
    # It ends as an adopted process: its exit code is nobody's to know, its end is seen at once.
    woken: list[str] = []
    watch = asyncio.create_task(backend.watch(woken.append))
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGTERM)
    await until(lambda: woken == [request.ref.uid])
    assert (await see(backend, request, Reading.HALTED)).exit_code is None
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006])
async def test_an_operator_killed_at_any_moment_of_a_start_leaves_one_process_or_none(
    bench: Bench, delay: float
) -> None:
    """I-06, I-09: whatever is on disk then, the next operator starts or adopts, once."""
    request = bench.request()
    first = await operator(bench, request.ref.uid)
    await asyncio.sleep(delay)
    first.kill()
    await first.wait()
    backend = bench.driver()
    await asyncio.sleep(0.02)
    before = [i for i in await backend.observe(request.ref) if i.reading in LIVE]
    assert len(before) <= 1
    await run(backend, request)
    assert system.carriers()[str(bench.room(request))] == [bench.mark(request).pid]


# -- one live instance, by the kernel's promise


async def test_a_crash_before_the_spawn_reads_halted_and_starts(bench: Bench) -> None:
    """I-09: the intent alone is no compute."""
    backend, request = bench.driver(), bench.request()
    await run(backend, request)
    await backend.stop(StopRequest(request.ref, AT_ONCE))
    (bench.room(request) / "pid").unlink()
    (bench.room(request) / "exit").unlink(missing_ok=True)
    assert (await see(backend, request, Reading.HALTED)).exit_code is None
    await run(backend, request)


async def test_a_workload_that_closes_the_lock_is_still_seen_and_not_doubled(bench: Bench) -> None:
    """I-06: the pid with its start time speaks where the lock was dropped."""
    backend, request = bench.driver(), bench.request("closes-files")
    await run(backend, request)
    await until(lambda: not system.lock_held(str(bench.home(request) / "lock")))
    pid = bench.mark(request).pid
    await run(bench.driver(), request)
    assert bench.mark(request).pid == pid
    with pytest.raises(BackendError, match="still live"):
        await backend.provision(replace(request, incarnation=2))


async def test_a_reused_pid_is_not_taken_for_the_workspace(bench: Bench) -> None:
    """Neither seen as running nor ever signalled: the start time tells them apart; likewise after a reboot."""
    backend, request = bench.driver(), bench.request()
    await run(backend, request)
    await backend.stop(StopRequest(request.ref, AT_ONCE))
    stranger = await asyncio.create_subprocess_exec("sleep", "300", start_new_session=True)
    seen = system.stat(stranger.pid)
    assert seen is not None
    for start, boot in ((seen.start + 1, system.boot_id()), (seen.start, "another-boot")):
        (bench.room(request) / "pid").write_text(f"{stranger.pid} {start} {boot} 0\n")
        await see(backend, request, Reading.HALTED)
        await backend.stop(StopRequest(request.ref, AT_ONCE))
        assert stranger.returncode is None
    await backend.stop(StopRequest(request.ref, AT_ONCE, release=True))
    assert system.runs(stranger.pid)
    stranger.kill()
    await stranger.wait()


async def test_children_end_with_their_main_process(bench: Bench) -> None:
    """I-14: halted means that nothing of it runs."""
    backend, request = bench.driver(), bench.request("children")
    await run(backend, request)
    room = str(bench.room(request))
    await until(lambda: len(system.carriers().get(room, [])) == 3)
    await backend.stop(StopRequest(request.ref, AT_ONCE))
    await see(backend, request, Reading.HALTED)
    assert system.carriers().get(room) is None


async def test_what_a_main_process_leaves_behind_is_killed(bench: Bench) -> None:
    backend, request = bench.driver(), bench.request("leaves-child")
    await backend.provision(request)
    child = int(await bench.data(request, "child"))
    assert (await see(backend, request, Reading.HALTED)).exit_code == 4
    assert not system.runs(child)


@pytest.mark.parametrize("image", ["escapes", "escapes-far"])
async def test_a_descendant_that_left_the_group_is_frozen_and_killed_with_the_rest(bench: Bench, image: str) -> None:
    """I-14: a new session, even with the lock closed, is no way out."""
    backend, request = bench.driver(), bench.request(image)
    await run(backend, request)
    child = int(await bench.data(request, "child"))
    await backend.stop(StopRequest(request.ref, AT_ONCE, freeze=True))
    await see(backend, request, Reading.FROZEN)
    found = system.stat(child)
    assert found is not None
    assert found.state == "T"
    await run(backend, request)
    for _ in range(100):
        if not await backend.stop(StopRequest(request.ref, AT_ONCE, release=True)):
            break
    assert await backend.observe(request.ref) == ()
    assert not system.runs(child)


# -- readings


async def test_a_corrupt_instance_is_shown_and_hides_nobody(bench: Bench) -> None:
    """I-81: Failed has a message; I-40: one bad file is no reason to see nothing."""
    backend, bad, good = bench.driver(), bench.request(), bench.request()
    await run(backend, bad)
    await run(backend, good)
    (bench.room(bad) / "instance.json").write_text("{broken")
    # While it runs it must not read as if it did not.
    assert {i.reading for i in await backend.list_owned()} == {Reading.RUNNING}
    await backend.stop(StopRequest(bad.ref, AT_ONCE))
    readings = {i.ref: i for i in await backend.list_owned()}
    assert readings[good.ref].reading is Reading.RUNNING
    assert readings[bad.ref].reading is Reading.FAILED
    assert readings[bad.ref].message
    with pytest.raises(BackendError):
        await backend.provision(bad)
    assert await backend.stop(StopRequest(bad.ref, AT_ONCE, release=True)) == ()


async def test_nothing_is_left_of_a_deleted_workspace(bench: Bench) -> None:
    """I-13: no directory, no file, no process, no zombie."""
    backend, request = bench.driver(), bench.request()
    await run(backend, request)
    await backend.stop(StopRequest(request.ref, AT_ONCE, release=True))
    assert await backend.delete_data(request.ref)
    assert not bench.home(request).exists()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


async def test_a_missing_directory_is_no_empty_listing(bench: Bench, tmp_path: Path) -> None:
    """I-40: an unmounted disk must not look like no workspaces."""
    bench.root.rename(tmp_path / "away")
    with pytest.raises(BackendUnreachable):
        await bench.driver().list_owned()
    (tmp_path / "away").rename(bench.root)


async def test_an_interrupted_removal_is_finished_by_the_next(bench: Bench) -> None:
    backend, request = bench.driver(), bench.request()
    await run(backend, request)
    await backend.stop(StopRequest(request.ref, AT_ONCE, release=True))
    (bench.home(request) / "data").rename(bench.home(request) / ".gone-interrupted")
    assert await backend.delete_data(request.ref)
    assert not bench.home(request).exists()


# -- what the process gets


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
    assert made.capabilities == {Capability.FREEZE, Capability.LOGS, Capability.VOLUMES, Capability.EVENTS}


async def test_the_last_lines_of_a_long_log_are_read_from_its_end(bench: Bench) -> None:
    backend, request = bench.driver(), bench.request()
    await run(backend, request)
    log = bench.room(request) / "output.log"
    log.write_text("".join(f"line {n}\n" for n in range(2_000_000)))
    begun = time.monotonic()
    assert await backend.logs(request.ref, 2) == "line 1999998\nline 1999999\n"
    assert time.monotonic() - begun < 1


async def test_a_thousand_workspaces_are_listed_in_a_moment(bench: Bench) -> None:
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
    begun = time.monotonic()
    assert len(await backend.list_owned()) == 1000
    assert time.monotonic() - begun < 2  # 0.1 s on an idle machine
