"""Two operators started by mistake: one acts, the other takes over when the first is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.containers import Containers
from tests.support.fleet import until
from tests.support.manifests import idle
from tests.support.operator import Operator
from tests.support.wild import Wild

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

TAKE_OVER = 60  # seconds at most: the Lease lasts 15, looked at every 2
SIX = [f"w{number}" for number in range(6)]


@pytest.fixture
def rival(wild: Wild, operator_kubeconfig: Path, tmp_path: Path) -> Iterator[Operator]:
    """A second operator on the same Lease."""
    with Operator(operator_kubeconfig, tmp_path, lease="wild") as running:
        yield running


def holder(wild: Wild) -> str:
    """Who has the Lease."""
    arguments = ("get", "lease", "wild", "-n", "workspace-operator-system", "-o=jsonpath={.spec.holderIdentity}")
    return wild.cluster.kubectl(*arguments)


def test_of_two_operators_one_acts_and_the_other_takes_over(
    wild: Wild, rival: Operator, containers: Containers, docker_class: str
) -> None:
    """Hand-over by Lease with work in flight; no second container (I-06, I-90)."""
    fleet, leader = wild.fleet, wild.operator
    fleet.apply(idle("before"))
    fleet.wait_ready("before")
    assert leader.metric("workspace_operator_leader") == 1
    assert rival.metric("workspace_operator_leader") == 0
    assert rival.metric("workspace_operator_verbs_total") == 0
    assert rival.metric("workspace_operator_kube_requests_total", verb="PATCH") == 0
    assert rival.get("/healthz")[0] == rival.get("/readyz")[0] == 200, "a follower is well"

    fleet.apply(*(idle(name) for name in SIX))
    fleet.desire("before", "Paused")
    leader.kill()
    killed = time.monotonic()
    until(lambda: rival.metric("workspace_operator_leader") == 1, TAKE_OVER)
    assert time.monotonic() - killed > 5, "not before the Lease of the other had time to run out"
    fleet.wait_ready(*SIX)
    fleet.wait_phase("before", "Paused")
    for name in SIX:
        assert containers.only(fleet.get(name)).status == "running"
        assert fleet.status(name)["incarnation"] == 1

    leader.start(wait=False)  # the first comes back and follows
    until(lambda: leader.get("/readyz")[0] == 200, 20)
    held = holder(wild)
    assert rival.stop() == 0
    assert holder(wild) != held, "a clean exit gives the Lease back at once"
    until(lambda: leader.metric("workspace_operator_leader") == 1, TAKE_OVER)
    fleet.desire("before", "Running")
    fleet.wait_phase("before", "Running")


def test_a_leader_that_was_frozen_does_not_act_beside_the_next(
    wild: Wild, rival: Operator, containers: Containers, docker_class: str
) -> None:
    """Stopped for longer than its Lease and continued: it ends at once, without another verb (I-90)."""
    fleet, leader = wild.fleet, wild.operator
    fleet.apply(idle("one"))
    fleet.wait_ready("one")
    os.kill(leader.pid, signal.SIGSTOP)
    fleet.desire("one", "Paused")
    until(lambda: rival.metric("workspace_operator_leader") == 1, TAKE_OVER)
    fleet.wait_phase("one", "Paused")
    os.kill(leader.pid, signal.SIGCONT)
    until(lambda: not leader.alive)
    assert rival.metric("workspace_operator_leader") == 1
    assert fleet.phase("one") == "Paused"
    assert containers.only(fleet.get("one")).status == "exited"
    assert rival.stop() == 0
