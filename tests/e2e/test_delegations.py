"""Delegations as people use them, on the real API server with real agents."""

from __future__ import annotations

import pytest
from tests.support.agents import fault
from tests.support.delegations import Tasks
from tests.support.fleet import Fleet, until, workspace
from tests.support.manifests import LEASED
from tests.support.operator import Operator

pytestmark = pytest.mark.cluster


@pytest.fixture
def pair(fleet: Fleet, operator: Operator, process_class: str) -> Fleet:
    """Two roots: one delegates, the other works."""
    fleet.apply(*(workspace(name, className=process_class, agent=LEASED) for name in ("planner", "writer")))
    fleet.wait_ready()
    return fleet


@pytest.fixture
def tasks(pair: Fleet) -> Tasks:
    return Tasks(pair)


def test_a_task_is_delivered_and_its_answer_comes_back(pair: Fleet, tasks: Tasks) -> None:
    """The object is the ledger: terminal phase and result in one update (I-62, I-65)."""
    tasks.give("one", "planner", "writer", "a haiku")
    tasks.wait_over("one")
    status = tasks.status("one")
    assert status["phase"] == "Completed"
    assert status["result"] == {
        "preview": "writer: a haiku",
        "bytes": 15,
        "complete": True,
        "mediaType": "text/plain",
    }
    assert [(c["type"], c["status"]) for c in status["conditions"]] == [
        ("Accepted", "True"),
        ("Delivered", "True"),
        ("Finished", "True"),
    ]
    assert status["attemptCount"] == 1
    until(lambda: "finalizers" not in tasks.get("one")["metadata"], 10)
    row = pair.kubectl("get", "delegation", "one", "--no-headers").split()
    assert row[:6] == ["one", "planner", "writer", "Running", "Completed", "Completed"]


def test_ten_wait_for_a_paused_target_with_a_reason_and_complete_when_it_runs_again(pair: Fleet, tasks: Tasks) -> None:
    """Nothing is dropped (I-60)."""
    pair.desire("writer", "Paused")
    pair.wait_phase("writer", "Paused")
    names = [f"task-{number}" for number in range(10)]
    for name in names:
        tasks.give(name, "planner", "writer", name)
    for name in names:
        assert tasks.wait_phase(name, "Queued")["queuedReason"] == "TargetPaused"
    pair.desire("writer", "Running")
    tasks.wait_over()
    assert {status["status"]["result"]["preview"] for status in tasks.all()} == {f"writer: {name}" for name in names}


def test_a_stopped_delegation_is_cancelled_at_the_agent(pair: Fleet, tasks: Tasks) -> None:
    fault(pair.status("writer")["endpoint"], "slow", seconds=60)
    tasks.give("long", "planner", "writer")
    tasks.wait_phase("long", "Working")
    tasks.desire("long", "Stopped")
    status = tasks.wait_phase("long", "Cancelled")
    assert status["cancellation"]["outcome"] == "Confirmed"


def test_a_task_past_its_deadline_fails_and_is_cancelled_at_the_agent(pair: Fleet, tasks: Tasks) -> None:
    """Time-outs cancel the remote task, and the outcome is shown (I-71)."""
    fault(pair.status("writer")["endpoint"], "slow", seconds=60)
    tasks.give("late", "planner", "writer", deadline="3s")
    status = tasks.wait_phase("late", "Failed")
    assert tasks.condition("late")["reason"] == "DeadlineExceeded"
    assert status["cancellation"]["outcome"] == "Confirmed"


def test_one_at_a_time_and_the_others_wait(pair: Fleet, tasks: Tasks) -> None:
    """Capacity per target (I-60)."""
    fault(pair.status("writer")["endpoint"], "slow", seconds=1)
    for number in range(4):
        tasks.give(f"task-{number}", "planner", "writer", str(number))
    until(lambda: sum(t.get("status", {}).get("queuedReason") == "TargetBusy" for t in tasks.all()) >= 2, 20)
    tasks.wait_over()
    assert [t["status"]["phase"] for t in tasks.all()] == ["Completed"] * 4
