"""The engine stops, freezes and comes back under the operator: an error is not a reading."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.support.containers import Containers
from tests.support.fleet import Fleet, until, workspace
from tests.support.manifests import idle
from tests.support.operator import Operator

from controlplane.engine import DockerEngine

pytestmark = [pytest.mark.cluster, pytest.mark.engine]


@pytest.fixture(autouse=True)
def whole(engine: DockerEngine, fleet: Fleet) -> Iterator[None]:
    """The engine answers again when the test is over, whatever happened."""
    yield
    engine.continue_process()
    if not engine.responds():
        engine.start_process()


def test_an_engine_that_stops_and_comes_back(
    fleet: Fleet, operator: Operator, containers: Containers, engine: DockerEngine, docker_class: str
) -> None:
    """Nothing is restarted, claimed or forgotten because of an error (I-03, I-04, I-23, I-40)."""
    names = ("steady", "pausing", "stopping", "deleted", "coming")
    fleet.apply(*(idle(name) for name in names[:-1]))
    fleet.wait_ready(*names[:-1])
    gone = fleet.get("deleted")
    engine.kill_process()
    for name in names[:-1]:
        until(lambda name=name: fleet.condition(name, "BackendReachable")["status"] == "False", 20)
    assert fleet.phase("steady") == "Unknown"
    ready = fleet.condition("steady", "Ready")
    assert (ready["status"], ready["reason"]) == ("Unknown", "BackendUnreachable")
    assert fleet.condition("steady", "Available")["status"] == "Unknown"
    assert "failures" not in fleet.status("steady"), "an engine that is away is no failure of the workspace"

    fleet.desire("pausing", "Paused")
    fleet.desire("stopping", "Stopped")
    fleet.kubectl("delete", "workspace", "deleted", "--wait=false")
    fleet.apply(idle("coming"))
    for name in names[1:4]:
        until(lambda name=name: fleet.condition(name, "StopConfirmed") is not None, 20)
        assert fleet.condition(name, "StopConfirmed")["status"] == "False"
        assert fleet.condition(name, "Ready")["status"] == "Unknown"
    until(lambda: fleet.condition("coming", "BackendReachable"), 20)
    assert fleet.condition("coming", "Ready")["status"] != "True"
    class_ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    until(lambda: fleet.kubectl("get", "workspaceclass", docker_class, "-o", class_ready) != "True", 20)

    engine.start_process()
    fleet.wait_phase("pausing", "Paused")
    fleet.wait_phase("stopping", "Stopped")
    fleet.kubectl("wait", "--for=delete", "workspace/deleted", "--timeout=60s", timeout=70)
    fleet.wait_ready("steady", "coming")
    assert containers.of(gone) == containers.of(fleet.get("stopping")) == []
    assert containers.only(fleet.get("pausing")).status == "exited"
    for name in ("steady", "coming"):
        assert containers.only(fleet.get(name)).status == "running"
        assert fleet.status(name)["incarnation"] == 1
    until(lambda: fleet.kubectl("get", "workspaceclass", docker_class, "-o", class_ready) == "True", 20)


def test_an_engine_that_hangs_delays_its_own_workspaces_only(
    fleet: Fleet,
    operator: Operator,
    containers: Containers,
    engine: DockerEngine,
    docker_class: str,
    process_class: str,
) -> None:
    """Bulkhead: every call has a deadline (I-45); what hangs is unknown, not dead (I-40)."""
    fleet.apply(*(idle(f"d{number}") for number in range(3)), workspace("p", className=process_class, image="sleep"))
    fleet.wait_ready()
    started = [containers.only(fleet.get(f"d{number}")).attrs["State"]["StartedAt"] for number in range(3)]
    engine.pause_process()
    for number in range(3):
        fleet.patch(f"d{number}", restartToken="now")  # so that verbs hang, too
    fleet.apply(*(idle(f"new{number}") for number in range(3)))
    for state in ("Paused", "Running", "Stopped", "Running"):
        begin = time.monotonic()
        fleet.desire("p", state)
        fleet.wait_phase("p", state, 10)
        assert time.monotonic() - begin < 5, "another class's engine must not slow this one"
    assert operator.get("/healthz")[0] == 200
    until(lambda: fleet.condition("d0", "BackendReachable")["status"] == "False", 40)
    assert fleet.condition("d0", "Ready")["status"] == "Unknown"
    engine.continue_process()
    fleet.wait_ready()
    until(lambda: all(fleet.status(f"d{n}").get("restartToken") == "now" for n in range(3)))
    fleet.wait_ready()
    for number in range(3):
        container = containers.only(fleet.get(f"d{number}"))
        assert container.status == "running"
        assert container.attrs["State"]["StartedAt"] not in started
        assert fleet.status(f"d{number}")["incarnation"] == 2, "one restart for one token, whatever was asked again"
        containers.only(fleet.get(f"new{number}"))
