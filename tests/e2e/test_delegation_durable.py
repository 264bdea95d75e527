"""The operator, its leader, or the API server goes away while tasks are under way: each of them ends, and once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

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
from tests.support.wild import Wild

from controlplane.cluster import LocalCluster
from workspace_operator.api.meta import CLAIM_FINALIZER

pytestmark = pytest.mark.cluster

TAKE_OVER = 20  # seconds: the Lease lasts 15, looked at every 2


@pytest.fixture(scope="module")
def home(cluster: LocalCluster, _killable: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wild]:
    """Two that delegate, a plain agent, one that cannot be asked for its tasks, and one that tells doubles."""
    delegation_class(cluster, tmp_path_factory.mktemp("workspaces"))
    _killable.start()
    agents = [obedient("writer", capacity=30), obedient("poor", "no-listing", capacity=30)]
    with team(cluster, "durable", sender("a"), sender("b"), *agents, remembering("reader", capacity=3)) as fleet:
        made = Wild(fleet, cluster, _killable)
        yield made
        made.revive()  # the fleet is deleted next, and that takes an operator


@pytest.fixture
def wild(home: Wild, cluster: LocalCluster) -> Iterator[Wild]:
    home.revive()
    yield home
    cluster.start_apiserver()


@pytest.fixture
def tasks(home: Wild) -> Tasks:
    return Tasks(home.fleet)


@pytest.fixture
def writer(wild: Wild) -> Iterator[Server]:
    """It works on whatever arrives, so doubles show."""
    made = Server(wild.fleet, "writer")
    yield made
    made.release()


@pytest.fixture
def reader(wild: Wild) -> Iterator[str]:
    """The address of an agent that knows a message that comes again."""
    endpoint = str(wild.fleet.status("reader")["endpoint"])
    yield endpoint
    fault(endpoint, "none")


def give_many(fleet: Fleet, about: str, target: str, number: int) -> list[str]:
    names = [f"{about}-{index}" for index in range(number)]
    fleet.apply(*(delegation(name, "ab"[index % 2], target, name) for index, name in enumerate(names)))
    return names


# -- the operator is killed --------------------------------------------------------------------------------------------


def test_killed_again_and_again_with_tasks_queued_and_in_flight(wild: Wild, tasks: Tasks, reader: str) -> None:
    """Every one ends, and an agent that tells doubles answers each once (I-62, I-64)."""
    before = answered(wild.fleet, "reader")
    fault(reader, "slow", seconds=0.7)
    names = give_many(wild.fleet, "killed", "reader", 15)
    for after in (0.05, 0.4, 1.0):
        wild.crash(after)
    tasks.wait_over(*names, seconds=90)
    ended = tasks.all("killed")
    assert {item["status"]["phase"] for item in ended} == {"Completed"}
    assert {item["status"]["result"]["preview"] for item in ended} == {f"reader: {name}" for name in names}
    assert answered(wild.fleet, "reader") == before + 15
    until(lambda: not any("finalizers" in item["metadata"] for item in tasks.all("killed")))


def test_a_plain_agent_sees_no_more_doubles_than_are_on_record(wild: Wild, tasks: Tasks, writer: Server) -> None:
    """It can be asked for its tasks, and is before anything is sent again (I-61)."""
    names = give_many(wild.fleet, "plain", "writer", 20)
    for after in (0.02, 0.1):
        wild.crash(after)
    tasks.wait_over(*names)
    assert set(tasks.phases("plain")) == {"Completed"}
    assert set(writer.texts("plain-")) == set(names)
    doubles = len(writer.texts("plain-")) - len(names)
    assert doubles <= sum(item["status"]["resends"] for item in tasks.all("plain"))


def test_a_killed_leader_and_one_that_was_frozen(
    wild: Wild, tasks: Tasks, writer: Server, operator_kubeconfig: Path, tmp_path: Path
) -> None:
    """The next one takes over what is in flight and what waits; the frozen one sends nothing when it wakes (I-64)."""
    leader = wild.operator
    with Operator(operator_kubeconfig, tmp_path, lease="wild") as rival:
        tasks.give("flying", "a", "writer", "hold flying")
        tasks.wait_phase("flying", "Working")
        os.kill(leader.pid, signal.SIGSTOP)
        names = give_many(wild.fleet, "handed", "writer", 5)
        until(lambda: rival.metric("workspace_operator_leader") == 1, TAKE_OVER)
        tasks.wait_over(*names)
        writer.release()
        tasks.wait_over("flying")
        os.kill(leader.pid, signal.SIGCONT)
        until(lambda: not leader.alive, 10)
        assert set(tasks.phases("handed")) == {"Completed"}
        assert sorted(writer.texts("handed")) == names
        assert writer.texts("flying") == ["hold flying"]
        assert rival.stop() == 0


def test_the_api_server_restarts_with_tasks_in_flight(wild: Wild, tasks: Tasks, reader: str, writer: Server) -> None:
    """What the agents answer meanwhile is not lost (I-62)."""
    before = answered(wild.fleet, "reader")
    fault(reader, "slow", seconds=0.7)
    tasks.give("api-hold", "a", "writer", "hold api")
    tasks.wait_phase("api-hold", "Working")
    names = give_many(wild.fleet, "api", "reader", 8)
    until(lambda: "Completed" in tasks.phases("api"))
    wild.cluster.stop_apiserver()
    writer.release()
    time.sleep(2)  # the agents work meanwhile
    wild.cluster.start_apiserver()
    wild.revive()
    tasks.wait_over(*names, "api-hold")
    assert set(tasks.phases("api")) == {"Completed"}
    assert answered(wild.fleet, "reader") == before + 8
    assert writer.texts("hold api") == ["hold api"]


# -- while the operator is down ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def night(home: Wild) -> Tasks:
    """The operator is down for some seconds, in which much happens; afterwards it runs again."""
    fleet, tasks, writer = home.fleet, Tasks(home.fleet), Server(home.fleet, "writer")
    home.revive()
    for name, more in (
        ("answers", {}),
        ("expires", {"deadline": "4s"}),
        ("answers-late", {"deadline": "4s"}),
        ("stopped", {}),
        ("deleted", {}),
        ("wiped", {}),
    ):
        text = f"hold night {name}"
        tasks.give(
            f"night-{name}", "a", "poor" if name in ("expires", "stopped", "deleted") else "writer", text, **more
        )
    tasks.give("night-over", "a", "writer", "over", ttlAfterFinished="4s")
    tasks.wait_phase("night-over", "Completed")
    until(lambda: tasks.phases("night-").count("Working") == 6)
    born = time.monotonic()
    home.kill()
    writer.release()
    tasks.desire("night-stopped", "Stopped")
    fleet.kubectl("delete", "delegation", "night-deleted", "--wait=false")
    wipe(fleet, "night-wiped")
    for name, target in (("asked", "writer"), ("resent", "poor"), ("given-up", "poor")):
        retry = {"whenAmbiguous": "Fail"} if name == "given-up" else None
        claimed = delegation(f"night-{name}", "a", target, f"night {name}", retry=retry)
        claimed["metadata"]["finalizers"] = [CLAIM_FINALIZER]
        fleet.apply(claimed)
    time.sleep(max(0.0, 5 - (time.monotonic() - born)))  # deadline and time to live pass
    assert tasks.phase("night-expires") == "Working"
    home.revive()
    return tasks


def wipe(fleet: Fleet, name: str) -> None:
    """As ``kubectl edit --subresource=status`` may leave it."""
    patch = json.dumps([{"op": "replace", "path": "/status", "value": {}}])
    fleet.kubectl("patch", "delegation", name, "--subresource=status", "--type=json", "-p", patch)


def test_an_answer_that_came_meanwhile_is_fetched(night: Tasks) -> None:
    """The object is the ledger (I-62)."""
    status = night.wait_phase("night-answers", "Completed")
    assert status["result"]["preview"] == "night answers"
    assert (status["attemptCount"], status.get("resends", 0)) == (1, 0)


def test_a_deadline_that_passed_meanwhile_is_kept(night: Tasks, home: Wild) -> None:
    """Cancelled at the agent, too (I-71)."""
    status = night.wait_phase("night-expires", "Failed")
    assert night.condition("night-expires")["reason"] == "DeadlineExceeded"
    assert status["cancellation"]["outcome"] == "Confirmed"
    assert status["task"]["id"] in Server(home.fleet, "poor").cancelled


def test_an_answer_that_was_there_before_anyone_cancelled_counts(night: Tasks) -> None:
    status = night.wait_phase("night-answers-late", "Completed")
    assert status["result"]["preview"] == "night answers-late"


def test_a_cancel_and_a_deletion_that_were_wished_meanwhile(night: Tasks, home: Wild) -> None:
    status = night.wait_phase("night-stopped", "Cancelled")
    assert status["task"]["id"] in Server(home.fleet, "poor").cancelled
    until(lambda: not night.all("night-deleted"))


def test_a_time_to_live_that_ended_meanwhile(night: Tasks) -> None:
    """TTL fires across a restart (I-69)."""
    until(lambda: not night.all("night-over"))


def test_a_status_that_was_wiped_is_found_again_at_the_agent(night: Tasks, home: Wild) -> None:
    """The claim says that it may have been sent; the agent is asked, and nothing doubles (I-61)."""
    status = night.wait_phase("night-wiped", "Completed")
    assert status["result"]["preview"] == "night wiped"
    assert Server(home.fleet, "writer").texts("night wiped") == ["hold night wiped"]


def test_a_claim_without_a_sending_does_not_last(night: Tasks, home: Wild) -> None:
    """Claimed, and killed before the first byte: the agent says that it has nothing, and gets it (I-64).

    What it has now says nothing of what it had before a restart, so the doubt is counted.
    """
    assert night.wait_phase("night-asked", "Completed")["resends"] == 1
    assert Server(home.fleet, "writer").texts("night asked") == ["night asked"]


def test_a_claim_at_an_agent_that_cannot_be_asked(night: Tasks, home: Wild) -> None:
    """Sent again, counted as a possible double; or not, where no double is wanted (I-61)."""
    assert night.wait_phase("night-resent", "Completed")["resends"] == 1
    night.wait_phase("night-given-up", "Failed")
    assert night.condition("night-given-up")["reason"] == "DeliveryAmbiguous"
    poor = Server(home.fleet, "poor")
    assert (poor.texts("night resent"), poor.texts("night given-up")) == (["night resent"], [])


# -- hands on the object -----------------------------------------------------------------------------------------------


def test_a_status_that_is_wiped_under_way_costs_nothing(wild: Wild, tasks: Tasks, writer: Server) -> None:
    tasks.give("wiped-now", "a", "writer", "hold wiped-now")
    tasks.wait_phase("wiped-now", "Working")
    for _ in range(3):
        wipe(wild.fleet, "wiped-now")
        assert tasks.wait_phase("wiped-now", "Working", "Dispatched")["task"]["id"]
    writer.release()
    assert tasks.wait_phase("wiped-now", "Completed")["result"]["preview"] == "wiped-now"
    assert writer.texts("wiped-now") == ["hold wiped-now"]


def test_a_status_that_is_wiped_after_the_end_costs_one_repetition(wild: Wild, tasks: Tasks, reader: str) -> None:
    """Nothing else remembers the end; the message comes under its id again, and the agent answers as before (I-61)."""
    tasks.give("wiped-late", "a", "reader", "wiped-late")
    first = tasks.wait_phase("wiped-late", "Completed")
    until(lambda: "finalizers" not in tasks.get("wiped-late")["metadata"])
    before = answered(wild.fleet, "reader")
    wipe(wild.fleet, "wiped-late")
    again = tasks.wait_phase("wiped-late", "Completed")
    assert (again["result"], again["messageId"]) == (first["result"], first["messageId"])
    assert answered(wild.fleet, "reader") == before
