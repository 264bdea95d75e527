"""An A2A server on the official SDK that does as its messages say: for what the reference agent has no use.

As a workspace's process: ``python -m tests.support.a2a_server [no-streaming] [no-listing]`` listens where the operator
says (WORKSPACE_PORT). It works on every message that arrives, so doubles show; ``GET /seen`` tells what arrived, and
``POST /release`` and ``POST /forget`` are described at their functions.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from a2a.helpers import new_data_part, new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution.agent_executor import AgentExecutor
from a2a.server.agent_execution.context import RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes.agent_card_routes import create_agent_card_routes
from a2a.server.routes.jsonrpc_routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.server.tasks.task_updater import TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    Task,
)
from a2a.utils.errors import TaskNotFoundError, UnsupportedOperationError
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

OPTIONS = ("no-streaming", "no-listing")


class Obedient(AgentExecutor):
    """The first word of a message says what becomes of it; any other message is echoed."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.working = self.most_working = 0
        self.released = asyncio.Event()
        self._commands: dict[str, Callable[[TaskUpdater, str], Awaitable[None]]] = {
            "hold": self._hold,
            "ask": self._ask,
            "fail": self._fail,
            "long": self._long,
            "data": self._data,
        }

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message = context.message
        assert message is not None, "the SDK calls execute() with a message"
        text = context.get_user_input().strip()
        word, _, rest = text.partition(" ")
        self.seen.append({"id": message.message_id, "text": text, "parts": _parts(message)})
        if word == "plain":
            await event_queue.enqueue_event(new_text_message(rest, context_id=message.context_id))
            return
        await event_queue.enqueue_event(context.current_task or new_task_from_user_message(message))
        updater = TaskUpdater(event_queue, message.task_id, message.context_id)
        await updater.start_work()
        self.working += 1
        self.most_working = max(self.most_working, self.working)
        try:
            await self._commands.get(word, self._echo)(updater, rest if word in self._commands else text)
        finally:
            self.working -= 1

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None and context.context_id is not None, "the SDK cancels a known task"
        self.cancelled.append(context.task_id)
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()

    async def _echo(self, updater: TaskUpdater, text: str) -> None:
        await updater.add_artifact([new_text_part(text)], name="answer")
        await updater.complete()

    async def _hold(self, updater: TaskUpdater, text: str) -> None:
        """Works until it is released."""
        await self.released.wait()
        await self._echo(updater, text)

    async def _ask(self, updater: TaskUpdater, text: str) -> None:
        """Asks the question, and takes the release for an answer."""
        await updater.requires_input(updater.new_agent_message([new_text_part(text)]))
        await self._hold(updater, "thanks")

    async def _fail(self, updater: TaskUpdater, text: str) -> None:
        await updater.failed(updater.new_agent_message([new_text_part(text)]))

    async def _long(self, updater: TaskUpdater, text: str) -> None:
        """That many bytes: an x, and characters of two bytes; every even position is within one."""
        await self._echo(updater, "x" + "ü" * (int(text) // 2))

    async def _data(self, updater: TaskUpdater, text: str) -> None:
        await updater.add_artifact([new_data_part(json.loads(text))], name="answer")
        await updater.complete()


def _parts(message: Message) -> list[dict[str, Any]]:
    return [MessageToDict(part) for part in message.parts]


class Handler(DefaultRequestHandler):
    """The SDK's own, except for what was forgotten and what is not offered."""

    def __init__(self, executor: Obedient, card: AgentCard, *, lists: bool) -> None:
        super().__init__(executor, InMemoryTaskStore(), card)
        self._lists = lists
        self._known: set[str] = set()
        self.forgotten: set[str] = set()

    def forget(self) -> None:
        self.forgotten |= self._known

    async def on_message_send(self, params: Any, context: ServerCallContext) -> Task | Message:
        answer: Task | Message = await super().on_message_send(params, context)
        if isinstance(answer, Task):
            self._known.add(answer.id)
        return answer

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task | None:
        if params.id in self.forgotten:
            raise TaskNotFoundError
        found: Task | None = await super().on_get_task(params, context)
        return found

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        if not self._lists:
            raise UnsupportedOperationError
        page: ListTasksResponse = await super().on_list_tasks(params, context)
        kept = [task for task in page.tasks if task.id not in self.forgotten]
        del page.tasks[:]
        page.tasks.extend(kept)
        return page


def _switches(executor: Obedient, handler: Handler) -> list[Route]:
    async def seen(_: Request) -> Response:
        """What arrived, in order; what was cancelled; how many were worked on at once."""
        return JSONResponse(
            {"seen": executor.seen, "cancelled": executor.cancelled, "mostWorking": executor.most_working}
        )

    async def release(_: Request) -> Response:
        """What is held now goes on; what comes later is held again."""
        executor.released.set()
        executor.released = asyncio.Event()
        return Response()

    async def forget(_: Request) -> Response:
        """The tasks that exist are unknown from now on, as after a restart of an agent that keeps nothing."""
        handler.forget()
        return Response()

    return [
        Route("/seen", seen),
        Route("/release", release, methods=["POST"]),
        Route("/forget", forget, methods=["POST"]),
    ]


def application(port: int, *, streaming: bool = True, lists: bool = True) -> Starlette:
    """The ASGI application of one server."""
    card = AgentCard(
        name="obedient",
        description="A test's agent.",
        version="1",
        supported_interfaces=[
            AgentInterface(url=f"http://127.0.0.1:{port}/", protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        capabilities=AgentCapabilities(streaming=streaming),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="obey", name="Obey", description="Does as it is told.", tags=["test"])],
    )
    executor = Obedient()
    handler = Handler(executor, card, lists=lists)
    return Starlette(
        routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/"), *_switches(executor, handler)]
    )


def main() -> None:
    """Serve until told to stop."""
    unknown = set(sys.argv[1:]) - set(OPTIONS)
    assert not unknown, f"no such option: {unknown}"
    port = int(os.environ["WORKSPACE_PORT"])
    app = application(port, streaming="no-streaming" not in sys.argv, lists="no-listing" not in sys.argv)
    host = os.environ.get("WORKSPACE_BIND_ADDRESS", "127.0.0.1")
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
