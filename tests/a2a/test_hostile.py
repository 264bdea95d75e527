"""Agents that answer anything at all: each ends in a clear error in time, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack

import pytest
from tests.a2a.conftest import NewMessage
from tests.agent.harness import AgentProcess
from tests.support.hostile import ANYWHERE, CARDS, HostileAgent, Request, card, http, in_turn, result, say, silent, task

from workspace_operator.a2a import client as module
from workspace_operator.a2a import wire
from workspace_operator.a2a.client import AgentClient, Limits
from workspace_operator.a2a.errors import CannotAsk, NotDelivered, Refused, Unanswered, UnusableAnswer
from workspace_operator.a2a.values import Answer
from workspace_operator.errors import OperatorError

UNUSABLE = frozenset(
    {
        *("html", "plain-text", "html-as-json", "wrong-type", "empty", "a-list", "a-number", "invalid-utf-8"),
        *("ten-megabytes", "flood", "deep", "deeper-than-protobuf", "many-parts", "huge-number", "compressed"),
    }
)
LOST = frozenset(
    {
        *("internal-error", "bad-gateway", "not-http"),
        *("silent", "hangs-up", "stops-midway", "drips", "drips-head", "interim", "crumbs"),
    }
)
NOT_NOW = frozenset({"redirect", "permanent-redirect", "too-many-requests", "unavailable"})
MISSING, REFUSED = frozenset({"not-found"}), frozenset({"unauthorized"})

Ask = Callable[[str], Awaitable[object]]


async def outcomes(habits: Iterable[str], ask: Ask, *, of_cards: bool = False) -> dict[str, type[BaseException]]:
    """Ask one agent of each habit, all at once."""

    async def outcome(address: str) -> type[BaseException]:
        with pytest.raises(OperatorError) as raised:
            await ask(address)
        told = raised.value.failure.message
        assert "token" not in told and "169.254" not in told and "{" not in told, told
        assert told.endswith("."), told
        return raised.type

    with ExitStack() as stack:
        agents = {
            name: stack.enter_context(HostileAgent(silent, name) if of_cards else HostileAgent(name)) for name in habits
        }
        found = await asyncio.wait_for(asyncio.gather(*(outcome(agent.address) for agent in agents.values())), 120)
        return dict(zip(agents, found, strict=True))


def expected(**kinds: frozenset[str]) -> dict[str, type[BaseException]]:
    named = {one.__name__: one for one in (CannotAsk, NotDelivered, Refused, Unanswered, UnusableAnswer)}
    return {name: named[kind] for kind, names in kinds.items() for name in names}


async def test_a_bad_card_means_that_nothing_was_sent(client: AgentClient, message: NewMessage) -> None:
    """I-61, I-53."""
    habits = {**ANYWHERE, **CARDS}

    assert await outcomes(habits, lambda address: client.send(address, message()), of_cards=True) == expected(
        NotDelivered=frozenset(habits)
    )


async def test_a_message_whose_answer_tells_nothing_may_have_arrived(client: AgentClient, message: NewMessage) -> None:
    """I-61: only what is provably undelivered is called so. I-53: no error repeats what an agent said."""
    assert await outcomes(ANYWHERE, lambda address: client.send(address, message())) == expected(
        NotDelivered=NOT_NOW | MISSING, Refused=REFUSED, Unanswered=LOST | UNUSABLE
    )


async def test_a_task_whose_answer_is_of_no_use(client: AgentClient) -> None:
    assert await outcomes(ANYWHERE, lambda address: client.get(address, "t1")) == expected(
        UnusableAnswer=UNUSABLE, Unanswered=LOST | NOT_NOW | MISSING | REFUSED
    )


async def test_nobody_is_believed_to_have_no_task_unless_he_says_so(client: AgentClient, message: NewMessage) -> None:
    """I-61: ``None`` would have the message sent again."""
    assert await outcomes(ANYWHERE, lambda address: client.find(address, message())) == expected(
        CannotAsk=UNUSABLE | MISSING | REFUSED, Unanswered=LOST | NOT_NOW
    )


async def test_a_cancellation_that_may_have_been_heard(client: AgentClient) -> None:
    assert await outcomes(ANYWHERE, lambda address: client.cancel(address, "t1")) == expected(
        Unanswered=LOST | UNUSABLE | MISSING | REFUSED, NotDelivered=NOT_NOW
    )


async def test_others_are_served_while_agents_dawdle(agent: AgentProcess, message: NewMessage) -> None:
    """Not by the clock: the good agent's tasks are over while every bad one still holds its request."""
    patient = AgentClient(Limits(send=600, ask=600))
    with ExitStack() as stack:
        slow = [stack.enter_context(HostileAgent(habit)) for habit in ("silent", "drips", "drips-head") for _ in "123"]
        pending = [asyncio.create_task(patient.send(one.address, message())) for one in slow for _ in range(40)]
        try:
            for number in range(10):
                task = await patient.send(f"127.0.0.1:{agent.port}", message(f"task {number}"))
                done = await patient.follow(f"127.0.0.1:{agent.port}", task.id, lambda _: None)
                assert done.answer == Answer(f"researcher: task {number}".encode())
            assert not any(task.done() for task in pending)
            assert max(one.most_open for one in slow) <= module.PER_AGENT
        finally:
            for one in pending:
                one.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            await patient.close()


async def test_failures_leave_no_connection_behind(
    agent: AgentProcess, message: NewMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where four connections are all there are, forty lost ones would be noticed."""
    monkeypatch.setattr(module, "CONNECTIONS", 4)
    monkeypatch.setattr(module, "STREAMS", 4)
    client = AgentClient(Limits(send=5, ask=5, silence=0.2))
    habits = ("html", "flood", "ten-megabytes", "stops-midway", "unavailable", "not-http", "silent", "drips")
    try:
        with ExitStack() as stack:
            bad = [stack.enter_context(HostileAgent(habit)) for habit in habits]
            work = {"GetTask": in_turn(*[result(task())] * 8, result(task(state="FAILED")))}
            mute = stack.enter_context(HostileAgent({**work, "SubscribeToTask": silent}))
            client_errors = [client.send(one.address, message()) for one in bad for _ in range(5)]
            found = await asyncio.gather(*client_errors, return_exceptions=True)
            assert all(isinstance(one, OperatorError) for one in found)
            await client.follow(mute.address, "t1", lambda _: None)

            for number in range(10):
                done = await client.send(f"127.0.0.1:{agent.port}", message(str(number)))
                assert done.id
    finally:
        await client.close()


async def test_only_the_observed_address_is_contacted(client: AgentClient, message: NewMessage) -> None:
    """I-56: neither a card nor a redirect sends us anywhere else."""
    with HostileAgent(result({"task": task()})) as trap:
        elsewhere = say(card(url=f"http://{trap.address}/rpc?x=1#y"))
        with HostileAgent(result({"task": task()}), elsewhere) as agent:
            assert (await client.send(agent.address, message())).id == "t1"
            assert [request.target for request in agent.seen if not request.is_card] == ["/rpc"]
        metadata = say(card(url="http://169.254.169.254/latest/meta-data"))
        with HostileAgent(result({"task": task()}), metadata) as agent:
            assert (await client.send(agent.address, message())).id == "t1"
        moved = say("", 307, Location=f"http://{trap.address}/")
        with HostileAgent(moved) as agent, pytest.raises(NotDelivered):
            await client.send(agent.address, message())
        with HostileAgent(moved, moved) as agent, pytest.raises(NotDelivered):
            await client.send(agent.address, message())
        assert trap.seen == []


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254:80", "[fe80::1]:80", "[fd00:ec2::254]:80", "224.0.0.1:80", "0.0.0.0:80"),
        *("localhost:80", "metadata.google.internal:80", "[::ffff:169.254.169.254]:80", "10.0.0.1:99999", "::1:80"),
    ],
)
async def test_some_addresses_are_never_contacted(address: str, client: AgentClient, message: NewMessage) -> None:
    """I-56."""
    with pytest.raises(NotDelivered):
        await client.send(address, message())
    with pytest.raises(Unanswered):
        await client.get(address, "t1")


@pytest.mark.parametrize("url", ["//evil.example/a", "http://u:p@evil.example/a", "/a", "a", "http://[::1]/a"])
async def test_of_a_cards_url_only_the_path_counts(url: str, client: AgentClient, message: NewMessage) -> None:
    """I-56."""
    with HostileAgent(result({"task": task()}), say(card(url=url))) as agent:
        await client.send(agent.address, message())

        assert [request.target for request in agent.seen if not request.is_card] == ["/a"]


async def test_a_task_under_another_id_is_nobodys(client: AgentClient) -> None:
    with HostileAgent(result(task("t2", "COMPLETED"))) as agent:
        with pytest.raises(UnusableAnswer):
            await client.get(agent.address, "t1")
        with pytest.raises(Unanswered):
            await client.cancel(agent.address, "t1")


async def test_many_large_answers_at_once_do_not_pile_up(client: AgentClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is below its own limit; together they are more than is held."""
    monkeypatch.setattr(wire, "ANSWERS_BYTES", 2_500_000)

    async def half(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(http(" " * 2_000_000)[:-1_000_000])
        await silent(request, writer)

    with HostileAgent(half) as slow, HostileAgent(result(task(metadata={"x": "x" * 2_000_000}))) as agent:
        asked = [client.get(slow.address, "t1") for _ in range(3)]
        answers = await asyncio.gather(*asked, return_exceptions=True)

        assert {type(one) for one in answers} == {Unanswered}
        assert "Too many large answers arrived at once." in [str(one) for one in answers]
        assert (await client.get(agent.address, "t1")).id == "t1", "what was held is free again"
