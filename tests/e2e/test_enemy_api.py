"""The API server goes away and comes back: what was wished meanwhile or right after comes through."""

from __future__ import annotations

import time

import pytest
from tests.support.fleet import until, workspace
from tests.support.processes import room_of, state_of
from tests.support.wild import Wild

pytestmark = pytest.mark.cluster

EIGHT = [f"w{number}" for number in range(8)]


def test_an_api_server_that_restarts_under_load(wild: Wild, process_class: str) -> None:
    """Passes fail and are repeated; watches come back; nothing runs twice (I-28, I-46)."""
    fleet, cluster = wild.fleet, wild.cluster
    fleet.apply(*(workspace(name, className=process_class, image="sleep") for name in EIGHT))
    fleet.wait_ready(*EIGHT[:2])
    for name in EIGHT[:2]:
        fleet.desire(name, "Paused")
    cluster.restart_apiserver(downtime=5)
    fleet.desire(EIGHT[2], "Paused")
    fleet.kubectl("delete", "workspace", EIGHT[3], "--wait=false")
    fleet.apply(workspace("late", className=process_class, image="sleep"))
    time.sleep(0.5)
    # A leader that could not renew for 10 s ends, as it must; then the kubelet starts it again, here the test.
    wild.revive()
    for name in EIGHT[:3]:
        fleet.wait_phase(name, "Paused")
    fleet.kubectl("wait", "--for=delete", f"workspace/{EIGHT[3]}", "--timeout=60s", timeout=70)
    fleet.wait_ready(*EIGHT[4:], "late")
    for name in EIGHT[4:]:
        assert fleet.status(name)["incarnation"] == 1
        assert state_of(room_of(fleet, name).pid)
    fleet.desire("late", "Paused")
    fleet.wait_phase("late", "Paused", 10)


def test_an_operator_that_starts_before_the_api_server(wild: Wild, process_class: str) -> None:
    """It waits, alive and not ready, instead of ending; then it does what was wished."""
    fleet, cluster, operator = wild.fleet, wild.cluster, wild.operator
    fleet.apply(workspace("waiting", className=process_class, image="sleep", desiredState="Paused"))
    fleet.wait_phase("waiting", "Paused")
    assert operator.stop() == 0
    fleet.desire("waiting", "Running")
    cluster.stop_apiserver()
    operator.start(wait=False)
    until(lambda: operator.get("/healthz")[0] == 200, 20)
    time.sleep(2)  # tries meanwhile
    assert operator.alive
    assert operator.get("/healthz")[0] == 200
    code, sentence = operator.get("/readyz")
    assert (code, sentence.strip()) == (500, "the Kubernetes API has not answered yet")
    cluster.start_apiserver()
    operator.wait_ready()
    fleet.wait_phase("waiting", "Running")
