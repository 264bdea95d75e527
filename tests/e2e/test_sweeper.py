"""Compute without a workspace is found and removed; nothing else is (I-15 to I-18)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.containers import Containers
from tests.support.fleet import Fleet, until, workspace, workspace_class
from tests.support.manifests import IDLE_COMMAND, process_images
from tests.support.operator import Operator
from tests.support.processes import room_of, state_of

from controlplane.engine import DockerEngine
from controlplane.kubectl import Cluster
from workspace_operator.api import meta

pytestmark = pytest.mark.cluster

QUICK = {"interval": "5s", "gracePeriod": "3s"}
Class = Callable[..., str]


@pytest.fixture
def admin(cluster: Cluster) -> Fleet:
    return Fleet(cluster, "default")


@pytest.fixture
def processes(admin: Fleet, operator: Operator, tmp_path: Any) -> Iterator[Class]:
    """Makes classes of plain processes that are swept often."""
    made: list[str] = []

    def make(name: str, **sweep: Any) -> str:
        spec = {"process": process_images(tmp_path / name), "identity": {"mode": "None"}, "stopGracePeriod": "1s"}
        admin.apply(workspace_class(name, **spec, sweep={**QUICK, **sweep}, observeInterval="2s"))
        made.append(name)
        return name

    yield make
    for name in made:
        admin.drop_classes(name)


def leak(operator: Operator, fleet: Fleet, *names: str) -> None:
    """Lose workspaces while no operator runs, as a control plane restored from an old backup would."""
    operator.stop()
    for name in names:
        fleet.kubectl("patch", "workspace", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    fleet.kubectl("delete", "workspace", *names)
    operator.start()


def sweep_of(admin: Fleet, name: str) -> dict[str, Any]:
    return dict(
        json.loads(admin.kubectl("get", "workspaceclass", name, "-o", "json")).get("status", {}).get("sweep", {})
    )


def condition(admin: Fleet, name: str, kind: str) -> dict[str, Any] | None:
    status = json.loads(admin.kubectl("get", "workspaceclass", name, "-o", "json"))["status"]
    return next((c for c in status["conditions"] if c["type"] == kind), None)


def test_a_leak_is_removed_and_what_is_owned_stays(
    fleet: Fleet, admin: Fleet, operator: Operator, processes: Class
) -> None:
    """Unknown owner: found, removed, seen gone, counted and told (I-16, I-17)."""
    name = processes("swept")
    fleet.apply(*(workspace(w, image="sleep", className=name) for w in ("kept", "paused", "leaked")))
    fleet.wait_ready()
    fleet.desire("paused", "Paused")
    fleet.wait_phase("paused", "Paused")
    kept, leaked = room_of(fleet, "kept").pid, room_of(fleet, "leaked").pid
    leak(operator, fleet, "leaked")
    until(lambda: state_of(leaked) is None, 60, lambda: operator.tail())
    until(lambda: sweep_of(admin, name).get("removed") == 1, 60, lambda: str(sweep_of(admin, name)))
    assert state_of(kept) is not None
    assert sweep_of(admin, name)["orphans"] == 0
    assert condition(admin, name, "Swept")["status"] == "True"
    events = admin.kubectl("get", "events", "--field-selector", f"involvedObject.name={name},reason=OrphanRemoved")
    assert f"{fleet.namespace}/leaked" in events
    assert operator.metric("workspace_operator_orphans_removed_total", **{"class": name}) == 1
    assert "ORPHANS" in admin.kubectl("get", "workspaceclasses", name)


def test_emptied_resources_blow_the_fuse_until_a_person_agrees(
    fleet: Fleet, admin: Fleet, operator: Operator, processes: Class
) -> None:
    """I-16: a wiped control plane makes every instance an orphan; none is removed before somebody says so."""
    name = processes("fused")
    names = [f"w{number}" for number in range(6)]
    fleet.apply(*(workspace(w, image="sleep", className=name, storage={"whenDeleted": "Delete"}) for w in names))
    fleet.wait_ready()
    rooms = [room_of(fleet, w) for w in names]
    leak(operator, fleet, *names)
    stalled = until(lambda: condition(admin, name, "Stalled"), 60, lambda: str(sweep_of(admin, name)))
    assert (stalled["status"], stalled["reason"]) == ("True", "SweepFuseBlown")
    until(lambda: sweep_of(admin, name).get("orphans") == 6)
    first = sweep_of(admin, name)["lastCompleteTime"]
    until(lambda: sweep_of(admin, name)["lastCompleteTime"] > first, 60)
    assert all(state_of(room.pid) is not None for room in rooms), "nothing is removed"
    assert operator.metric("workspace_operator_sweep_fuse_blown", **{"class": name}) == 1

    token = sweep_of(admin, name)["fuse"]["token"]
    order = f"kubectl annotate --overwrite workspaceclass {name} {meta.RELEASE_FUSE_ANNOTATION}={token}"
    assert order in stalled["message"], "the sentence says what to do"
    operator.stop()  # the blown fuse survives a restart
    operator.start()
    admin.kubectl(*order.split()[1:])
    until(lambda: all(state_of(room.pid) is None for room in rooms), 90, lambda: operator.tail())
    until(lambda: sweep_of(admin, name)["removed"] == 6, 60)
    assert condition(admin, name, "Stalled") is None
    assert all((room.path.parent / "data").exists() for room in rooms), "a volume is never removed for being unknown"


def test_report_mode_removes_nothing(fleet: Fleet, admin: Fleet, operator: Operator, processes: Class) -> None:
    """Counted and told once, so that a person can look before choosing Remove."""
    name = processes("reported", mode="Report")
    fleet.apply(workspace("leaked", image="sleep", className=name))
    fleet.wait_ready("leaked")
    pid = room_of(fleet, "leaked").pid
    leak(operator, fleet, "leaked")
    swept = until(lambda: (c := condition(admin, name, "Swept")) and c["reason"] == "OrphansFound" and c, 60)
    assert "leaked" in swept["message"]
    begun = sweep_of(admin, name)["lastCompleteTime"]
    until(lambda: sweep_of(admin, name)["lastCompleteTime"] > begun, 60)
    assert state_of(pid) is not None
    admin.kubectl("patch", "workspaceclass", name, "--type=merge", "-p", '{"spec":{"sweep":{"mode":"Remove"}}}')
    until(lambda: state_of(pid) is None, 60, lambda: operator.tail())


@pytest.mark.engine
def test_a_container_with_copied_labels_goes_and_a_stranger_stays(
    fleet: Fleet, admin: Fleet, operator: Operator, containers: Containers, engine: DockerEngine, docker_class: str
) -> None:
    """Labels of a deleted workspace, and of another cluster (I-15). A container without our labels is not ours."""
    fleet.apply(workspace("gone", className=docker_class, command=IDLE_COMMAND))
    fleet.wait_ready("gone")
    original = containers.only(fleet.get("gone"))
    image, labels = original.image.id, dict(original.labels)
    fleet.delete("gone")
    run = containers.client.containers.run
    copy = run(image, IDLE_COMMAND, detach=True, labels=labels, name="copied")
    foreign = run(image, IDLE_COMMAND, detach=True, labels={**labels, meta.LABEL_CLUSTER: "another"}, name="foreign")
    stranger = run(image, IDLE_COMMAND, detach=True, name="stranger")
    # Not before: the copy would be gone between its making and its start.
    admin.kubectl("patch", "workspaceclass", docker_class, "--type=merge", "-p", json.dumps({"spec": {"sweep": QUICK}}))
    try:
        until(
            lambda: not containers.client.containers.list(all=True, filters={"id": copy.id}, sparse=True),
            60,
            operator.tail,
        )
        for spared in (foreign, stranger):
            spared.reload()
            assert spared.status == "running"
    finally:
        foreign.remove(force=True)
        stranger.remove(force=True)


def test_a_class_in_use_stays_until_its_workspaces_are_gone(
    fleet: Fleet, admin: Fleet, operator: Operator, processes: Class
) -> None:
    """Without its class nobody could stop a machine any more."""
    name = processes("inuse")
    fleet.apply(workspace("user", image="sleep", className=name))
    fleet.wait_ready("user")
    admin.kubectl("delete", "workspaceclass", name, "--wait=false")
    ready = until(lambda: (c := condition(admin, name, "Ready")) and c["reason"] == "ClassDeleting" and c)
    assert f"{fleet.namespace}/user" in ready["message"]
    fleet.delete("user")
    until(lambda: name not in admin.kubectl("get", "workspaceclasses", "-o", "name"), 60, operator.tail)
