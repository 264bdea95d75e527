"""An A2A server on the official SDK that counts what each message came to, doubles included.

As a workspace's process: ``python -m tests.support.a2a_plain [de-duplicates] [lists-nothing] [no-streaming]`` listens
where the operator says (WORKSPACE_PORT). A message says what is to become of it, as in ``seconds=2 bytes=9000
rejections=1 asks=1``: how long the work takes, how long the answer is, how often it is rejected first, and whether it
ends in a question. ``GET /counts`` tells the counts by message id; ``?of=ID`` those of one message.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import uvicorn
from a2a.helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution.agent_executor import AgentExecutor
from a2a.server.agent_execution.context import RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes.agent_card_routes import create_agent_card_routes
from a2a.server.routes.jsonrpc_routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.server.tasks.task_updater import TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, ListTasksRequest, ListTasksResponse
from a2a.utils.errors import UnsupportedOperationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DE_DUPLICATES, LISTS_NOTHING, NO_STREAMING = OPTIONS = ("de-duplicates", "lists-nothing", "no-streaming")


@dataclass
class Count:
    """What one message came to. Every key is there to be compared with what the Delegation says."""

    given: int = 0  # times that the message arrived
    rejected: int = 0
    effects: int = 0  # times that the work on it began
    finished: int = 0
    cancelled: int = 0  # times that a task of it was told to give up
    working: int = 0  # tasks of it that are worked on now
    beside: int = 0  # the most tasks, of any message, that were worked on while one of it was


class Counting(AgentExecutor):
    """Works on every message, or, if it de-duplicates, on the first of each id, whose answer the others get."""

    def __init__(self, *, de_duplicates: bool) -> None:
        self.counts: defaultdict[str, Count] = defaultdict(Count)
        self._de_duplicates = de_duplicates
        self._answers: dict[str, str] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._messages: dict[str, str] = {}  # by task

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message = context.message
        assert message is not None, "the SDK calls execute() with a message"
        count, wish = self.counts[message.message_id], _wish(context.get_user_input())
        self._messages[message.task_id] = message.message_id
        count.given += 1
        await event_queue.enqueue_event(context.current_task or new_task_from_user_message(message))
        updater = TaskUpdater(event_queue, message.task_id, message.context_id)
        if count.rejected < wish.get("rejections", 0):
            count.rejected += 1
            await updater.reject(updater.new_agent_message([new_text_part("Not now.")]))
            return
        await updater.start_work()
        answer = await self._answer(message.message_id, wish)
        if "asks" in wish:
            await updater.requires_input(updater.new_agent_message([new_text_part("Which one?")]))
            return
        await updater.add_artifact([new_text_part(answer)], name="answer")
        await updater.complete()
        count.finished += 1

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None and context.context_id is not None, "the SDK cancels a known task"
        self.counts[self._messages[context.task_id]].cancelled += 1
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()

    async def _answer(self, message_id: str, wish: dict[str, float]) -> str:
        if not self._de_duplicates:
            return await self._work(message_id, wish)
        async with self._locks[message_id]:
            if message_id not in self._answers:
                self._answers[message_id] = await self._work(message_id, wish)
            return self._answers[message_id]

    async def _work(self, message_id: str, wish: dict[str, float]) -> str:
        with self._at_work(self.counts[message_id]):
            await asyncio.sleep(wish.get("seconds", 0))
        return "done".ljust(int(wish.get("bytes", 0)), ".")

    @contextmanager
    def _at_work(self, count: Count) -> Iterator[None]:
        count.effects += 1
        count.working += 1
        busy = [each for each in self.counts.values() if each.working]
        for each in busy:
            each.beside = max(each.beside, sum(one.working for one in busy))
        try:
            yield
        finally:
            count.working -= 1


def _wish(text: str) -> dict[str, float]:
    """``seconds=2 bytes=9000`` as numbers; other words mean nothing."""
    return {key: float(value) for key, found, value in (word.partition("=") for word in text.split()) if found}


class _Silent(DefaultRequestHandler):
    """Tells nobody which tasks it has."""

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        raise UnsupportedOperationError


def application(port: int, *options: str) -> Starlette:
    """The ASGI application of one server."""
    interface = AgentInterface(url=f"http://127.0.0.1:{port}/", protocol_binding="JSONRPC", protocol_version="1.0")
    card = AgentCard(
        name="counting",
        description="Counts what it is given.",
        version="1",
        supported_interfaces=[interface],
        capabilities=AgentCapabilities(streaming=NO_STREAMING not in options),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="count", name="Count", description="Counts.", tags=["test"])],
    )
    executor = Counting(de_duplicates=DE_DUPLICATES in options)
    handler = (_Silent if LISTS_NOTHING in options else DefaultRequestHandler)(executor, InMemoryTaskStore(), card)

    async def counts(request: Request) -> Response:
        of = request.query_params.get("of")
        if of is not None:
            return JSONResponse(asdict(executor.counts.get(of, Count())))
        return JSONResponse({message: asdict(count) for message, count in executor.counts.items()})

    routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/"), Route("/counts", counts)]
    return Starlette(routes=routes)


def main() -> None:
    """Serve until told to stop."""
    options = sys.argv[1:]
    assert set(options) <= set(OPTIONS), f"no such option: {set(options) - set(OPTIONS)}"
    host, port = os.environ.get("WORKSPACE_BIND_ADDRESS", "127.0.0.1"), int(os.environ["WORKSPACE_PORT"])
    uvicorn.run(application(port, *options), host=host, port=port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
