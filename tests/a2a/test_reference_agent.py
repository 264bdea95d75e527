"""The client and the reference agent, over loopback."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import uvloop
from tests.a2a.conftest import NewMessage
from tests.agent.harness import AgentProcess
from tests.backends.relay import Relay
from tests.support.hostile import HostileAgent, card, pass_on_to, say

from workspace_operator.a2a.client import AgentClient
from workspace_operator.a2a.errors import NotDelivered, TaskNotFound, Unanswered
from workspace_operator.a2a.values import Answer, Outgoing, OutgoingPart, TaskState, TaskView


def at(agent: AgentProcess) -> str:
    return f"127.0.0.1:{agent.port}"


async def test_a_message_becomes_a_task_and_its_answer(
    agent: AgentProcess, client: AgentClient, message: NewMessage, seen: list[TaskView]
) -> None:
    sent = message("hello")
    task = await client.send(at(agent), sent)
    assert task.id and task.context_id == sent.context_id

    done = await client.follow(at(agent), task.id, seen.append)

    assert (done.state, done.answer) == (TaskState.COMPLETED, Answer(b"researcher: hello"))
    assert seen[-1] == done == await client.get(at(agent), task.id)


async def test_sending_does_not_wait_for_the_answer(
    agent: AgentProcess, client: AgentClient, message: NewMessage
) -> None:
    await agent.fault("slow", seconds=600)

    task = await client.send(at(agent), message())

    assert task.state is TaskState.WORKING


async def test_a_task_is_followed_by_its_stream(
    agent: AgentProcess, client: AgentClient, message: NewMessage, seen: list[TaskView]
) -> None:
    relay = Relay(agent.port)
    with contextlib.closing(relay):
        await agent.fault("slow", seconds=1.5)
        task = await client.send(relay_address(relay), message())
        before = len(relay.seen)

        done = await client.follow(relay_address(relay), task.id, seen.append)

        requests = relay.seen[before:]
    assert done.state is TaskState.COMPLETED
    assert len(requests) == 3, "the task, its stream, and the task again when the stream says that it is over"


async def test_without_streaming_a_task_is_asked_for(
    agent: AgentProcess, client: AgentClient, message: NewMessage, seen: list[TaskView]
) -> None:
    await agent.fault("slow", seconds=1.5)
    with HostileAgent(pass_on_to(agent.port), say(card(streaming=False))) as poor:
        task = await client.send(poor.address, message())

        done = await client.follow(poor.address, task.id, seen.append)

        assert done.answer == Answer(b"researcher: hello")
        assert set(poor.methods()) == {"SendMessage", "GetTask"}
        assert poor.methods().count("GetTask") > 1


async def test_a_lost_answer_is_found_by_asking(agent: AgentProcess, client: AgentClient, message: NewMessage) -> None:
    """I-61: nothing is sent a second time, because the receiver knows the task."""
    relay = Relay(agent.port)
    with contextlib.closing(relay):
        sent = message("once")
        assert await client.find(relay_address(relay), sent) is None, "it was never sent"
        relay.lose_answer("SendMessage")
        with pytest.raises(Unanswered):
            await client.send(relay_address(relay), sent)

        found = await client.find(relay_address(relay), sent)

        assert found is not None and found.context_id == sent.context_id
        done = await client.follow(relay_address(relay), found.id, lambda _: None)
        assert done.answer == Answer(b"researcher: once")
        assert await client.find(relay_address(relay), sent) == done
    assert await agent.ask("count") == "1"


async def test_a_task_in_work_is_cancelled_and_one_that_is_over_stays_as_it_is(
    agent: AgentProcess, client: AgentClient, message: NewMessage
) -> None:
    finished = await client.send(at(agent), message())
    finished = await client.follow(at(agent), finished.id, lambda _: None)
    await agent.fault("slow", seconds=600)
    task = await client.send(at(agent), message())

    assert (await client.cancel(at(agent), task.id)).state is TaskState.CANCELED
    assert (await client.cancel(at(agent), task.id)).state is TaskState.CANCELED
    assert await client.cancel(at(agent), finished.id) == finished
    with pytest.raises(TaskNotFound):
        await client.cancel(at(agent), "no-such-task")


async def test_following_ends_when_somebody_cancels(
    agent: AgentProcess, client: AgentClient, message: NewMessage
) -> None:
    await agent.fault("slow", seconds=600)
    task = await client.send(at(agent), message())
    listening = asyncio.Event()
    following = asyncio.create_task(client.follow(at(agent), task.id, lambda _: listening.set()))
    await listening.wait()

    await client.cancel(at(agent), task.id)

    assert (await asyncio.wait_for(following, 60)).state is TaskState.CANCELED


async def test_a_busy_agent_rejects_and_says_why(agent: AgentProcess, client: AgentClient, message: NewMessage) -> None:
    await agent.fault("busy")

    task = await client.send(at(agent), message())
    task = await client.follow(at(agent), task.id, lambda _: None)

    assert task.state is TaskState.REJECTED and task.answer is None
    assert task.message == "The agent is busy; send it again later."


async def test_after_a_restart_the_agent_does_not_know_the_task(
    agent: AgentProcess, client: AgentClient, message: NewMessage
) -> None:
    await agent.fault("slow", seconds=600)
    sent = message()
    task = await client.send(at(agent), sent)
    following = asyncio.create_task(client.follow(at(agent), task.id, lambda _: None))
    agent.kill()
    with pytest.raises(NotDelivered):
        await client.send(at(agent), message())
    agent.start()

    with pytest.raises((TaskNotFound, Unanswered)) as raised:
        await asyncio.wait_for(following, 60)
    if raised.type is Unanswered:  # the agent took longer to start than a follower's patience
        with pytest.raises(TaskNotFound):
            await client.get(at(agent), task.id)
    assert await client.find(at(agent), sent) is None


async def test_a_stopped_agent_is_given_up_after_some_questions(
    agent: AgentProcess, client: AgentClient, message: NewMessage
) -> None:
    """I-68: following has an end also when nobody answers any more."""
    await agent.fault("slow", seconds=600)
    task = await client.send(at(agent), message())
    agent.kill()

    with pytest.raises(Unanswered):
        await asyncio.wait_for(client.follow(at(agent), task.id, lambda _: None), 60)


def test_it_works_on_the_operators_event_loop(agent: AgentProcess) -> None:
    async def deliver() -> TaskView:
        client = AgentClient()
        try:
            sent = Outgoing("m", "c", (OutgoingPart(text="fast"),))
            task = await client.send(at(agent), sent)
            return await client.follow(at(agent), task.id, lambda _: None)
        finally:
            await client.close()

    assert uvloop.run(deliver()).answer == Answer(b"researcher: fast")


def relay_address(relay: Relay) -> str:
    return f"127.0.0.1:{relay.port}"
