"""How delegations end before there is an answer: deadline, cancel, deletion, a workspace that is gone, time to live."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.agents import fault
from tests.support.delegations import Server, Tasks, delegation_class, obedient, remembering, sender, team
from tests.support.fleet import Fleet, until
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def fleet(cluster: LocalCluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    delegation_class(cluster, tmp_path_factory.mktemp("workspaces"))
    agents = [obedient("writer", capacity=20), remembering("reader", capacity=20), sender("asleep")]
    with team(cluster, "ends", sender("planner"), *agents) as made:
        yield made


@pytest.fixture
def tasks(fleet: Fleet) -> Tasks:
    return Tasks(fleet)


@pytest.fixture
def writer(fleet: Fleet) -> Iterator[Server]:
    """It holds what it is told to hold."""
    made = Server(fleet, "writer")
    yield made
    made.release()


@pytest.fixture
def reader(fleet: Fleet) -> Iterator[str]:
    """The address of an agent that is told to misbehave."""
    endpoint = str(fleet.status("reader")["endpoint"])
    yield endpoint
    fault(endpoint, "none")


# -- the deadline ------------------------------------------------------------------------------------------------------


def test_the_deadline_ends_one_that_waits(tasks: Tasks) -> None:
    """It says what it waited for; nothing was sent, so nothing is cancelled."""
    tasks.give("waits", "planner", "asleep", deadline="2s")
    tasks.wait_queued("waits", "TargetStopped")
    status = tasks.wait_phase("waits", "Failed")
    finished = tasks.condition("waits")
    assert finished["reason"] == "DeadlineExceeded"
    assert "The target is stopped" in finished["message"]
    assert "cancellation" not in status
    assert status["attemptCount"] == 0


def test_the_deadline_ends_one_that_is_held(tasks: Tasks) -> None:
    tasks.give("held", "planner", "writer", desiredState="Paused", deadline="2s")
    tasks.wait_phase("held", "Failed")
    assert tasks.condition("held")["reason"] == "DeadlineExceeded"


def test_the_deadline_cancels_at_the_agent(tasks: Tasks, writer: Server) -> None:
    """Time-outs cancel the remote task, and the outcome is shown (I-71)."""
    tasks.give("works", "planner", "writer", "hold works", deadline="4s")
    task = tasks.wait_phase("works", "Working")["task"]["id"]
    status = tasks.wait_phase("works", "Failed")
    assert tasks.condition("works")["reason"] == "DeadlineExceeded"
    assert status["cancellation"]["outcome"] == "Confirmed"
    assert task in writer.cancelled


def test_the_deadline_ends_those_whose_agent_hangs(tasks: Tasks, reader: str) -> None:
    """One that the agent had, and one that it may have got: both are over, and say that the task may go on (I-71)."""
    fault(reader, "slow", seconds=60)
    tasks.give("had", "planner", "reader", deadline="4s")
    tasks.wait_phase("had", "Working")
    fault(reader, "wedged")
    tasks.give("may-have-got", "planner", "reader", deadline="3s")
    for name, delivered in (("had", "True"), ("may-have-got", "Unknown")):
        status = tasks.wait_phase(name, "Failed")
        assert tasks.condition(name)["reason"] == "DeadlineExceeded"
        assert tasks.condition(name, "Delivered")["status"] == delivered
        assert status["cancellation"]["outcome"] == "Unanswered"
        assert "its task may go on" in status["cancellation"]["message"]


# -- cancelled ---------------------------------------------------------------------------------------------------------


def test_one_that_waits_is_cancelled_at_once(tasks: Tasks) -> None:
    tasks.give("queued", "planner", "asleep")
    tasks.wait_phase("queued", "Queued")
    tasks.desire("queued", "Stopped")
    status = tasks.wait_phase("queued", "Cancelled")
    assert "cancellation" not in status
    assert tasks.condition("queued")["reason"] == "Cancelled"


def test_one_that_was_born_stopped_is_never_sent(tasks: Tasks, writer: Server) -> None:
    tasks.give("unborn", "planner", "writer", "unborn", desiredState="Stopped")
    tasks.wait_phase("unborn", "Cancelled")
    assert not writer.texts("unborn")


def test_one_that_is_being_sent_is_cancelled_when_the_agent_answers(tasks: Tasks, reader: str) -> None:
    fault(reader, "slow=60,wedged")
    tasks.give("sending", "planner", "reader")
    tasks.wait_phase("sending", "Dispatched")
    tasks.desire("sending", "Stopped")
    tasks.wait_reason("sending", "Cancelling")
    fault(reader, "slow", seconds=60)
    status = tasks.wait_phase("sending", "Cancelled")
    assert status["cancellation"]["outcome"] == "Confirmed"


def test_a_cancel_that_comes_too_late_is_no_loss(tasks: Tasks, writer: Server) -> None:
    """Terminal phases never change, whatever is wished afterwards; that the edit was seen is all that is said of it."""
    tasks.give("done", "planner", "writer", "done")
    before = tasks.wait_phase("done", "Completed")
    tasks.desire("done", "Stopped")
    tasks.give("after", "planner", "writer", "after")
    tasks.wait_phase("after", "Completed")
    until(lambda: tasks.status("done")["observedGeneration"] == 2)
    assert tasks.status("done") == {**before, "observedGeneration": 2}


def test_deletion_cancels_at_the_agent_and_then_the_object_goes(tasks: Tasks, writer: Server) -> None:
    tasks.give("deleted", "planner", "writer", "hold deleted")
    task = tasks.wait_phase("deleted", "Working")["task"]["id"]
    tasks.delete("deleted")
    assert task in writer.cancelled


def test_deletion_of_what_waits_or_is_over_takes_no_time(tasks: Tasks, writer: Server) -> None:
    tasks.give("waiting", "planner", "asleep")
    tasks.give("finished", "planner", "writer")
    tasks.wait_phase("waiting", "Queued")
    tasks.wait_over("finished")
    tasks.delete("waiting", "finished", seconds=20)


def test_a_namespace_goes_with_delegations_in_every_state(
    cluster: LocalCluster, fleet: Fleet, operator: Operator
) -> None:
    """Nothing holds the deletion up (I-87)."""
    with team(cluster, "ends-soon", sender("planner"), obedient("writer"), sender("asleep")) as doomed:
        tasks = Tasks(doomed)
        tasks.give("working", "planner", "writer", "hold it")
        tasks.wait_phase("working", "Working")
        tasks.give("busy", "planner", "writer")
        tasks.give("queued", "planner", "asleep")
        tasks.give("over", "planner", "writer", desiredState="Stopped")
        tasks.wait_queued("busy", "TargetBusy")
        tasks.wait_over("over")
        cluster.kubectl("delete", "namespace", "ends-soon", "--timeout=120s", timeout=130)
        cluster.kubectl("create", "namespace", "ends-soon")


# -- gone --------------------------------------------------------------------------------------------------------------


def test_the_target_is_deleted_in_flight(fleet: Fleet, tasks: Tasks) -> None:
    fleet.apply(obedient("doomed"))
    fleet.wait_ready("doomed")
    tasks.give("lost", "planner", "doomed", "hold lost")
    tasks.give("next", "planner", "doomed")
    tasks.wait_phase("lost", "Working")
    tasks.wait_queued("next", "TargetBusy")
    fleet.delete("doomed")
    tasks.wait_phase("lost", "Failed")
    assert tasks.condition("lost")["reason"] == "TargetGone"
    tasks.wait_queued("next", "TargetNotFound")

    fleet.apply(obedient("doomed"))  # another one under the same name: what was never sent is for it
    assert tasks.wait_phase("next", "Completed")["result"]["preview"] == "hello"
    fleet.delete("doomed")


def test_the_sender_is_deleted(fleet: Fleet, tasks: Tasks, writer: Server) -> None:
    """Nobody waits for the answer any more: cancelled, also at the agent."""
    fleet.apply(sender("leaving"))
    fleet.wait_ready("leaving")
    tasks.give("unwanted", "leaving", "writer", "hold unwanted")
    tasks.give("unsent", "leaving", "asleep")
    task = tasks.wait_phase("unwanted", "Working")["task"]["id"]
    tasks.wait_phase("unsent", "Queued")
    fleet.delete("leaving")
    for name in ("unwanted", "unsent"):
        tasks.wait_phase(name, "Cancelled")
        assert tasks.condition(name)["reason"] == "SourceGone"
    assert task in writer.cancelled


def test_the_time_to_live_deletes(tasks: Tasks, writer: Server) -> None:
    """Also one that failed; one that is not over is kept however long it takes (I-69)."""
    tasks.give("short", "planner", "writer", "short", ttlAfterFinished="1s")
    tasks.give("failed", "planner", "writer", "fail it", ttlAfterFinished="1s")
    tasks.give("long", "planner", "writer", "hold long", ttlAfterFinished="0s")
    tasks.wait_phase("long", "Working")
    until(lambda: not tasks.all("short") and not tasks.all("failed"))
    assert tasks.phase("long") == "Working"
    writer.release()
    until(lambda: not tasks.all("long"))
