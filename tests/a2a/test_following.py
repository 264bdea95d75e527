"""Following a task: a stream is worth what the task itself confirms, and asking has manners."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from tests.support.hostile import (
    Habit,
    HostileAgent,
    comments,
    drip,
    error,
    event,
    flood,
    hang_up,
    in_turn,
    result,
    say,
    silent,
    status_event,
    stream,
    task,
)

from workspace_operator.a2a import client as module
from workspace_operator.a2a import following
from workspace_operator.a2a.client import AgentClient
from workspace_operator.a2a.errors import TaskNotFound, Unanswered, UnusableAnswer
from workspace_operator.a2a.following import Heard
from workspace_operator.a2a.values import Answer, TaskState, TaskView

WORKING = result(task())
DONE = result(task(state="COMPLETED", artifacts=[{"artifactId": "a", "parts": [{"text": "done"}]}]))
TRICKLE = b"data: "
BIG = event(artifactUpdate={"taskId": "t1", "contextId": "c1", "artifact": {"parts": [{"text": "x" * 300_000}]}})


async def follow(
    client: AgentClient, agent: HostileAgent, seen: Callable[[TaskView], None] = lambda _: None
) -> TaskView:
    return await asyncio.wait_for(client.follow(agent.address, "t1", seen), 120)


@pytest.mark.parametrize(
    "habit",
    [
        pytest.param(stream(then=hang_up), id="ends-at-once"),
        pytest.param(stream(event(task=task()), then=hang_up), id="ends-early"),
        pytest.param(stream(status_event("COMPLETED")), id="lies"),
        pytest.param(stream(status_event("WORKING", "t2"), status_event("COMPLETED", "t2")), id="of-another-task"),
        pytest.param(stream("token=do-not-show"), id="not-json"),
        pytest.param(stream("[]"), id="not-an-object"),
        pytest.param(stream(b"data: \xff\xfe\n\n"), id="not-utf-8"),
        pytest.param(stream(BIG), id="large-event"),
        pytest.param(stream(TRICKLE, then=drip), id="drips"),
        pytest.param(stream(then=flood), id="floods"),
        pytest.param(stream(*[status_event("WORKING")] * 100_000), id="never-comes-to-the-point"),
        pytest.param(error(-32004), id="refuses"),
        pytest.param(say("<html>", kind="text/html"), id="html"),
        pytest.param(silent, id="no-head"),
        pytest.param(drip, id="drips-json"),
        pytest.param(hang_up, id="hangs-up"),
    ],
)
async def test_a_stream_that_is_no_good_costs_nothing_but_time(habit: Habit, client: AgentClient) -> None:
    with HostileAgent({"GetTask": in_turn(WORKING, WORKING, DONE), "SubscribeToTask": habit}) as agent:
        done = await follow(client, agent)

    assert done.answer == Answer(b"done")
    assert agent.methods()[:2] == ["GetTask", "SubscribeToTask"]


@pytest.mark.parametrize("habit", [stream(event(task=task())), stream(then=comments)], ids=["silent", "comments"])
async def test_a_stream_without_events_is_left_and_the_task_asked_for(habit: Habit, client: AgentClient) -> None:
    """I-68: an endless stream is not waited for without end."""
    with HostileAgent({"GetTask": in_turn(WORKING, WORKING, DONE), "SubscribeToTask": habit}) as agent:
        done = await follow(client, agent)
        methods = agent.methods()

    assert done.state is TaskState.COMPLETED
    assert methods == ["GetTask", "SubscribeToTask", "GetTask", "SubscribeToTask", "GetTask"]


async def test_each_event_is_a_sign_of_life(client: AgentClient, seen: list[TaskView]) -> None:
    said = event(
        statusUpdate={
            "taskId": "t1",
            "contextId": "c1",
            "status": {"state": "TASK_STATE_WORKING", "message": {"messageId": "m", "parts": [{"text": "half"}]}},
        }
    )
    part = event(artifactUpdate={"taskId": "t1", "contextId": "c1", "artifact": {"parts": [{"text": "x"}]}})
    events = stream(event(task=task()), said, part, status_event("COMPLETED"))
    with HostileAgent({"GetTask": in_turn(WORKING, DONE), "SubscribeToTask": events}) as agent:
        await follow(client, agent, seen.append)

    assert [(view.state, view.message) for view in seen] == [
        *((TaskState.WORKING, text) for text in ("", "", "half", "")),
        (TaskState.COMPLETED, ""),
    ]


async def test_a_question_ends_the_following_and_is_shown(client: AgentClient) -> None:
    asked = {"role": "ROLE_AGENT", "messageId": "m", "parts": [{"text": "Which one?"}]}
    waiting = task(status={"state": "TASK_STATE_INPUT_REQUIRED", "message": asked})
    events = stream(status_event("INPUT_REQUIRED"))
    with HostileAgent({"GetTask": in_turn(WORKING, result(waiting)), "SubscribeToTask": events}) as agent:
        view = await follow(client, agent)

    assert (view.state, view.message, view.answer) == (TaskState.INPUT_REQUIRED, "Which one?", None)


async def test_no_more_streams_are_open_than_there_is_room_for(
    client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STREAMS", 1)
    over = asyncio.Event()

    async def until_over(request: object, writer: asyncio.StreamWriter) -> None:
        await (DONE if over.is_set() else WORKING)(request, writer)  # type: ignore[arg-type]

    with HostileAgent({"GetTask": until_over, "SubscribeToTask": stream(event(task=task()))}) as agent:
        followers = [asyncio.create_task(follow(client, agent)) for _ in range(5)]
        while agent.methods().count("GetTask") < 20:
            assert agent.methods().count("SubscribeToTask") <= 1 + agent.methods().count("GetTask") // 5
            await asyncio.sleep(0.05)
        over.set()
        assert {view.state for view in await asyncio.gather(*followers)} == {TaskState.COMPLETED}


async def test_a_task_that_is_gone_is_told_at_once(client: AgentClient) -> None:
    with HostileAgent({"GetTask": in_turn(WORKING, error(-32001)), "SubscribeToTask": error(-32001)}) as agent:
        with pytest.raises(TaskNotFound):
            await follow(client, agent)

        assert agent.methods() == ["GetTask", "SubscribeToTask", "GetTask"]


@pytest.mark.parametrize(("habit", "error_type"), [("internal-error", Unanswered), ("html", UnusableAnswer)])
async def test_patience_with_answers_that_are_none_has_an_end(
    habit: str, error_type: type[Exception], client: AgentClient
) -> None:
    """I-68."""
    with HostileAgent(habit) as agent:
        with pytest.raises(error_type):
            await follow(client, agent)

        assert agent.methods() == ["GetTask"] * following.PATIENCE


async def test_one_good_answer_renews_the_patience(client: AgentClient, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = say("", 500)
    turns = in_turn(bad, bad, bad, WORKING, bad, bad, bad, WORKING, DONE)
    monkeypatch.setattr(following, "LONGEST_DELAY", 0.3)
    with HostileAgent({"GetTask": turns, "SubscribeToTask": hang_up}) as agent:
        assert (await follow(client, agent)).state is TaskState.COMPLETED


async def test_questions_come_more_and_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """I-68: every poll has a back-off."""
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(following.asyncio, "sleep", sleep)
    answers = [TaskView("t", "c", TaskState.WORKING)] * 30 + [TaskView("t", "c", TaskState.FAILED)]

    await following.follow(_each(answers), _each([Heard.NOTHING] * 30), lambda _: None)

    assert len(delays) == 30
    assert 0.2 <= delays[0] <= 0.25
    assert all(later > sooner * 1.2 for sooner, later in pairwise(delays[:9]))
    assert all(10 <= delay <= 12.5 for delay in delays[9:])


def _each(answers: list[object]) -> Callable[[], Awaitable[object]]:
    left = iter(answers)

    async def ask() -> object:
        return next(left)

    return ask
