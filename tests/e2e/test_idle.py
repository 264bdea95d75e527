"""A workspace without a task pauses by itself, and comes back when it is wanted. Its wish stays as it was written."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import fault
from tests.support.fleet import Fleet, Object, until, workspace, workspace_class
from tests.support.manifests import LEASED, process_images
from tests.support.processes import room_of, state_of
from tests.support.wild import Wild

from workspace_operator.api import meta

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("wild", "process_class")]

PAUSE_AFTER = 5  # seconds: the least that the schema allows
SOON, LATER = {"pauseAfter": f"{PAUSE_AFTER}s"}, {"pauseAfter": "1h"}
OFTEN = [{"name": "AGENT_LEASE_INTERVAL", "value": "1"}]


def idler(name: str, **spec: Any) -> Object:
    """A reference agent that reports its tasks every second, and may idle."""
    wish = {"agent": LEASED, "env": OFTEN, "idle": SOON, **spec}
    return workspace(name, className="process", **wish)


def wait_asleep(fleet: Fleet, name: str) -> Object:
    """Until it is paused for being idle; its status."""
    fleet.wait_phase(name, "Paused")
    status = fleet.status(name)
    assert (status["effectiveState"], status["effectiveReason"]) == ("Paused", "IdleTimeout"), status
    return status


def wait_awake(fleet: Fleet, name: str) -> Object:
    """Until it runs; its status."""
    fleet.wait_phase(name, "Running")
    status = fleet.status(name)
    assert (status["effectiveState"], status["effectiveReason"]) == ("Running", "User"), status
    assert "pausedTime" not in status["idle"]
    return status


def work(endpoint: str) -> datetime:
    """Give the agent a task directly, and wait for its answer: when that came."""
    message = {"kind": "message", "role": "user", "messageId": "m", "parts": [{"kind": "text", "text": "hello"}]}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}})
    request = urllib.request.Request(endpoint, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["result"]["status"]["state"] == "completed"
    return datetime.now(UTC)


def report(fleet: Fleet, name: str, tasks: int) -> None:
    """Change the number on the agent's Lease by hand; without a renewal no watch takes notice of it."""
    patch = {"metadata": {"annotations": {meta.ACTIVE_TASKS_ANNOTATION: str(tasks)}}}
    fleet.kubectl("patch", "lease", f"workspace-{name}", "--type=merge", "-p", json.dumps(patch))


def reported(fleet: Fleet, name: str) -> str | None:
    """The number on the agent's Lease."""
    lease = json.loads(fleet.kubectl("get", "lease", f"workspace-{name}", "-o", "json"))
    found: str | None = lease["metadata"].get("annotations", {}).get(meta.ACTIVE_TASKS_ANNOTATION)
    return found


def last_task(fleet: Fleet, name: str) -> str:
    return str(fleet.status(name)["idle"]["lastTaskTime"])


def test_an_idle_workspace_pauses_by_itself_and_a_manifest_that_is_applied_again_does_not_disturb_it(
    fleet: Fleet,
) -> None:
    """By status alone (I-30); its children go on (I-12, I-29)."""
    manifest = idler("one")
    child = workspace("child", className="process", agent=LEASED, parentRef={"name": "one"})
    fleet.apply(manifest, child)
    fleet.wait_ready("one", "child")
    room = room_of(fleet, "one")
    status = wait_asleep(fleet, "one")

    assert state_of(room.pid) is None
    assert "credentials" not in status and "endpoint" not in status
    assert status["idle"]["lastTaskTime"] < status["idle"]["pausedTime"]
    ready = fleet.condition("one", "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "Paused")
    assert "delegation" in ready["message"] and "spec.restartToken" in ready["message"]
    assert fleet.get("one")["spec"]["desiredState"] == "Running"
    events = until(lambda: fleet.kubectl("get", "events", "--field-selector=reason=Paused", "-o", "json"))
    assert any("It had no task since" in event["message"] for event in json.loads(events)["items"])

    assert "unchanged" in fleet.apply(manifest)
    manifest["metadata"]["labels"] = {"team": "blue"}
    manifest["spec"]["env"] = [*OFTEN, {"name": "COLOR", "value": "blue"}]
    assert "configured" in fleet.apply(manifest)
    until(lambda: fleet.status("one")["observedGeneration"] == fleet.get("one")["metadata"]["generation"] == 2)
    before = fleet.get("one")
    assert (before["status"]["phase"], before["status"]["effectiveReason"]) == ("Paused", "IdleTimeout")
    assert before["status"]["idle"] == status["idle"]
    assert not changes(fleet, 3)
    assert fleet.phase("child") == "Running" and fleet.status("child")["effectiveReason"] == "User"


def changes(fleet: Fleet, seconds: float) -> bool:
    """Whether anything is written to any workspace within so many seconds."""

    def versions() -> set[str]:
        return {item["metadata"]["resourceVersion"] for item in fleet.all()}

    before = versions()
    try:
        until(lambda: versions() != before, seconds)
    except AssertionError:
        return False
    return True


def test_a_workspace_that_may_idle_costs_no_writes_while_it_has_nothing_to_do(fleet: Fleet) -> None:
    """An agent's renewals are no tasks, and time alone is not written."""
    fleet.apply(idler("calm", idle=LATER))
    fleet.wait_ready("calm")
    until(lambda: not changes(fleet, 2), 30)
    assert not changes(fleet, 6)


def test_a_long_task_keeps_it_awake_and_time_counts_from_its_end(fleet: Fleet) -> None:
    """I-22: by the agent's own report; the task takes four times as long as idleness may."""
    fleet.apply(idler("busy", idle=LATER))
    fleet.wait_ready("busy")
    endpoint = fleet.status("busy")["endpoint"]
    fault(endpoint, "slow", seconds=4 * PAUSE_AFTER)
    with ThreadPoolExecutor(1) as pool:
        answer: Future[datetime] = pool.submit(work, endpoint)
        until(lambda: reported(fleet, "busy") == "1")
        fleet.patch("busy", idle=SOON)
        while not answer.done():
            assert "pausedTime" not in fleet.status("busy")["idle"]
    status = wait_asleep(fleet, "busy")
    paused = datetime.fromisoformat(status["idle"]["pausedTime"])
    assert paused - answer.result() > timedelta(seconds=PAUSE_AFTER - 1), "a status has whole seconds"
    assert status["incarnation"] == 1


def test_a_task_that_no_watch_has_told_of_yet_is_seen_by_the_fresh_read(fleet: Fleet) -> None:
    """I-22: at the very moment of the decision, the Lease is read again."""
    fleet.apply(idler("late", idle=LATER))
    fleet.wait_ready("late")
    fault(fleet.status("late")["endpoint"], "silent")  # from now on its Lease is ours to write
    report(fleet, "late", 1)
    fleet.patch("late", idle=SOON)
    for _ in range(2):  # each time that it is due, it turns out to be at work
        known = last_task(fleet, "late")
        until(lambda known=known: last_task(fleet, "late") != known, 60)
        assert wait_awake(fleet, "late")["instance"]["served"]
    report(fleet, "late", 0)
    wait_asleep(fleet, "late")


def test_a_task_that_came_between_the_record_and_the_stop_ends_the_pause(wild: Wild, fleet: Fleet) -> None:
    """I-22: also when the operator dies in between."""
    fleet.apply(idler("saved", idle=LATER))
    fleet.wait_ready("saved")
    pid = room_of(fleet, "saved").pid
    wild.kill()
    fault(fleet.status("saved")["endpoint"], "silent")
    report(fleet, "saved", 1)
    idle = {**fleet.status("saved")["idle"], "pausedTime": "2030-01-01T00:00:00Z"}
    patch = json.dumps({"status": {"idle": idle, "effectiveState": "Paused", "effectiveReason": "IdleTimeout"}})
    fleet.kubectl("patch", "workspace", "saved", "--subresource=status", "--type=merge", "-p", patch)
    wild.revive()
    until(lambda: "pausedTime" not in fleet.status("saved")["idle"], 30)
    status = wait_awake(fleet, "saved")
    assert status["incarnation"] == 1 and state_of(pid) is not None, "it was never stopped"


def test_a_restarted_operator_neither_wakes_what_idles_nor_forgets_to_pause_it(wild: Wild, fleet: Fleet) -> None:
    """The record is in status; after a restart, nothing is written that was not news."""
    fleet.apply(idler("asleep"), idler("awake", idle={"pauseAfter": "10s"}))
    fleet.wait_ready("awake")
    wait_asleep(fleet, "asleep")
    version = fleet.get("asleep")["metadata"]["resourceVersion"]
    wild.crash()
    status = wait_asleep(fleet, "awake")
    assert status["incarnation"] == 1
    after = fleet.get("asleep")
    assert after["metadata"]["resourceVersion"] == version
    assert after["status"]["phase"] == "Paused"


def test_a_restart_token_a_new_wish_and_the_end_of_idleness_wake_it(fleet: Fleet) -> None:
    """Each wakes it once; a token asks for one restart, and the wake is that (I-24)."""
    fleet.apply(idler("again"))
    fleet.wait_ready("again")
    wait_asleep(fleet, "again")

    fleet.patch("again", idle=LATER)  # raising it does not wake
    until(lambda: fleet.status("again")["observedGeneration"] == 2, 30)
    assert fleet.phase("again") == "Paused"

    fleet.patch("again", restartToken="a")
    until(lambda: fleet.status("again").get("restartToken") == "a", 30)
    assert wait_awake(fleet, "again")["incarnation"] == 2
    fleet.patch("again", idle=SOON)
    wait_asleep(fleet, "again")

    fleet.patch("again", idle=LATER)
    fleet.desire("again", "Paused")
    until(lambda: fleet.status("again")["effectiveReason"] == "User", 30)
    assert fleet.phase("again") == "Paused" and "pausedTime" not in fleet.status("again")["idle"]
    fleet.desire("again", "Running")
    assert wait_awake(fleet, "again")["incarnation"] == 2
    fleet.patch("again", idle=SOON)
    wait_asleep(fleet, "again")

    fleet.patch("again", idle=None)
    fleet.wait_phase("again", "Running")
    assert "idle" not in fleet.status("again")
    assert fleet.status("again")["incarnation"] == 2, "each time but the first it has resumed"


def test_what_the_class_freezes_is_frozen_and_goes_on_where_it_was(fleet: Fleet, tmp_path: Path) -> None:
    """It behaves as any paused workspace of its class."""
    class_ = workspace_class("idle-frozen", process=process_images(tmp_path), pauseMode="Freeze")
    fleet.apply(class_)
    fleet.apply(workspace("cold", className="idle-frozen", agent=LEASED, env=OFTEN, idle=SOON))
    fleet.wait_ready("cold")
    pid = room_of(fleet, "cold").pid
    wait_asleep(fleet, "cold")
    assert fleet.condition("cold", "Ready")["reason"] == "Frozen"
    assert state_of(pid) == "T"
    fleet.patch("cold", idle=None)
    fleet.wait_phase("cold", "Running")
    assert room_of(fleet, "cold").pid == pid and state_of(pid) != "T"
    fleet.delete("cold")
    fleet.drop_classes("idle-frozen")
