"""The agent answers over A2A, and remembers on its data volume what it has answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.helpers import get_stream_response_text
from a2a.types import (
    CancelTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    TaskState,
)
from tests.agent.conftest import NewAgent
from tests.agent.harness import AgentProcess


async def test_the_card_names_the_workspace_and_the_address_it_was_asked_at(agent: AgentProcess) -> None:
    card = await agent.card()

    assert card["name"] == "researcher"
    assert [interface["url"] for interface in card["supportedInterfaces"]] == [f"{agent.url}/"] * 2
    assert [interface["protocolVersion"] for interface in card["supportedInterfaces"]] == ["1.0", "0.3"]
    assert card["capabilities"]["streaming"] is True


async def test_text_in_gives_text_out(agent: AgentProcess) -> None:
    assert await agent.ask("hello") == "researcher: hello"
    assert await agent.ask("whoami") == "researcher/team-a/7"


async def test_a_stream_shows_the_work_and_then_the_answer(agent: AgentProcess) -> None:
    events = await agent.tell("hello", streaming=True)

    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds == ["task", "status_update", "artifact_update", "status_update"]
    assert get_stream_response_text(events[2]) == "researcher: hello"


async def test_a_client_of_protocol_0_3_is_answered(agent: AgentProcess) -> None:
    message = {"role": "user", "kind": "message", "messageId": "m", "parts": [{"kind": "text", "text": "hi"}]}
    request = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}

    async with httpx.AsyncClient() as http:
        answer = (await http.post(f"{agent.url}/", json=request)).json()

    assert answer["result"]["artifacts"][0]["parts"] == [{"kind": "text", "text": "researcher: hi"}]


async def test_data_survives_into_the_next_incarnation(new_agent: NewAgent, tmp_path: Path) -> None:
    first = new_agent(WORKSPACE_DATA=str(tmp_path / "data")).start()
    await first.ask("one")
    await first.ask("two", message_id="kept")
    first.kill()

    second = new_agent(WORKSPACE_DATA=str(tmp_path / "data"), WORKSPACE_INCARNATION="8").start()

    assert await second.ask("count") == "2"
    assert await second.ask("two", message_id="kept") == "researcher: two"
    assert await second.ask("count") == "2", "a message sent again after a crash is not worked on twice"
    assert await second.ask("whoami") == "researcher/team-a/8"
    assert (tmp_path / "data/answered").read_text() == "2"


async def test_without_a_data_volume_a_restart_forgets(new_agent: NewAgent) -> None:
    agent = new_agent().start()
    await agent.ask("one")
    assert await agent.ask("count") == "1"
    agent.kill()

    assert await agent.start().ask("count") == "0"


async def test_the_same_message_sent_twice_at_once_is_worked_on_once(agent: AgentProcess) -> None:
    await agent.fault("slow", seconds=0.5)

    answers = await asyncio.gather(agent.ask("twice", "same-id"), agent.ask("twice", "same-id"))

    assert list(answers) == ["researcher: twice"] * 2
    await agent.fault("none")
    assert await agent.ask("count") == "1"


async def test_a_task_in_work_can_be_cancelled(agent: AgentProcess) -> None:
    await agent.fault("slow", seconds=30)
    message = Message(role=Role.ROLE_USER, message_id="unwanted", parts=[Part(text="unwanted")])
    request = SendMessageRequest(message=message, configuration=SendMessageConfiguration(return_immediately=True))
    async with httpx.AsyncClient() as http:
        client = await ClientFactory(ClientConfig(streaming=False, httpx_client=http)).create_from_url(agent.url)
        (accepted,) = [event async for event in client.send_message(request)]

        cancelled = await client.cancel_task(CancelTaskRequest(id=accepted.task.id))

    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
    await agent.fault("none")
    assert await agent.ask("count") == "0"


async def test_a_taken_port_is_told_in_one_sentence(agent: AgentProcess, new_agent: NewAgent) -> None:
    second = new_agent(WORKSPACE_PORT=str(agent.port)).spawn()

    assert second.process.wait(10) == 4
    assert f"cannot serve on port {agent.port}" in second.output
    assert "Traceback" not in second.output


async def test_a_bad_setting_is_told_in_one_sentence(new_agent: NewAgent) -> None:
    agent = new_agent(AGENT_FAULTS="slwo=2").spawn()

    assert agent.process.wait(10) == 2
    assert "There is no fault 'slwo'" in agent.output
