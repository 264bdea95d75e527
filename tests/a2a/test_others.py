"""The client and A2A servers that we did not write: the SDK's own sample, two other implementations, and A2A 0.3."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.a2a.conftest import NewMessage
from tests.a2a.servers.others import OTHERS, Other, running
from tests.backends.relay import Relay
from tests.support.hostile import CARD_PATH, HostileAgent, pass_on_to
from tests.support.hostile import say as always

from workspace_operator.a2a.client import AgentClient, Limits
from workspace_operator.a2a.errors import CannotAsk, NotDelivered, TaskNotFound, Unanswered
from workspace_operator.a2a.values import Answer, TaskState, TaskView


def of(*others: Other) -> pytest.MarkDecorator:
    """For some of them only."""
    return pytest.mark.parametrize("other", others, ids=lambda other: other.name, indirect=True, scope="module")


@pytest.fixture(scope="module", params=OTHERS, ids=lambda other: other.name)
def other(request: pytest.FixtureRequest) -> Other:
    assert isinstance(request.param, Other)
    return request.param


@pytest.fixture(scope="module")
def address(other: Other, tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]) -> Iterator[str]:
    with running(other, tmp_path_factory.mktemp("other"), say) as address:
        yield address


@pytest.fixture
async def client() -> AsyncIterator[AgentClient]:
    made = AgentClient(Limits(ask=20))
    yield made
    await made.close()


def answer(other: Other, text: str) -> Answer:
    said = f"You said: {text}" if other.obeys else f"Hello World! You said: '{text}'. Thanks for your message!"
    return Answer(said.encode())


async def finish(client: AgentClient, address: str, task: TaskView) -> TaskView:
    return await asyncio.wait_for(client.follow(address, task.id, lambda _: None), 120)


def witness(address: str, **capabilities: bool) -> HostileAgent:
    """Passes everything on, remembers the methods, and may change what the card offers."""
    card = json.loads(urllib.request.urlopen(f"http://{address}{CARD_PATH}", timeout=30).read())
    card["capabilities"].update(capabilities)
    return HostileAgent(pass_on_to(int(address.rpartition(":")[2])), always(json.dumps(card)))


async def test_delivery_and_a_stream(
    other: Other, address: str, client: AgentClient, message: NewMessage, seen: list[TaskView]
) -> None:
    with witness(address) as between:
        sent = message("a walk")
        task = await client.send(between.address, sent)
        done = await asyncio.wait_for(client.follow(between.address, task.id, seen.append), 120)
        methods = between.methods()

    assert (done.state, done.answer, done.context_id) == (TaskState.COMPLETED, answer(other, "a walk"), sent.context_id)
    assert methods in (
        ["SendMessage", "GetTask", "SubscribeToTask", "GetTask"],
        ["message/send", "tasks/get", "tasks/resubscribe", "tasks/get"],
    )
    assert len(seen) > 2, "events are signs of life"


async def test_polling_where_the_card_offers_no_stream(
    other: Other, address: str, client: AgentClient, message: NewMessage
) -> None:
    with witness(address, streaming=False) as between:
        task = await client.send(between.address, message("a walk"))
        done = await finish(client, between.address, task)
        methods = between.methods()

    assert done.answer == answer(other, "a walk")
    assert set(methods[1:]) in ({"GetTask"}, {"tasks/get"}) and len(methods) > 2


async def test_cancellation(address: str, client: AgentClient, message: NewMessage) -> None:
    task = await client.send(address, message("long"))

    told = await client.cancel(address, task.id)

    assert told.state in (TaskState.WORKING, TaskState.CANCELED)
    assert (await finish(client, address, task)).state is TaskState.CANCELED
    assert (await client.cancel(address, task.id)).state is TaskState.CANCELED, "once more does no harm"


@of(*(one for one in OTHERS if one.name != "fasta2a"))  # which leaves that to its worker; ours would cancel it
async def test_a_task_that_is_over_is_not_cancelled(address: str, client: AgentClient, message: NewMessage) -> None:
    task = await client.send(address, message("hello"))
    done = await finish(client, address, task)

    assert await client.cancel(address, task.id) == done


@of(*(one for one in OTHERS if one.obeys))
async def test_failure(other: Other, address: str, client: AgentClient, message: NewMessage) -> None:
    task = await client.send(address, message("fail"))

    failed = await finish(client, address, task)

    assert (failed.state, failed.answer) == (TaskState.FAILED, None)
    assert failed.message == ("" if other.name == "fasta2a" else "It broke."), "fasta2a tells nobody why"


@of(*(one for one in OTHERS if one.obeys))
async def test_a_question(address: str, client: AgentClient, message: NewMessage) -> None:
    task = await client.send(address, message("ask"))

    waiting = await finish(client, address, task)

    assert (waiting.state, waiting.message) == (TaskState.INPUT_REQUIRED, "Which one?")


async def test_a_task_that_nobody_knows(address: str, client: AgentClient) -> None:
    with pytest.raises(TaskNotFound):
        await client.get(address, "6fa459ea-ee8a-3ca4-894e-db77e160355e")
    with pytest.raises(TaskNotFound):
        await client.cancel(address, "6fa459ea-ee8a-3ca4-894e-db77e160355e")


async def test_a_lost_answer(other: Other, address: str, client: AgentClient, message: NewMessage) -> None:
    """I-61: who lists tasks is asked for it; of who does not, nothing is claimed."""
    relay = Relay(int(address.rpartition(":")[2]))
    with contextlib.closing(relay):
        here, sent = f"127.0.0.1:{relay.port}", message("once")
        relay.lose_answer("SendMessage|message/send")
        with pytest.raises(Unanswered):
            await client.send(here, sent)

        if not other.lists:
            with pytest.raises(CannotAsk):
                await client.find(here, sent)
            return
        found = await client.find(here, sent)
        assert found is not None
        done = await finish(client, here, found)
        assert done.answer == answer(other, "once")
        assert await client.find(here, sent) == done
        assert await client.find(here, message("never sent")) is None


async def test_death_in_the_middle(
    other: Other, client: AgentClient, message: NewMessage, tmp_path: Path, say: Callable[[str], None]
) -> None:
    with running(other, tmp_path, say) as address:
        task = await client.send(address, message("long"))
        following = asyncio.create_task(finish(client, address, task))
        await client.get(address, task.id)

    with pytest.raises(Unanswered):
        await following
    with pytest.raises(NotDelivered):
        await client.send(address, message())
