"""kill -9 of the operator at any moment: no second container, no lost wish, nothing left behind."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from tests.support.containers import Containers
from tests.support.fleet import Fleet, until
from tests.support.manifests import idle
from tests.support.wild import Wild

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

SIX = [f"w{number}" for number in range(6)]


MOMENTS = ((0.0,), (0.05,), (0.1,), (0.2,), (0.4,), (0.1, 0.0, 0.15))  # seconds after the apply, and after each start


def test_killed_during_a_provision(wild: Wild, containers: Containers, docker_class: str) -> None:
    """Exactly one container per workspace, Ready, whatever was under way, once or again (I-05, I-06, I-09, I-11)."""
    fleet = wild.fleet
    for number, moments in enumerate(MOMENTS):
        names = [f"{name}-{number}" for name in SIX]
        fleet.apply(*(idle(name, storage={"whenDeleted": "Delete"}) for name in names))
        for moment in moments:
            wild.crash(after=moment)
        fleet.wait_ready(*names)
        for name in names:
            container = containers.only(fleet.get(name))
            assert container.status == "running"
            assert container.id == fleet.status(name)["instance"]["id"]
            assert fleet.status(name)["incarnation"] == 1, "the lost call was asked again, not made anew"


@pytest.mark.parametrize("moment", [0.02, 0.2])
def test_killed_during_pause_stop_and_delete(
    wild: Wild, containers: Containers, docker_class: str, moment: float
) -> None:
    """Converges to what was wished; of the deleted ones nothing is left, and no finalizer goes early (I-10)."""
    fleet = wild.fleet
    fleet.apply(*(idle(name, storage={"whenDeleted": "Delete"}) for name in SIX))
    fleet.wait_ready(*SIX)
    gone = [fleet.get(name) for name in SIX[4:]]
    for name in SIX[:2]:
        fleet.desire(name, "Paused")
    for name in SIX[2:4]:
        fleet.desire(name, "Stopped")
    fleet.kubectl("delete", "workspace", "--wait=false", *SIX[4:])
    wild.crash(after=moment)
    for name in SIX[:2]:
        fleet.wait_phase(name, "Paused", 30)
        assert containers.only(fleet.get(name)).status == "exited"
    for name in SIX[2:4]:
        fleet.wait_phase(name, "Stopped", 30)
        assert containers.of(fleet.get(name)) == []
    fleet.kubectl("wait", "--for=delete", *(f"workspace/{name}" for name in SIX[4:]), "--timeout=30s")
    volumes = {volume.name for volume in containers.client.volumes.list()}
    for workspace in gone:
        assert containers.of(workspace) == []
        assert f"wsp-{workspace['metadata']['uid']}-data" not in volumes


def test_a_wish_made_while_no_operator_runs_is_not_lost(wild: Wild, containers: Containers, docker_class: str) -> None:
    """The object is all there is; many changes meanwhile cost one effect (I-24)."""
    fleet = wild.fleet
    fleet.apply(idle("sleeper"), idle("waker", desiredState="Paused"), idle("again"))
    fleet.wait_ready()
    wild.kill()
    fleet.desire("sleeper", "Paused")
    fleet.desire("waker", "Running")
    for token in "abc":
        fleet.patch("again", restartToken=token)
    wild.revive()
    fleet.wait_phase("sleeper", "Paused")
    fleet.wait_phase("waker", "Running")
    until(lambda: fleet.status("again").get("restartToken") == "c" and fleet.phase("again") == "Running")
    assert fleet.status("again")["incarnation"] == 2
    assert len(containers.of_namespace(fleet.namespace)) == 3


def test_sigterm_ends_the_operator_and_nothing_else(wild: Wild, containers: Containers, docker_class: str) -> None:
    """Exit code 0 within 20 s; containers run on, and a new operator adopts them as they are (I-11)."""
    fleet = wild.fleet
    fleet.apply(idle("one"), idle("two"))
    fleet.wait_ready()
    before = {name: (containers.only(fleet.get(name)).id, fleet.get(name)["metadata"]) for name in ("one", "two")}
    fleet.apply(idle("late"))  # work in flight
    pid = wild.operator.pid
    process = wild.operator
    assert process.stop() == 0, f"{pid}: {process.tail()}"
    assert "Traceback" not in process.tail(200)
    assert all(containers.only(fleet.get(name)).status == "running" for name in before)
    wild.revive()
    fleet.wait_ready()
    for name, (container, metadata) in before.items():
        assert containers.only(fleet.get(name)).id == container
        assert fleet.get(name)["metadata"]["resourceVersion"] == metadata["resourceVersion"], "no write by a restart"


def test_a_namespace_full_of_workspaces_can_be_deleted(
    wild: Wild, containers: Containers, docker_class: str, process_class: str
) -> None:
    """Finalizers do not block it (I-87); one that never had compute goes at once (I-10)."""
    cluster = wild.cluster
    cluster.kubectl("create", "namespace", "doomed")
    doomed = Fleet(cluster, "doomed")
    doomed.apply(idle("running"), idle("paused", desiredState="Paused"), idle("lost"))
    doomed.patch("lost", image="no-such-image")
    doomed.wait_ready("running", "paused")
    nowhere = idle("nowhere")
    nowhere["spec"]["className"] = "nonexistent"
    doomed.apply(nowhere)
    doomed.wait_reason("nowhere", "ClassNotFound")
    doomed.delete("nowhere", seconds=5)
    cluster.kubectl("delete", "namespace", "doomed", "--timeout=60s", timeout=70)
    assert containers.of_namespace("doomed") == []


def test_a_wiped_status_is_rebuilt_from_observation(wild: Wild, containers: Containers, docker_class: str) -> None:
    """Neither a restart nor a second container: names and labels say what belongs to whom (I-09, I-11)."""
    fleet = wild.fleet
    fleet.apply(idle("running"), idle("paused"))
    fleet.wait_ready()
    fleet.desire("paused", "Paused")
    fleet.wait_phase("paused", "Paused")
    started = {name: _started(containers, fleet, name) for name in ("running", "paused")}
    for name in started:
        patch = '[{"op": "remove", "path": "/status"}]'
        fleet.kubectl("patch", "workspace", name, "--subresource=status", "--type=json", "-p", patch)
    until(lambda: fleet.phase("running") == "Running" and fleet.phase("paused") == "Paused")
    fleet.wait_ready()
    assert {name: _started(containers, fleet, name) for name in started} == started
    assert fleet.status("running")["incarnation"] == 1
    assert fleet.status("running")["instance"]["id"] == started["running"][0]
    fleet.desire("paused", "Stopped")
    fleet.wait_phase("paused", "Stopped")
    assert containers.of(fleet.get("paused")) == []


def _started(containers: Containers, fleet: Fleet, name: str) -> tuple[str, str]:
    container = containers.only(fleet.get(name))
    return container.id, container.attrs["State"]["StartedAt"]


def test_events_tell_transitions_only(wild: Wild, docker_class: str) -> None:
    """A walk through three states leaves a handful of Events, none twice for one transition."""
    fleet = wild.fleet
    fleet.apply(idle("told"))
    fleet.wait_ready("told")
    for state in ("Paused", "Stopped"):
        fleet.desire("told", state)
        fleet.wait_phase("told", state)

    def reasons() -> Counter[str]:
        items = json.loads(fleet.kubectl("get", "events", "-o", "json"))["items"]
        return Counter(item["reason"] for item in items)

    until(lambda: set(reasons()) >= {"Running", "Paused", "Stopped"}, 5, lambda: str(reasons()))
    assert max(reasons().values()) == 1
