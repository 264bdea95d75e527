"""What each of an agent's answers means for the message's fate."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.a2a.conftest import NewMessage
from tests.agent.harness import AgentProcess
from tests.support.hostile import HostileAgent, card, error, in_turn, pass_on_to, result, say, task

from workspace_operator.a2a import discovery
from workspace_operator.a2a.client import AgentClient
from workspace_operator.a2a.errors import CannotAsk, NotDelivered, Refused, TaskNotFound, Unanswered
from workspace_operator.a2a.values import Answer, TaskState
from workspace_operator.errors import OperatorError

# JSON-RPC 2.0, section 5.1, and A2A 1.0, section 5.4.
TASK_NOT_FOUND, NOT_CANCELABLE, NO_PUSH, UNSUPPORTED, CONTENT_TYPE, BAD_ANSWER = range(-32001, -32007, -1)
NO_EXTENDED_CARD, EXTENSION_REQUIRED, VERSION = range(-32007, -32010, -1)
INVALID_REQUEST, NO_METHOD, INVALID_PARAMS, INTERNAL, PARSE = -32600, -32601, -32602, -32603, -32700
REFUSALS = (NO_PUSH, UNSUPPORTED, CONTENT_TYPE, NO_EXTENDED_CARD, EXTENSION_REQUIRED)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        *((code, Refused) for code in (*REFUSALS, INVALID_REQUEST, INVALID_PARAMS, PARSE)),
        *((code, Refused) for code in (TASK_NOT_FOUND, NOT_CANCELABLE)),
        *((code, NotDelivered) for code in (NO_METHOD, VERSION)),
        *((code, Unanswered) for code in (INTERNAL, BAD_ANSWER, -32000, -32099, 7)),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_an_error_for_a_message(
    code: int, meaning: type[OperatorError], version: str, client: AgentClient, message: NewMessage
) -> None:
    """I-61, I-53."""
    with HostileAgent(error(code), say(card(version=version))) as agent, pytest.raises(meaning) as raised:
        await client.send(agent.address, message())

    assert "token" not in raised.value.failure.message


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        *((status, NotDelivered) for status in (301, 302, 307, 308, 404, 405, 408, 410, 421, 425, 429, 503)),
        *((status, Refused) for status in (400, 401, 402, 403, 406, 409, 413, 415, 422, 431, 501)),
        *((status, Unanswered) for status in (201, 202, 204, 300, 303, 304, 500, 502, 504, 599)),
    ],
)
async def test_an_http_status_for_a_message(
    status: int, meaning: type[OperatorError], client: AgentClient, message: NewMessage
) -> None:
    """I-61."""
    with HostileAgent(say("", status)) as agent, pytest.raises(meaning, match=str(status)):
        await client.send(agent.address, message())


@pytest.mark.parametrize(
    "value", [None, {}, [], "x", 7, {"task": {}}, {"task": 7}, {"task": {"id": ""}}, {"task": {"id": 7}}, {"other": 1}]
)
@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_a_result_of_another_shape(value: object, version: str, client: AgentClient, message: NewMessage) -> None:
    """I-61: it may have arrived."""
    with HostileAgent(result(value), say(card(version=version))) as agent, pytest.raises(Unanswered):
        await client.send(agent.address, message())


@pytest.mark.parametrize("code", [*REFUSALS, INVALID_PARAMS, NO_METHOD, VERSION])
async def test_an_agent_that_does_not_list(code: int, client: AgentClient, message: NewMessage) -> None:
    with HostileAgent(error(code)) as agent, pytest.raises(CannotAsk):
        await client.find(agent.address, message())


async def test_an_agent_without_the_means_to_list(client: AgentClient, message: NewMessage) -> None:
    with HostileAgent(say("", 501)) as agent, pytest.raises(CannotAsk):
        await client.find(agent.address, message())


@pytest.mark.parametrize("code", [INTERNAL, -32000])
async def test_an_agent_that_fails_to_list(code: int, client: AgentClient, message: NewMessage) -> None:
    with HostileAgent(error(code)) as agent, pytest.raises(Unanswered):
        await client.find(agent.address, message())


async def test_a_list_is_read_to_its_end(client: AgentClient, message: NewMessage) -> None:
    others = [task(f"t{n}", contextId="other") for n in range(20)]
    sent = message()
    mine = task("mine", contextId=sent.context_id)
    pages = [{"tasks": others, "nextPageToken": f"p{n}"} for n in range(3)]
    with HostileAgent({"ListTasks": in_turn(*map(result, [*pages, {"tasks": [mine]}]))}) as agent:
        found = await client.find(agent.address, sent)

        assert found is not None and found.id == "mine"
        assert [request.body["params"].get("pageToken") for request in agent.seen if request.body] == [
            *(None, "p0", "p1", "p2")
        ]
    with HostileAgent({"ListTasks": in_turn(*map(result, [*pages, {"tasks": []}]))}) as agent:
        assert await client.find(agent.address, sent) is None
    with HostileAgent({"ListTasks": result(pages[0])}) as agent, pytest.raises(CannotAsk):
        await client.find(agent.address, sent)


async def test_of_two_tasks_the_one_that_got_further_counts(client: AgentClient, message: NewMessage) -> None:
    """A busy agent rejected the first sending; the answer to the second was lost."""
    sent = message()
    states = ("REJECTED", "WORKING", "CANCELED")
    tasks = [task(state, state, contextId=sent.context_id) for state in states]
    with HostileAgent({"ListTasks": result({"tasks": tasks})}) as agent:
        found = await client.find(agent.address, sent)

    assert found is not None and found.state is TaskState.WORKING


async def test_a_task_is_known_by_its_message_too(client: AgentClient, message: NewMessage) -> None:
    sent = message()
    told = {"messageId": sent.message_id, "role": "ROLE_USER", "parts": []}
    with HostileAgent({"ListTasks": result({"tasks": [task("other"), task("mine", history=[told])]})}) as agent:
        found = await client.find(agent.address, sent)

    assert found is not None and found.id == "mine"


async def test_an_agent_with_contexts_of_its_own_cannot_be_asked(client: AgentClient, message: NewMessage) -> None:
    """I-61: that it lists no task of our context means nothing, also after a failure made us read its card again."""
    own = result({"task": task(contextId="its-own")})
    with HostileAgent({"SendMessage": own, "ListTasks": result({"tasks": []}), "GetTask": say("", 500)}) as agent:
        assert await client.find(agent.address, message()) is None
        await client.send(agent.address, message())
        with pytest.raises(Unanswered):
            await client.get(agent.address, "t1")

        with pytest.raises(CannotAsk):
            await client.find(agent.address, message())

        client.forget(agent.address)  # another agent now
        assert await client.find(agent.address, message()) is None


async def test_a_finished_task_is_found_with_its_answer(client: AgentClient, message: NewMessage) -> None:
    sent = message()
    listed = task(state="COMPLETED", contextId=sent.context_id)
    whole = {**listed, "artifacts": [{"artifactId": "a", "parts": [{"text": "done"}]}]}
    with HostileAgent({"ListTasks": result({"tasks": [listed]}), "GetTask": result(whole)}) as agent:
        found = await client.find(agent.address, sent)
    assert found is not None and found.answer == Answer(b"done")

    gone = {"ListTasks": result({"tasks": [listed]}), "GetTask": error(TASK_NOT_FOUND)}
    with HostileAgent(gone) as agent, pytest.raises(Unanswered):
        await client.find(agent.address, sent)


async def test_a_cancellation_that_is_refused(client: AgentClient) -> None:
    for code in (NOT_CANCELABLE, UNSUPPORTED, NO_METHOD, INVALID_PARAMS):
        with HostileAgent({"CancelTask": error(code), "GetTask": result(task())}) as agent, pytest.raises(Refused):
            await client.cancel(agent.address, "t1")
        with HostileAgent({"CancelTask": error(code), "GetTask": result(task(state="FAILED"))}) as agent:
            assert (await client.cancel(agent.address, "t1")).state is TaskState.FAILED
    gone = {"CancelTask": error(NOT_CANCELABLE), "GetTask": error(TASK_NOT_FOUND)}
    with HostileAgent(gone) as agent, pytest.raises(TaskNotFound):
        await client.cancel(agent.address, "t1")


async def test_a_card_is_read_once_until_there_is_a_reason(
    client: AgentClient, message: NewMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostileAgent({"SendMessage": in_turn(*[result({"task": task()})] * 12, error(NO_METHOD))}) as agent:

        def cards() -> int:
            return sum(request.is_card for request in agent.seen)

        await asyncio.gather(*(client.send(agent.address, message()) for _ in range(10)))
        assert cards() == 1
        client.forget(agent.address)
        await client.send(agent.address, message())
        assert cards() == 2
        monkeypatch.setattr(discovery, "CARD_LIFE", 0.0)
        await client.send(agent.address, message())
        assert cards() == 3
        monkeypatch.undo()
        for _ in range(2):
            with pytest.raises(NotDelivered):
                await client.send(agent.address, message())
        assert cards() == 4, "an agent that does not know the method may be another one than the card's"


async def test_an_agent_of_a2a_0_3_is_spoken_to_in_0_3(
    agent: AgentProcess, client: AgentClient, message: NewMessage
) -> None:
    legacy = {
        **json.loads(card()),
        "supportedInterfaces": None,
        "protocolVersion": "0.3.0",
        "url": "http://agent.example/",
        "preferredTransport": "JSONRPC",
    }
    del legacy["supportedInterfaces"]
    with HostileAgent(pass_on_to(agent.port), say(json.dumps(legacy))) as old:
        sent = message("hello")
        started = await client.send(old.address, sent)
        done = await client.follow(old.address, started.id, lambda _: None)
        await agent.fault("slow", seconds=600)
        other = await client.send(old.address, message())

        assert done.answer == Answer(b"researcher: hello")
        assert (await client.cancel(old.address, other.id)).state is TaskState.CANCELED
        with pytest.raises(CannotAsk):
            await client.find(old.address, sent)
        with pytest.raises(TaskNotFound):
            await client.get(old.address, "no-such-task")
        assert {"message/send", "tasks/get", "tasks/cancel"} <= set(old.methods())
