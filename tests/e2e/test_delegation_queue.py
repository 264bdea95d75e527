"""The queue before each target: capacity, priority, fairness, and what holds a delegation back, with its reason."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

import pytest
from tests.support.agents import fault
from tests.support.delegations import (
    Server,
    Tasks,
    answered,
    delegation,
    delegation_class,
    obedient,
    remembering,
    sender,
    team,
)
from tests.support.fleet import Fleet, until
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def fleet(cluster: LocalCluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three that delegate, and agents that take one, three, and ten tasks at once."""
    delegation_class(cluster, tmp_path_factory.mktemp("workspaces"))
    members = [sender("a"), sender("b"), sender("c")]
    agents = [obedient("one"), obedient("three", capacity=3), remembering("ten", capacity=10)]
    with team(cluster, "queue", *members, *agents) as made:
        yield made


@pytest.fixture
def tasks(fleet: Fleet) -> Tasks:
    return Tasks(fleet)


@pytest.fixture
def one(fleet: Fleet) -> Iterator[Server]:
    """It works on one at a time, and holds what it is told to hold."""
    made = Server(fleet, "one")
    yield made
    made.release()


def busy(tasks: Tasks, about: str) -> list[str]:
    """Names of those that wait for a place."""
    return [i["metadata"]["name"] for i in tasks.all(about) if i["status"].get("queuedReason") == "TargetBusy"]


def release_until_over(server: Server, tasks: Tasks, about: str) -> None:
    """Let it finish what it holds, until nothing is left."""

    def over() -> bool:
        server.release()
        return set(tasks.phases(about)) == {"Completed"}

    until(over, 60, lambda: f"{[item['status'] for item in tasks.all(about)]}")


@pytest.mark.parametrize(("target", "capacity"), [("one", 1), ("three", 3)])
def test_no_more_at_once_than_the_target_takes(fleet: Fleet, tasks: Tasks, target: str, capacity: int) -> None:
    """``agent.maxConcurrentTasks``; the others wait with a reason (I-60)."""
    server, about = Server(fleet, target), f"at-once-{target}"
    names = [f"{about}-{number}" for number in range(6)]
    fleet.apply(*(delegation(name, "a", target, f"hold {name}") for name in names))
    until(lambda: len(server.texts(about)) == capacity)
    until(lambda: len(busy(tasks, about)) == 6 - capacity)
    finished = tasks.condition(busy(tasks, about)[0])
    assert f"'{target}' has as many tasks as it takes at once" in finished["message"]
    release_until_over(server, tasks, about)
    assert server.most_working == capacity
    assert sorted(server.texts(about)) == sorted(f"hold {name}" for name in names)


def test_priority_first_then_age(tasks: Tasks, one: Server) -> None:
    tasks.give("turns-0", "a", "one", "hold turns-0")
    until(lambda: one.texts("turns"))
    for name, priority in (("turns-1", 0), ("turns-2", 5), ("turns-3", 0), ("turns-4", -1)):
        tasks.give(name, "a", "one", f"hold {name}", priority=priority)
        tasks.wait_queued(name, "TargetBusy")
    release_until_over(one, tasks, "turns")
    assert [text.removeprefix("hold turns-") for text in one.texts("turns")] == ["0", "2", "1", "3", "4"]


def test_a_sender_with_few_is_not_kept_waiting_by_one_with_many(fleet: Fleet, tasks: Tasks, one: Server) -> None:
    """Fairness between senders: ten of one came first, and both of the other are among the first four."""
    tasks.give("fair-first", "c", "one", "hold fair-first")
    until(lambda: one.texts("fair"))
    fleet.apply(*(delegation(f"fair-a{number}", "a", "one", f"hold fair-a{number}") for number in range(10)))
    until(lambda: tasks.phases("fair-a") == ["Queued"] * 10)
    fleet.apply(*(delegation(f"fair-b{number}", "b", "one", f"hold fair-b{number}") for number in range(2)))
    until(lambda: tasks.phases("fair-b") == ["Queued"] * 2)
    release_until_over(one, tasks, "fair")
    order = [text.removeprefix("hold fair-")[0] for text in one.texts("fair-")[1:]]
    assert order[:4].count("b") == 2, order


def test_what_is_held_waits_and_stands_in_nobodys_way(tasks: Tasks, one: Server) -> None:
    """desiredState Paused before it was sent; Running releases it."""
    tasks.give("held", "a", "one", "held first", desiredState="Paused", priority=1000)
    status = tasks.wait_queued("held", "Held")
    assert status["phase"] == "Queued"
    tasks.give("passes", "a", "one", "held not")
    tasks.wait_over("passes")
    assert one.texts("held") == ["held not"]
    assert tasks.phase("held") == "Queued"
    tasks.desire("held", "Running")
    tasks.wait_over("held")
    assert one.texts("held") == ["held not", "held first"]


def test_holding_what_was_sent_changes_nothing(tasks: Tasks, one: Server) -> None:
    tasks.give("sent", "a", "one", "hold sent")
    tasks.wait_phase("sent", "Working")
    tasks.desire("sent", "Paused")
    until(lambda: tasks.status("sent")["observedGeneration"] == 2)
    one.release()
    assert tasks.wait_phase("sent", "Completed")["result"]["preview"] == "sent"


def test_a_busy_agent_is_tried_later_and_that_costs_no_attempt(fleet: Fleet, tasks: Tasks) -> None:
    """Rejections are not failures: with one attempt allowed it is still delivered (I-60)."""
    endpoint = fleet.status("ten")["endpoint"]
    fault(endpoint, "busy")
    try:
        tasks.give("patient", "a", "ten", "patient", retry={"maxAttempts": 1})
        until(lambda: len(tasks.status("patient").get("attempts", ())) >= 2)
        status = tasks.wait_queued("patient", "TargetBusy")
    finally:
        fault(endpoint, "none")
    assert {attempt["reason"] for attempt in status["attempts"]} == {"TargetBusy"}
    assert status.get("failedDeliveries", 0) == 0
    tasks.wait_over("patient")
    assert tasks.status("patient")["result"]["preview"] == "ten: patient"


def test_a_fan_out_to_a_slow_and_busy_agent_loses_none_and_doubles_none(fleet: Fleet, tasks: Tasks) -> None:
    """Forty from three senders; the agent refuses all for a while, and is slow then (I-60)."""
    endpoint, before = fleet.status("ten")["endpoint"], answered(fleet, "ten")
    serial = count()
    manifests = [delegation(f"fan-{n}", "abc"[n % 3], "ten", f"fan-{n}") for n in (next(serial) for _ in range(40))]
    fault(endpoint, "busy")
    fleet.apply(*manifests)
    until(lambda: sum(bool(item["status"].get("attempts")) for item in tasks.all("fan-")) >= 10)
    fault(endpoint, "slow", seconds=0.2)
    try:
        tasks.wait_over(*(f"fan-{n}" for n in range(40)), seconds=120)
    finally:
        fault(endpoint, "none")
    ended = tasks.all("fan-")
    assert {item["status"]["phase"] for item in ended} == {"Completed"}
    assert {item["status"]["result"]["preview"] for item in ended} == {f"ten: fan-{n}" for n in range(40)}
    assert answered(fleet, "ten") - before == 40


def test_a_target_that_comes_into_being(fleet: Fleet, tasks: Tasks) -> None:
    """Not there, stopped, starting, serving: it waits with the reason of each, and is delivered."""
    tasks.give("early", "a", "late", "early")
    status = tasks.wait_queued("early", "TargetNotFound")
    accepted = tasks.condition("early", "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("Unknown", "TargetNotFound")
    env = [{"name": "AGENT_FAULTS", "value": "start-delay=3"}]
    late = remembering("late", env=env, desiredState="Stopped")
    fleet.apply(late)
    tasks.wait_queued("early", "TargetStopped")
    fleet.desire("late", "Running")
    tasks.wait_queued("early", "TargetStarting")
    tasks.wait_over("early")
    assert tasks.status("early")["result"]["preview"] == "late: early"
    assert status["attemptCount"] == 0
    fleet.delete("late")


def test_a_target_without_an_agent_says_what_it_lacks(fleet: Fleet, tasks: Tasks) -> None:
    fleet.apply(sender("mute", desiredState="Running"))
    fleet.wait_ready("mute")
    tasks.give("to-mute", "a", "mute")
    tasks.wait_queued("to-mute", "TargetNotReady")
    assert "set its spec.agent" in tasks.condition("to-mute")["message"]


def test_to_wait_in_the_queue_is_not_to_be_silent(fleet: Fleet, tasks: Tasks) -> None:
    """What waited for longer than stuckAfter is not Stuck when it is sent, and does not give its place away (I-60)."""
    fleet.apply(obedient("closed", desiredState="Stopped"))
    names = [f"patience-{number}" for number in range(4)]
    fleet.apply(*(delegation(name, "a", "closed", name, stuckAfter="6s") for name in names))
    until(lambda: {item["status"].get("queuedReason") for item in tasks.all("patience")} == {"TargetStopped"})
    time.sleep(6)
    fleet.desire("closed", "Running")
    tasks.wait_over(*names)
    assert Server(fleet, "closed").most_working == 1
    assert "AgentSilent" not in fleet.kubectl("get", "events", "-o", "json")
    fleet.delete("closed")
