"""Someone works on the engine by hand: what breaks a wish is put right, what is not ours is left alone."""

from __future__ import annotations

import pytest
from tests.support.containers import Containers
from tests.support.fleet import Fleet, until
from tests.support.manifests import IDLE_COMMAND, idle
from tests.support.operator import Operator

pytestmark = [pytest.mark.cluster, pytest.mark.engine]


def test_a_removed_container_is_replaced(
    fleet: Fleet, operator: Operator, containers: Containers, docker_class: str
) -> None:
    """``docker rm -f``: a new incarnation, whose name was never used (I-08)."""
    fleet.apply(idle("removed"))
    fleet.wait_ready("removed")
    containers.only(fleet.get("removed")).remove(force=True)
    until(lambda: fleet.status("removed")["instance"]["incarnation"] == 2 and fleet.phase("removed") == "Running")
    assert containers.only(fleet.get("removed")).name.endswith("-2")
    assert fleet.status("removed")["failures"]["reason"] == "InstanceLost"


def test_a_stopped_container_is_started_again(
    fleet: Fleet, operator: Operator, containers: Containers, docker_class: str
) -> None:
    """``docker stop``: the same container, after a back-off."""
    fleet.apply(idle("stopped"))
    fleet.wait_ready("stopped")
    container = containers.only(fleet.get("stopped"))
    container.stop(timeout=1)
    until(lambda: (fleet.status("stopped").get("failures") or {}).get("count") == 1)
    until(lambda: fleet.phase("stopped") == "Running")
    again = containers.only(fleet.get("stopped"))
    assert (again.id, again.status) == (container.id, "running")
    assert fleet.status("stopped")["failures"]["reason"] == "InstanceExited"


def test_a_paused_workspace_that_someone_starts_is_stopped_again(
    fleet: Fleet, operator: Operator, containers: Containers, docker_class: str
) -> None:
    """Observation never changes the wish (I-20); nothing runs while the status says Paused (I-18)."""
    fleet.apply(idle("asleep"), idle("frozen"))
    fleet.wait_ready()
    fleet.desire("asleep", "Paused")
    fleet.wait_phase("asleep", "Paused")
    container = containers.only(fleet.get("asleep"))
    container.start()
    until(lambda: container.reload() or container.status == "exited", 30)
    fleet.wait_phase("asleep", "Paused")
    assert fleet.get("asleep")["spec"]["desiredState"] == "Paused"

    frozen = containers.only(fleet.get("frozen"))
    frozen.pause()
    until(lambda: frozen.reload() or frozen.status == "running", 30)
    fleet.wait_phase("frozen", "Running")


def test_a_strangers_container_of_our_name_is_never_touched(
    fleet: Fleet, operator: Operator, containers: Containers, docker_class: str, agent_image: str
) -> None:
    """Adoption is by label, never by name alone (I-11, I-15); the message says what to do (I-81)."""
    fleet.apply(idle("named", desiredState="Stopped"))
    fleet.wait_phase("named", "Stopped")
    name = f"wsp-{fleet.get('named')['metadata']['uid']}-1"
    foreign = containers.client.containers.run(
        agent_image, ["-c", "pass"], entrypoint=IDLE_COMMAND, name=name, detach=True
    )
    try:
        foreign.reload()
        started = foreign.attrs["State"]["StartedAt"]
        fleet.desire("named", "Running")
        ready = fleet.wait_reason("named", "ProvisionFailed", seconds=20)
        assert name in ready["message"] and "is left alone. Rename or remove it" in ready["message"]
        until(lambda: fleet.status("named")["failures"]["count"] >= 2, 20)
        foreign.reload()
        assert (foreign.status, foreign.attrs["State"]["StartedAt"]) == ("running", started)
    finally:
        foreign.remove(force=True)
    fleet.wait_ready("named")


def test_an_image_that_is_missing_is_asked_for(
    fleet: Fleet, operator: Operator, containers: Containers, docker_class: str, agent_image: str
) -> None:
    """pullPolicy Never: the sentence names the image; once it is built, the workspace starts by itself."""
    missing = f"workspace-operator/{fleet.namespace}:dev"
    fleet.apply(idle("built-later", image=missing))
    ready = fleet.wait_reason("built-later", "ImageNotFound")
    assert missing in ready["message"] and "never pulls" in ready["message"]
    containers.client.images.get(agent_image).tag(missing)
    fleet.wait_ready("built-later", seconds=30)
