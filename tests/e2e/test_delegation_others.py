"""Delegations to A2A servers that we did not write (``tests/a2a/servers``), as workspaces."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.a2a.servers.others import OTHERS, Other
from tests.support.delegations import Tasks, sender, team
from tests.support.fleet import Fleet, Object, until, workspace, workspace_class
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster

PORT = 64_999  # stands for the workspace's own
WORDS = tuple(one for one in OTHERS if one.obeys)


def image(other: Other, say: Callable[[str], None]) -> Object:
    """Its command for the process backend."""
    command, environment = other.command(PORT, say)
    line = shlex.join(str(part) for part in command).replace(str(PORT), '"$WORKSPACE_PORT"')
    variables = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", **environment}
    env = [{"name": name, "value": value} for name, value in variables.items()]
    return {"name": other.name, "command": ["sh", "-c", f"exec {line}"], "env": env}


@pytest.fixture(scope="module")
def fleet(
    cluster: LocalCluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]
) -> Iterator[Fleet]:
    """One workspace for each implementation."""
    images = [image(other, say) for other in OTHERS] + [{"name": "sleep", "command": ["sleep", "infinity"]}]
    process = {"directory": str(tmp_path_factory.mktemp("workspaces")), "images": images}
    Fleet(cluster, "default").apply(workspace_class("others", process=process, stopGracePeriod="1s"))
    agent = {"port": 8080, "probe": "AgentCard", "maxConcurrentTasks": 4}
    members = [workspace(safe(other), className="others", image=other.name, agent=agent) for other in OTHERS]
    with team(cluster, "others", sender("planner", className="others"), *members) as made:
        yield made
    Fleet(cluster, "default").drop_classes("others")


def safe(other: Other) -> str:
    """A name for its workspace."""
    return other.name.replace(".", "-")


@pytest.fixture
def tasks(fleet: Fleet) -> Tasks:
    return Tasks(fleet)


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.name)
def test_delivery(tasks: Tasks, other: Other) -> None:
    name = f"walk-{safe(other)}"
    tasks.give(name, "planner", safe(other), "a walk")
    status = tasks.wait_phase(name, "Completed")
    assert "a walk" in status["result"]["preview"]
    assert status["task"]["contextId"] == status["messageId"]
    assert (status["attemptCount"], status["resends"]) == (1, 0)


@pytest.mark.parametrize("other", WORDS, ids=lambda other: other.name)
def test_failure_and_a_question(tasks: Tasks, other: Other) -> None:
    failing, asking = f"fail-{safe(other)}", f"ask-{safe(other)}"
    tasks.give(failing, "planner", safe(other), "fail")
    tasks.give(asking, "planner", safe(other), "ask")
    tasks.wait_phase(failing, "Failed")
    assert tasks.condition(failing)["reason"] == "TaskFailed"
    assert tasks.wait_phase(asking, "InputRequired")["question"] == "Which one?"


@pytest.mark.parametrize("other", WORDS, ids=lambda other: other.name)
def test_cancel(tasks: Tasks, other: Other) -> None:
    name = f"long-{safe(other)}"
    tasks.give(name, "planner", safe(other), "long")
    tasks.wait_phase(name, "Working")
    tasks.desire(name, "Stopped")
    assert tasks.wait_phase(name, "Cancelled")["cancellation"]["outcome"] == "Confirmed"
    until(lambda: "finalizers" not in tasks.get(name)["metadata"], 20)
