"""What an agent makes of a task: long answers, failures, questions, silence, forgetting; and how it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support.agents import fault
from tests.support.delegations import Server, Tasks, answered, delegation_class, obedient, remembering, sender, team
from tests.support.fleet import Fleet, until
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def fleet(cluster: LocalCluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    delegation_class(cluster, tmp_path_factory.mktemp("workspaces"))
    agents = [obedient("writer"), obedient("poor", "no-streaming", "no-listing"), remembering("reader")]
    with team(cluster, "answers", sender("planner"), *agents) as made:
        yield made


@pytest.fixture
def tasks(fleet: Fleet) -> Tasks:
    return Tasks(fleet)


@pytest.fixture
def writer(fleet: Fleet) -> Iterator[Server]:
    """It does as the messages say."""
    made = Server(fleet, "writer")
    yield made
    made.release()


@pytest.fixture
def reader(fleet: Fleet) -> Iterator[str]:
    """The address of an agent that is told to misbehave."""
    endpoint = str(fleet.status("reader")["endpoint"])
    yield endpoint
    fault(fleet.status("reader")["endpoint"], "none")


def kept(fleet: Fleet, tasks: Tasks, name: str) -> str:
    """The answer that the ConfigMap of a delegation keeps."""
    ref = tasks.status(name)["result"]["configMapKeyRef"]
    config_map = json.loads(fleet.kubectl("get", "configmap", ref["name"], "-o", "json"))
    (owner,) = config_map["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Delegation", tasks.get(name)["metadata"]["uid"])
    return str(config_map["data"][ref["key"]])


# -- the answer --------------------------------------------------------------------------------------------------------


def test_an_answer_that_no_config_map_holds_is_cut_and_says_so(fleet: Fleet, tasks: Tasks) -> None:
    tasks.give("longer", "planner", "writer", "long 1200001")
    result = tasks.wait_phase("longer", "Completed")["result"]
    assert (result["bytes"], result["complete"]) == (1_200_001, False)
    assert kept(fleet, tasks, "longer") == "x" + "ü" * 449_999


def test_an_answer_of_exactly_the_preview_is_complete(tasks: Tasks) -> None:
    tasks.give("fits", "planner", "writer", "x" * 4096)
    result = tasks.wait_phase("fits", "Completed")["result"]
    assert (len(result["preview"]), result["bytes"], result["complete"]) == (4096, 4096, True)
    assert "configMapKeyRef" not in result


def test_an_answer_that_is_too_large_to_read_is_refused_and_the_reason_named(tasks: Tasks) -> None:
    tasks.give("longest", "planner", "writer", "long 9000001")
    tasks.wait_phase("longest", "Failed")
    finished = tasks.condition("longest")
    assert finished["reason"] == "AnswerUnusable"
    assert "larger than 4096 KiB" in finished["message"]


def test_data_is_answered_as_json(tasks: Tasks) -> None:
    tasks.give("data", "planner", "writer", 'data {"pages": 3, "ok": true}')
    result = tasks.wait_phase("data", "Completed")["result"]
    assert (json.loads(result["preview"]), result["mediaType"]) == ({"pages": 3, "ok": True}, "application/json")


def test_an_agent_may_answer_without_a_task(tasks: Tasks) -> None:
    tasks.give("plain", "planner", "writer", "plain just words")
    status = tasks.wait_phase("plain", "Completed")
    assert status["result"]["preview"] == "just words"
    assert "task" not in status
    assert tasks.condition("plain", "Delivered")["status"] == "True"


def test_an_agent_without_streams_and_lists_is_polled(fleet: Fleet, tasks: Tasks) -> None:
    poor = Server(fleet, "poor")
    tasks.give("polled", "planner", "poor", "hold polled")
    tasks.wait_phase("polled", "Working")
    poor.release()
    assert tasks.wait_phase("polled", "Completed")["result"]["preview"] == "polled"
    assert len(poor.seen("polled")) == 1


def test_a_task_that_fails_has_the_agents_words(fleet: Fleet, tasks: Tasks) -> None:
    tasks.give("fails", "planner", "writer", "fail the disk is full")
    status = tasks.wait_phase("fails", "Failed")
    finished = tasks.condition("fails")
    assert finished["reason"] == "TaskFailed"
    assert finished["message"] == "The agent reports that the task failed: the disk is full"
    assert "result" not in status
    events = ("get", "events", "--field-selector", "involvedObject.name=fails", "-o", "json")
    (event,) = until(lambda: json.loads(fleet.kubectl(*events))["items"])
    assert (event["reason"], event["message"]) == ("TaskFailed", finished["message"])


# -- on the way --------------------------------------------------------------------------------------------------------


def test_a_question_is_shown_and_keeps_nobody_waiting(tasks: Tasks, writer: Server) -> None:
    """InputRequired takes no place; once someone has answered the agent, it completes."""
    tasks.give("asks", "planner", "writer", "ask Which colour?")
    status = tasks.wait_phase("asks", "InputRequired")
    assert status["question"] == "Which colour?"
    tasks.give("meanwhile", "planner", "writer", "meanwhile")
    tasks.wait_phase("meanwhile", "Completed")
    writer.release()
    status = tasks.wait_phase("asks", "Completed")
    assert status["result"]["preview"] == "thanks"
    assert "question" not in status


def test_a_silent_task_is_stuck_and_completes_all_the_same(tasks: Tasks, reader: str) -> None:
    """Stuck is recoverable (I-66)."""
    fault(reader, "slow", seconds=4)
    tasks.give("silent", "planner", "reader", "silent", stuckAfter="2s")
    tasks.wait_phase("silent", "Working")
    fault(reader, "wedged")
    tasks.wait_phase("silent", "Stuck")
    finished = tasks.condition("silent")
    assert (finished["status"], finished["reason"]) == ("False", "AgentSilent")
    fault(reader, "none")
    status = tasks.wait_phase("silent", "Completed")
    assert status["result"]["preview"] == "reader: silent"
    assert status["attemptCount"] == 1


def test_a_task_that_an_agent_lost_in_a_crash_is_sent_again(fleet: Fleet, tasks: Tasks, reader: str) -> None:
    """The agent is asked, does not know it, and gets the same message again; it answers once (I-61)."""
    before = answered(fleet, "reader")
    fault(reader, "slow", seconds=60)
    tasks.give("again", "planner", "reader", "again")
    tasks.wait_phase("again", "Working")
    fault(reader, "crash", seconds=0.1)
    status = tasks.wait_phase("again", "Completed")
    assert status["result"]["preview"] == "reader: again"
    assert status["attempts"][-1]["reason"] == "TaskLost"
    assert status["attemptCount"] == 2
    assert answered(fleet, "reader") == before + 1


def test_a_task_that_an_agent_forgot_comes_under_the_same_message_id(fleet: Fleet, tasks: Tasks) -> None:
    """This one works twice on a message that comes twice, and the record says that it may have (I-61)."""
    poor = Server(fleet, "poor")
    tasks.give("forgotten", "planner", "poor", "hold forgotten")
    message_id = tasks.wait_phase("forgotten", "Working")["messageId"]
    poor.forget()
    until(lambda: len(poor.seen("forgotten")) == 2, 60)
    tasks.wait_phase("forgotten", "Working")
    poor.release()
    status = tasks.wait_phase("forgotten", "Completed")
    assert {message["id"] for message in poor.seen("forgotten")} == {message_id}
    assert message_id == f"dlg-{tasks.get('forgotten')['metadata']['uid']}"
    assert status["resends"] == 1


# -- the message -------------------------------------------------------------------------------------------------------


def test_a_message_of_several_parts_arrives_as_it_is(tasks: Tasks, writer: Server) -> None:
    parts = [
        {"text": "several parts", "mediaType": "text/markdown"},
        {"data": {"pages": [1, 2], "deep": {"empty": []}}},
        {"url": "https://files.example/report.pdf", "mediaType": "application/pdf"},
    ]
    tasks.give("parts", "planner", "writer", message={"parts": parts})
    tasks.wait_phase("parts", "Completed")
    (message,) = writer.seen("several parts")
    assert message["parts"] == parts


def test_a_message_that_is_kept_elsewhere_is_waited_for(fleet: Fleet, tasks: Tasks, writer: Server) -> None:
    """No ConfigMap, no key, then both; that costs no attempt."""
    source = {"configMapKeyRef": {"name": "input", "key": "text"}}
    tasks.give("elsewhere", "planner", "writer", message=None, messageFrom=source, retry={"maxAttempts": 1})
    tasks.wait_queued("elsewhere", "MessageNotFound")
    finished = tasks.condition("elsewhere")
    assert "key 'text' of ConfigMap 'input'" in finished["message"]
    fleet.kubectl("create", "configmap", "input", "--from-literal=other=no")
    tasks.give("other", "planner", "writer", "not held up")
    tasks.wait_phase("other", "Completed")
    text = "from a ConfigMap " + "ä" * 100_000
    fleet.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "input"}, "data": {"text": text}})
    status = tasks.wait_phase("elsewhere", "Completed")
    assert writer.texts("from a ConfigMap") == [text]
    assert status.get("failedDeliveries", 0) == 0


def test_a_long_answer_is_kept_in_a_config_map_that_goes_with_the_delegation(fleet: Fleet, tasks: Tasks) -> None:
    """The preview ends between two characters, before its 4,096th byte, which is inside of one (I-70)."""
    tasks.give("long", "planner", "writer", "long 10001")
    result = tasks.wait_phase("long", "Completed")["result"]
    assert result["preview"] == "x" + "ü" * 2047
    assert (result["bytes"], result["complete"]) == (10_001, True)
    assert result["configMapKeyRef"] == {"name": "delegation-long", "key": "answer"}
    assert kept(fleet, tasks, "long") == "x" + "ü" * 5000
    tasks.delete("long")
    # The garbage collector learns of new kinds every 30 s.
    until(lambda: not fleet.kubectl("get", "configmap", "delegation-long", "--ignore-not-found"), 90)
