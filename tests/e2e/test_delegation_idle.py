"""An agent that pauses because it has nothing to do, and the delegations that wake it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.support.agents import fault
from tests.support.delegations import Tasks, delegation, delegation_class, remembering, sender, team
from tests.support.fleet import Fleet, Object, until
from tests.support.manifests import LEASED
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster

MANY = 100


def sleeper(name: str, **agent: object) -> Object:
    """The reference agent, which pauses after five seconds, and tells of its tasks with its Lease."""
    return remembering(name, idle={"pauseAfter": "5s"}, agent={**LEASED, **agent})


@pytest.fixture(scope="module")
def fleet(cluster: LocalCluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    delegation_class(cluster, tmp_path_factory.mktemp("workspaces"))
    senders = [sender(name) for name in "abc"]
    with team(cluster, "idle", *senders, sleeper("sleeper", maxConcurrentTasks=10)) as made:
        yield made


@pytest.fixture
def tasks(fleet: Fleet) -> Tasks:
    return Tasks(fleet)


def wait_asleep(fleet: Fleet, name: str) -> Object:
    """Until it is paused for being idle; its status."""
    found = until(
        lambda: (
            (status := fleet.status(name)).get("phase") == "Paused"
            and status.get("effectiveReason") == "IdleTimeout"
            and status
        ),
        60,
        lambda: f"{fleet.status(name)}",
    )
    return dict(found)


def starts(operator: Operator) -> float:
    """How often an instance was created or started."""
    return operator.metric("workspace_operator_verbs_total", backend="process", verb="provision")


def test_a_hundred_delegations_at_once_wake_it_once_and_are_all_answered(
    fleet: Fleet, tasks: Tasks, operator: Operator
) -> None:
    """The wish stays Running, also when its manifest is applied again; one that may not wake it waits (I-30, I-60)."""
    status = wait_asleep(fleet, "sleeper")
    assert fleet.get("sleeper")["spec"]["desiredState"] == "Running"
    assert "unchanged" in fleet.apply(sleeper("sleeper", maxConcurrentTasks=10))
    tasks.give("polite", "a", "sleeper", "polite", wake=False)
    tasks.wait_queued("polite", "TargetPaused")
    finished = tasks.condition("polite")
    assert "paused for being idle, and spec.wake is false" in finished["message"]
    time.sleep(2)  # enough for a wake-up, if there were one
    assert fleet.status("sleeper")["idle"]["pausedTime"] == status["idle"]["pausedTime"]
    assert tasks.phase("polite") == "Queued"

    before, names = starts(operator), [f"many-{number}" for number in range(MANY)]
    fleet.apply(*(delegation(name, "abc"[index % 3], "sleeper", name) for index, name in enumerate(names)))
    tasks.wait_over(*names, "polite", seconds=120)
    assert tasks.phases("many") == ["Completed"] * MANY
    assert {item["status"]["result"]["preview"] for item in tasks.all("many")} == {f"sleeper: {n}" for n in names}
    assert starts(operator) == before + 1
    tasks.give("asks", "a", "sleeper", "count")
    assert tasks.wait_phase("asks", "Completed")["result"]["preview"] == str(MANY + 1)


def test_it_does_not_fall_asleep_over_a_task(fleet: Fleet, tasks: Tasks) -> None:
    """Longer than the time after which it pauses (I-22)."""
    tasks.give("wakes", "a", "sleeper", "wakes")
    tasks.wait_phase("wakes", "Completed")
    fault(fleet.status("sleeper")["endpoint"], "slow", seconds=8)
    tasks.give("slow", "a", "sleeper", "slow")
    status = tasks.wait_phase("slow", "Completed")
    assert (status["result"]["preview"], status["attemptCount"]) == ("sleeper: slow", 1)
    assert fleet.phase("sleeper") == "Running"
