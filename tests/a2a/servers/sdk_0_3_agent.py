"""An agent on the SDK's last release for A2A 0.3, first on its import path; others.py says which words it obeys."""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.apps import A2AStarletteApplication
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, Part, TextPart
from a2a.utils import new_agent_text_message, new_task


class Obedient(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = new_task(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        word = context.get_user_input()
        await asyncio.sleep(600 if word == "long" else 1)
        if word == "fail":
            await updater.failed(new_agent_text_message("It broke."))
        elif word == "ask":
            await updater.requires_input(new_agent_text_message("Which one?"), final=True)
        else:
            await updater.add_artifact([Part(root=TextPart(text=f"You said: {word}"))])
            await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def main() -> None:
    port = int(sys.argv[1])
    card = AgentCard(
        name="old",
        description="A test's agent.",
        url=f"http://127.0.0.1:{port}/",
        version="1",
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text"],
        default_output_modes=["text"],
        skills=[],
    )
    handler = DefaultRequestHandler(agent_executor=Obedient(), task_store=InMemoryTaskStore())
    uvicorn.run(A2AStarletteApplication(card, handler).build(), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
