"""What of an agent's task is shown and kept, and what of ours is sent."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.support.hostile import HostileAgent, result, say, task

from workspace_operator.a2a.client import AgentClient
from workspace_operator.a2a.values import Answer, Outgoing, OutgoingPart, TaskState, TaskView


def done(*parts: dict[str, Any], **more: Any) -> dict[str, object]:
    """A finished task with one artifact for each part."""
    artifacts = [{"artifactId": f"a{number}", "parts": [part]} for number, part in enumerate(parts)]
    return task(state="COMPLETED", artifacts=artifacts, **more)


def words(text: str) -> dict[str, object]:
    return {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}


async def view(client: AgentClient, shown: dict[str, object]) -> TaskView:
    with HostileAgent(result(shown)) as agent:
        return await client.get(agent.address, "t1")


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ([{"text": "one"}], Answer(b"one")),
        ([{"text": "one"}, {"text": ""}, {"text": "two"}], Answer(b"one\n\ntwo")),
        ([{"data": {"n": 3, "x": 1.5, "s": "é"}}], Answer('{"n":3,"s":"é","x":1.5}'.encode(), "application/json")),
        ([{"data": [1, None, True]}], Answer(b"[1,null,true]", "application/json")),
        ([{"text": "see"}, {"data": {"a": 1}}], Answer(b'see\n\n{"a":1}')),
        (
            [{"url": "https://files.example/a.pdf", "mediaType": "application/pdf"}],
            Answer(b"https://files.example/a.pdf"),
        ),
        (
            [{"raw": base64.b64encode(b"\x00" * 12).decode(), "mediaType": "image/png"}],
            Answer(b"[image/png, 12 bytes]"),
        ),
        ([{"raw": base64.b64encode(b"1").decode()}], Answer(b"[application/octet-stream, 1 bytes]")),
        ([{}], Answer(b"")),
        ([], Answer(b"")),
    ],
)
async def test_an_answer_is_all_that_the_artifacts_say(
    parts: list[dict[str, Any]], answer: Answer, client: AgentClient
) -> None:
    found = (await view(client, done(*parts))).answer

    assert found is not None
    if found.media_type == "application/json":
        assert json.loads(found.data) == json.loads(answer.data) and b" " not in found.data
    else:
        assert found == answer


async def test_without_artifacts_the_last_words_are_the_answer(client: AgentClient) -> None:
    shown = task(status={"state": "TASK_STATE_COMPLETED", "message": words("that was it")})

    found = await view(client, shown)

    assert found.answer == Answer(b"that was it") and found.message == "that was it"


async def test_only_a_completed_task_has_an_answer(client: AgentClient) -> None:
    shown = task(
        status={"state": "TASK_STATE_FAILED", "message": words("no")}, artifacts=done({"text": "half"})["artifacts"]
    )

    found = await view(client, shown)

    assert (found.state, found.message, found.answer) == (TaskState.FAILED, "no", None)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *(("SUBMITTED", TaskState.WORKING), ("WORKING", TaskState.WORKING), ("UNSPECIFIED", TaskState.WORKING)),
        *(("AUTH_REQUIRED", TaskState.INPUT_REQUIRED), ("OF_THE_FUTURE", TaskState.WORKING)),
        *(("REJECTED", TaskState.REJECTED), ("CANCELED", TaskState.CANCELED)),
    ],
)
async def test_states(said: str, meant: TaskState, client: AgentClient) -> None:
    assert (await view(client, task(state=said))).state is meant


async def test_an_agents_words_are_cut_between_characters(client: AgentClient) -> None:
    shown = task(status={"state": "TASK_STATE_WORKING", "message": words("🙂" * 2000)})

    assert (await view(client, shown)).message == "🙂" * 1024


async def test_half_a_character_does_not_cost_the_answer(client: AgentClient) -> None:
    r"""JavaScript cuts strings between the halves of a surrogate pair and writes "\ud83d"."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": done({"text": "cut \ud83d", "mediaType": "\udc00"})})
    with HostileAgent(say(body)) as agent:
        found = await client.get(agent.address, "t1")

    assert found.answer == Answer("cut \ufffd".encode())


async def test_a_plain_message_is_an_answer_without_a_task(client: AgentClient) -> None:
    with HostileAgent(result({"message": words("hello")})) as agent:
        found = await client.send(agent.address, Outgoing("m", "c", (OutgoingPart(text="hi"),)))

    assert found == TaskView("", "", TaskState.COMPLETED, "", Answer(b"hello"))


async def test_every_part_and_the_metadata_arrive(client: AgentClient) -> None:
    parts = (
        OutgoingPart(text="hello", media_type="text/markdown"),
        OutgoingPart(data={"a": [1, None, {"b": "c"}]}),
        OutgoingPart(url="https://files.example/a", media_type="image/png"),
        OutgoingPart(text=""),
        OutgoingPart(data={}),
    )
    with HostileAgent(result({"task": task()})) as agent:
        await client.send(agent.address, Outgoing("m1", "c1", parts, {"from": "researcher"}))
        body = next(request.body for request in agent.seen if request.body)

    params = body["params"]
    assert params["configuration"] == {"historyLength": 0, "returnImmediately": True}
    assert params["message"] == {
        "messageId": "m1",
        "contextId": "c1",
        "role": "ROLE_USER",
        "metadata": {"from": "researcher"},
        "parts": [
            {"text": "hello", "mediaType": "text/markdown"},
            {"data": {"a": [1, None, {"b": "c"}]}},
            {"url": "https://files.example/a", "mediaType": "image/png"},
            {"text": ""},
            {"data": {}},
        ],
    }
