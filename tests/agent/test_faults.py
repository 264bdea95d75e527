"""Every way to misbehave is available on demand, and a healthy agent obeys SIGTERM."""

from __future__ import annotations

import asyncio
import subprocess
import time

import httpx
import pytest
from a2a.types import TaskState
from tests.agent.conftest import NewAgent
from tests.agent.harness import AgentProcess


async def test_faults_are_shown_and_bad_ones_refused(agent: AgentProcess) -> None:
    async with httpx.AsyncClient(base_url=agent.url) as http:
        assert (await http.get("/faults")).json() == {"mode": "none", "faults": {}}
        assert await agent.fault("slow", seconds=2) == {"mode": "slow", "faults": {"slow": 2.0}}
        refused = await http.post("/faults", json={"mode": "lazy"})
        assert refused.status_code == 400
        assert "There is no fault 'lazy'" in refused.json()["error"]
        assert (await http.post("/faults", content=b"{")).status_code == 400
        assert (await http.post("/faults", json=["slow"])).status_code == 400
        assert (await http.get("/faults")).json()["mode"] == "slow"


async def test_slow_delays_the_answer_and_not_the_card(agent: AgentProcess) -> None:
    await agent.fault("slow", seconds=2)
    started = time.monotonic()
    answering = asyncio.create_task(agent.ask("hello"))

    await agent.card()

    assert not answering.done()
    assert await answering == "researcher: hello"
    assert time.monotonic() - started >= 2


async def test_busy_rejects_messages(agent: AgentProcess) -> None:
    await agent.fault("busy")

    (response,) = await agent.tell("hello")

    assert response.task.status.state == TaskState.TASK_STATE_REJECTED
    await agent.fault("none")
    assert await agent.ask("hello") == "researcher: hello"


async def test_wedged_hangs_card_and_messages_until_the_fault_is_lifted(agent: AgentProcess) -> None:
    await agent.fault("wedged")
    held = asyncio.create_task(agent.card(within=10))
    with pytest.raises(httpx.ReadTimeout):
        await agent.card(within=0.3)
    assert agent.listening(), "a wedged agent still accepts connections"

    await agent.fault("none")

    assert (await held)["name"] == "researcher"
    assert await agent.ask("hello") == "researcher: hello"


async def test_a_wedged_agent_obeys_sigterm(agent: AgentProcess) -> None:
    await agent.fault("wedged")
    held = asyncio.create_task(agent.card(within=10))
    await asyncio.sleep(0.2)

    assert await asyncio.to_thread(agent.terminate, 3) == 0
    with pytest.raises(httpx.HTTPError):
        await held


async def test_crash_ends_the_process_with_code_3_before_it_answers(agent: AgentProcess) -> None:
    with pytest.raises(httpx.TransportError):
        await agent.fault("crash")

    assert agent.process.wait(5) == 3


async def test_exit_ends_the_process_with_code_0(agent: AgentProcess) -> None:
    await agent.fault("exit")

    assert agent.process.wait(5) == 0


async def test_crash_on_start_never_listens(new_agent: NewAgent) -> None:
    assert new_agent(AGENT_FAULTS="crash-on-start").spawn().process.wait(10) == 3


async def test_a_crash_can_be_set_to_come_later(new_agent: NewAgent) -> None:
    agent = new_agent(AGENT_FAULTS="crash=1").start()

    assert agent.process.wait(5) == 3


async def test_start_delay_postpones_listening_and_sigterm_still_works(new_agent: NewAgent) -> None:
    agent = new_agent(AGENT_FAULTS="start-delay=30").spawn()
    with pytest.raises(subprocess.TimeoutExpired):
        agent.process.wait(1.5)
    assert not agent.listening()

    assert agent.terminate(3) == 0


async def test_sigterm_exits_0_quickly(agent: AgentProcess) -> None:
    await agent.ask("hello")

    assert agent.terminate() == 0


async def test_sigterm_while_starting_exits_0(new_agent: NewAgent) -> None:
    agent = new_agent().spawn()
    # Late enough for the handler, which is installed before the imports; too early for the server.
    await asyncio.sleep(0.25)

    assert agent.terminate() == 0


async def test_a_message_in_work_is_finished_within_the_grace_period(agent: AgentProcess) -> None:
    await agent.fault("slow", seconds=1)
    answering = asyncio.create_task(agent.ask("last words"))
    await asyncio.sleep(0.5)

    assert await asyncio.to_thread(agent.terminate) == 0
    assert await answering == "researcher: last words"


async def test_work_longer_than_the_grace_period_is_given_up(new_agent: NewAgent) -> None:
    agent = new_agent(AGENT_FAULTS="slow=60", AGENT_GRACE="1").start()
    answering = asyncio.create_task(agent.ask("too long"))
    await asyncio.sleep(0.5)

    assert await asyncio.to_thread(agent.terminate, 5) == 0
    with pytest.raises(Exception):  # noqa: B017 - whatever the client makes of a closed connection
        await answering


async def test_ignore_sigterm_needs_sigkill(new_agent: NewAgent) -> None:
    agent = new_agent(AGENT_FAULTS="ignore-sigterm").start()
    with pytest.raises(subprocess.TimeoutExpired):
        agent.terminate(within=1)
    assert await agent.ask("still there?") == "researcher: still there?"

    agent.kill()

    assert agent.process.returncode == -9
