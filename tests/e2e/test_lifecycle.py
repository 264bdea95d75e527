"""The main job, told as scenarios, on the real API server and each backend's real part."""

from __future__ import annotations

import pytest
from tests.support.agents import card, fault
from tests.support.fleet import Fleet, until, workspace
from tests.support.operator import Operator

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

LEASED = {"port": 8080, "probe": "Lease"}
CARD = {"port": 8080, "probe": "AgentCard"}


@pytest.fixture(params=["process", "docker"])
def class_name(request: pytest.FixtureRequest) -> str:
    """The same tests on every backend (I-01)."""
    return str(request.getfixturevalue(f"{request.param}_class"))


def test_a_workspace_runs_pauses_resumes_stops_and_goes(fleet: Fleet, operator: Operator, class_name: str) -> None:
    """Each transition of a wish takes effect and is confirmed by observation (I-23, I-27, I-31)."""
    fleet.apply(workspace("one", className=class_name, agent=LEASED, storage={}))
    fleet.wait_ready("one")
    assert fleet.phase("one") == "Running"
    assert card(fleet.status("one")["endpoint"])["name"]

    fleet.desire("one", "Paused")
    fleet.wait_phase("one", "Paused")
    assert fleet.condition("one", "Ready")["status"] == "True"
    assert fleet.condition("one", "Available")["status"] == "False"
    assert fleet.condition("one", "StopConfirmed")["status"] == "True"
    assert "endpoint" not in fleet.status("one")

    fleet.desire("one", "Running")
    fleet.wait_phase("one", "Running")
    assert fleet.status("one")["instance"]["incarnation"] == 1, "a resume keeps the instance"
    assert fleet.condition("one", "StopConfirmed") is None

    fleet.desire("one", "Stopped")
    fleet.wait_phase("one", "Stopped")
    assert "instance" not in fleet.status("one")

    fleet.desire("one", "Running")
    fleet.wait_phase("one", "Running")
    assert fleet.status("one")["instance"]["incarnation"] == 2, "a released instance's name is never used again"
    fleet.delete("one")


def test_a_changed_restart_token_costs_exactly_one_restart(fleet: Fleet, operator: Operator, class_name: str) -> None:
    """N requests cost at least one and at most two cycles (I-24)."""
    fleet.apply(workspace("again", className=class_name, agent=CARD))
    fleet.wait_ready("again")
    fleet.patch("again", restartToken="a")
    until(lambda: fleet.status("again").get("restartToken") == "a", 30)
    fleet.wait_phase("again", "Running")
    until(lambda: fleet.status("again")["instance"]["incarnation"] == 2)
    fault(fleet.status("again")["endpoint"], "ignore-sigterm")  # the next restart takes a whole grace period
    for token in "bcdef":
        fleet.patch("again", restartToken=token)
    until(lambda: fleet.status("again").get("restartToken") == "f" and fleet.phase("again") == "Running", 60)
    assert fleet.status("again")["incarnation"] in (3, 4)


def test_a_changed_template_waits_for_a_restart(fleet: Fleet, operator: Operator, class_name: str) -> None:
    """Drift is shown as pendingRestart; updatePolicy decides (I-84)."""
    fleet.apply(workspace("drift", className=class_name, agent=CARD))
    fleet.wait_ready("drift")
    fleet.patch("drift", env=[{"name": "COLOR", "value": "blue"}])
    until(lambda: fleet.status("drift").get("pendingRestart"), 20)
    assert fleet.status("drift")["incarnation"] == 1
    fleet.patch("drift", updatePolicy="Automatic")
    until(lambda: fleet.status("drift")["incarnation"] == 2 and fleet.phase("drift") == "Running", 60)
    assert not fleet.status("drift").get("pendingRestart")


def test_children_follow_their_ancestors_and_keep_their_own_wish(
    fleet: Fleet, operator: Operator, class_name: str
) -> None:
    """Effective state walks all ancestors (I-12); a child's own wish is never written (I-29, I-30)."""
    fleet.apply(
        workspace("root", className=class_name, agent=CARD),
        workspace("middle", className=class_name, agent=CARD, parentRef={"name": "root"}),
        workspace("leaf", className=class_name, agent=CARD, parentRef={"name": "middle"}),
        workspace("asleep", className=class_name, agent=CARD, parentRef={"name": "root"}, desiredState="Paused"),
    )
    fleet.wait_ready()
    fleet.desire("root", "Paused")
    for name in ("root", "middle", "leaf"):
        fleet.wait_phase(name, "Paused")
    assert fleet.status("leaf")["effectiveReason"] == "Parent"
    assert fleet.get("leaf")["spec"]["desiredState"] == "Running"
    fleet.desire("root", "Running")
    for name in ("root", "middle", "leaf"):
        fleet.wait_phase(name, "Running")
    assert fleet.phase("asleep") == "Paused"
