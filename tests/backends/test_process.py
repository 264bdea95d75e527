"""Processes that survive the operator, the hand-over of the lock, and what is read and cleared up afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.backends.process_kit import AT_ONCE, Bench, run, see, until

from workspace_operator.backends import process
from workspace_operator.backends.process import system
from workspace_operator.backends.protocol import LIVE, Reading, StopRequest
from workspace_operator.errors import BackendError, BackendUnreachable


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
from tests.backends.process_kit import CLUSTER, spec
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
    # Between fork and exec the environment is not the workload's yet.
    await until(lambda: system.carriers().get(str(bench.room(request))) == [bench.mark(request).pid])


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
    pid = bench.mark(request).pid
    await backend.stop(StopRequest(request.ref, AT_ONCE, release=True))
    assert await backend.delete_data(request.ref)
    assert not bench.home(request).exists()
    await until(lambda: not Path(f"/proc/{pid}").exists())


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
