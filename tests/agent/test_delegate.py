"""The agent hands tasks to others through Delegations, and is none the worse for whatever becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types import (
    CancelTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    TaskState,
)
from tests.agent.conftest import NewAgent
from tests.agent.fake_kube import CONFIGMAPS_PATH, DELEGATIONS_PATH, FakeKube
from tests.agent.harness import AgentProcess

from reference_agent.delegate import key_of, parse

NAME = f"researcher.{key_of('m-1')}"
PATH = f"{DELEGATIONS_PATH}/{NAME}"
KEPT = f"{CONFIGMAPS_PATH}/delegation-{NAME}"


@pytest.fixture
def agent(new_agent: NewAgent, kube: FakeKube) -> AgentProcess:
    """One with an identity."""
    return new_agent().start()


@contextlib.asynccontextmanager
async def asking(
    agent: AgentProcess, text: str, message_id: str = "m-1"
) -> AsyncIterator[asyncio.Task[StreamResponse]]:
    """A message under way."""

    async def tell() -> StreamResponse:
        (response,) = await agent.tell(text, message_id, within=60)
        return response

    task = asyncio.create_task(tell())
    yield task
    await asyncio.wait_for(task, 60)


async def in_thread(call: Any, *arguments: Any, **more: Any) -> Any:
    """The stand-in blocks; the test's own loop goes on with its requests."""
    return await asyncio.to_thread(call, *arguments, **more)


def text_of(response: StreamResponse) -> str:
    return "".join(part.text for artifact in response.task.artifacts for part in artifact.parts)


def why_of(response: StreamResponse) -> str:
    assert response.task.status.state == TaskState.TASK_STATE_FAILED, response
    return "".join(part.text for part in response.task.status.message.parts)


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("ask writer: hello", ("writer", "hello")),
        ("ask  writer :hello\nthere", ("writer", "hello\nthere")),
        ("ask researcher: ask writer: hello", ("researcher", "ask writer: hello")),
        ("ask writer:", None),
        ("ask Writer: hello", None),
        ("ask -w: hello", None),
        ("please ask writer: hello", None),
        ("asking: hello", None),
    ],
)
def test_what_is_a_wish_to_delegate(text: str, wish: tuple[str, str] | None) -> None:
    assert parse(text) == wish


async def test_the_answer_of_another_becomes_its_own(agent: AgentProcess, kube: FakeKube) -> None:
    """With its own token, from itself, under a key that is made from the message id. The right to read comes later."""
    async with asking(agent, "ask writer: hello") as response:
        sent = await in_thread(kube.ledger.sent)
        assert sent["metadata"]["name"] == NAME
        assert sent["spec"] == {
            "from": {"name": "researcher"},
            "to": {"name": "writer"},
            "message": {"text": "hello"},
            "idempotencyKey": NAME.removeprefix("researcher."),
        }
        await in_thread(kube.ledger.wait_for, lambda: kube.ledger.requests.count(f"GET {PATH}") >= 3)
        kube.ledger.grant(PATH)
        await in_thread(kube.ledger.wait_for, lambda: any("watch=true" in each for each in kube.ledger.requests))
        assert await agent.ask("whoami") == "researcher/team-a/7", "it answers others meanwhile"
        await in_thread(kube.wait_for, lambda seen: seen.active_tasks == "1")
        await in_thread(kube.ledger.finish, "Completed", preview="writer: hello", complete=True, bytes=13)
    assert text_of(await response) == "researcher: writer: hello"
    assert await agent.ask("count") == "0"


async def test_the_same_message_again_finds_the_same_delegation(new_agent: NewAgent, kube: FakeKube) -> None:
    """Even after a crash in the middle, and without a data volume."""
    first = new_agent().start()
    lost = asyncio.create_task(first.tell("ask writer: hello", "m-1", within=60))
    await in_thread(kube.ledger.sent)
    first.kill()
    with pytest.raises((httpx.HTTPError, A2AClientError)):
        await lost
    second = new_agent().start()
    async with asking(second, "ask writer: hello") as response:
        await in_thread(kube.ledger.wait_for, lambda: kube.ledger.requests.count(f"POST {DELEGATIONS_PATH}") == 2)
        await in_thread(kube.ledger.finish, "Completed", preview="writer: hello", complete=True)
    assert text_of(await response) == "researcher: writer: hello"
    async with asking(second, "ask writer: hello") as again:
        pass
    assert text_of(await again) == "researcher: writer: hello"
    assert len(kube.ledger.delegations()) == 1


async def test_other_content_under_the_same_message_id_is_not_answered(agent: AgentProcess, kube: FakeKube) -> None:
    async with asking(agent, "ask writer: hello"):
        await in_thread(kube.ledger.finish, "Completed", preview="writer: hello", complete=True)
    async with asking(agent, "ask writer: something else") as response:
        pass
    assert "asks for something else" in why_of(await response)


async def test_a_failure_of_the_delegation_fails_the_task_with_its_sentence(
    agent: AgentProcess, kube: FakeKube
) -> None:
    async with asking(agent, "ask writer: hello") as response:
        await in_thread(kube.ledger.sent)
        await in_thread(kube.ledger.finish, "Failed", "researcher may not delegate to writer.")
    told = why_of(await response)
    assert "The task for writer ended as Failed" in told and told.endswith("researcher may not delegate to writer.")


async def test_a_refused_delegation_fails_the_task_with_the_servers_sentence(
    agent: AgentProcess, kube: FakeKube
) -> None:
    kube.ledger.failures = [422]
    async with asking(agent, "ask researcher: hello") as response:
        pass
    assert "422: on purpose" in why_of(await response)


async def test_a_server_that_is_away_is_tried_again(agent: AgentProcess, kube: FakeKube) -> None:
    kube.ledger.failures = [503, 429, 401]
    async with asking(agent, "ask writer: hello") as response:
        await in_thread(kube.ledger.sent)
        kube.ledger.failures = [500, 502]
        await in_thread(kube.ledger.finish, "Completed", preview="writer: hello", complete=True)
    assert text_of(await response) == "researcher: writer: hello"
    assert agent.terminate() == 0
    assert "first-token" not in agent.output


async def test_a_right_that_never_comes_is_not_waited_for_without_end(new_agent: NewAgent, kube: FakeKube) -> None:
    agent = new_agent(AGENT_GRANT_WAIT="0.5").start()
    async with asking(agent, "ask writer: hello") as response:
        pass
    assert "403" in why_of(await response)


async def test_a_delegation_that_was_deleted_is_told(agent: AgentProcess, kube: FakeKube) -> None:
    async with asking(agent, "ask writer: hello") as response:
        await in_thread(kube.ledger.sent)
        kube.ledger.grant(PATH)
        await in_thread(kube.ledger.wait_for, lambda: any("watch=true" in each for each in kube.ledger.requests))
        kube.ledger.remove(PATH)
    assert "404" in why_of(await response)


async def test_a_large_answer_is_read_by_reference(agent: AgentProcess, kube: FakeKube) -> None:
    whole = "ä" * 100_000
    async with asking(agent, "ask writer: hello") as response:
        await in_thread(kube.ledger.sent)
        kube.ledger.put(KEPT, {"data": {"answer": whole}})
        reference = {"name": f"delegation-{NAME}", "key": "answer"}
        await in_thread(kube.ledger.finish, "Completed", preview=whole[:2048], complete=True, configMapKeyRef=reference)
        await in_thread(kube.ledger.wait_for, lambda: f"GET {KEPT}" in kube.ledger.requests)
        kube.ledger.grant(KEPT)
    assert text_of(await response) == f"researcher: {whole}"


async def test_a_cut_answer_says_so(agent: AgentProcess, kube: FakeKube) -> None:
    async with asking(agent, "ask writer: hello") as response:
        await in_thread(kube.ledger.sent)
        await in_thread(kube.ledger.finish, "Completed", preview="writer: he", complete=False, bytes=13)
    assert text_of(await response) == "researcher: writer: he [cut: the whole answer of writer has 13 bytes]"


async def test_without_an_identity_it_says_that_it_cannot(new_agent: NewAgent) -> None:
    agent = new_agent().start()
    async with asking(agent, "ask writer: hello") as response:
        pass
    assert "has no identity" in why_of(await response)


async def test_a_cancelled_task_cancels_its_delegation(agent: AgentProcess, kube: FakeKube) -> None:
    """As soon as the right is there (I-71)."""
    message = Message(role=Role.ROLE_USER, message_id="m-1", parts=[Part(text="ask writer: hello")])
    request = SendMessageRequest(message=message, configuration=SendMessageConfiguration(return_immediately=True))
    async with httpx.AsyncClient(timeout=30) as http:
        client = await ClientFactory(ClientConfig(streaming=False, httpx_client=http)).create_from_url(agent.url)
        (accepted,) = [event async for event in client.send_message(request)]
        await in_thread(kube.ledger.sent)
        cancelled = await client.cancel_task(CancelTaskRequest(id=accepted.task.id))
    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
    await in_thread(kube.ledger.wait_for, lambda: f"PATCH {PATH}" in kube.ledger.requests)
    kube.ledger.grant(PATH)
    await in_thread(kube.ledger.wait_for, lambda: kube.ledger.sent()["spec"].get("desiredState") == "Stopped")


async def test_a_stop_of_the_agent_leaves_the_delegation_alone(new_agent: NewAgent, kube: FakeKube) -> None:
    """It may be a pause: the message comes again afterwards, and finds the answer."""
    agent = new_agent(AGENT_GRACE="1").start()
    waiting = asyncio.create_task(agent.tell("ask writer: hello", "m-1", within=60))
    await in_thread(kube.ledger.sent)
    kube.ledger.grant(PATH)
    await in_thread(kube.ledger.wait_for, lambda: any("watch=true" in each for each in kube.ledger.requests))
    assert await asyncio.to_thread(agent.terminate, 20) == 0
    with contextlib.suppress(httpx.HTTPError, A2AClientError):
        (left,) = await waiting
        assert left.task.status.state == TaskState.TASK_STATE_WORKING, "no end is claimed"
    assert not [each for each in kube.ledger.requests if each.startswith("PATCH")]
