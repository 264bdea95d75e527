"""One pause for a family that lives on three backends, shown by each backend itself."""

from __future__ import annotations

import pytest
from tests.support.containers import Containers
from tests.support.ec2 import Account
from tests.support.fleet import Fleet, Object, workspace
from tests.support.manifests import idle
from tests.support.operator import Operator
from tests.support.processes import room_of, state_of

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

RUNNING = ("machine", "container", "grandchild")


def test_a_parents_pause_stops_machine_container_and_process(
    fleet: Fleet, operator: Operator, account: Account, containers: Containers, docker_class: str, process_class: str
) -> None:
    """Nobody's compute runs on, whatever it is made of, and each child keeps its own wish (I-01, I-02, I-12, I-29)."""
    region, parent = account.ec2, {"parentRef": {"name": "parent"}}
    class_name = account.put_class("machines")
    fleet.apply(
        workspace("parent", className=process_class, image="sleep"),
        workspace("machine", className=class_name, storage={"whenDeleted": "Delete"}, **parent),
        workspace("asleep", className=class_name, **parent),
        idle("container", **parent),
        workspace("grandchild", className=process_class, image="sleep", parentRef={"name": "machine"}),
    )
    fleet.wait_ready(seconds=120)
    fleet.desire("asleep", "Paused")  # a wish of its own, which is to hold through all that follows
    fleet.wait_phase("asleep", "Paused")
    before = {name: fleet.get(name) for name in (*RUNNING, "asleep")}
    machine, asleep, pid = _id(before["machine"]), _id(before["asleep"]), room_of(fleet, "grandchild").pid

    fleet.desire("parent", "Paused")
    for name in RUNNING:
        fleet.wait_phase(name, "Paused")
    assert region.instance(machine).state == "stopped"
    assert containers.only(before["container"]).status == "exited"
    assert state_of(pid) is None
    for name in RUNNING:
        status = fleet.status(name)
        assert (status["effectiveState"], status["effectiveReason"]) == ("Paused", "Parent")
        assert fleet.condition(name, "StopConfirmed")["status"] == "True"
        assert fleet.condition(name, "Ready")["status"] == "True"

    fleet.desire("parent", "Running")
    for name in RUNNING:
        fleet.wait_phase(name, "Running")
        status = fleet.status(name)
        assert (status["effectiveState"], status["effectiveReason"]) == ("Running", "User")
        assert _id(fleet.get(name)) == _id(before[name]) or name == "grandchild", "a resume keeps the instance"
    assert region.instance(machine).state == "running"
    assert containers.only(before["container"]).status == "running"
    assert state_of(room_of(fleet, "grandchild").pid)
    assert (fleet.phase("asleep"), region.instance(asleep).state) == ("Paused", "stopped")
    assert {name: fleet.get(name)["spec"] for name in before} == {name: one["spec"] for name, one in before.items()}


def _id(seen: Object) -> str:
    return str(seen["status"]["instance"]["id"])
