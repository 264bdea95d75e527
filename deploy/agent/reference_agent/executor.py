"""Turns one A2A message into one answer: the agent's whole intelligence."""

from __future__ import annotations

import asyncio
from collections import Counter

from a2a.helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution.agent_executor import AgentExecutor
from a2a.server.agent_execution.context import RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks.task_updater import TaskUpdater

from reference_agent.delegate import DelegationFailed, Delegator, parse
from reference_agent.faults import Faults
from reference_agent.memory import Memory
from reference_agent.settings import Settings
from reference_agent.status import Status


class EchoExecutor(AgentExecutor):
    """Answers `<name>: <text>`, the questions `count` and `whoami`, and `ask` with another workspace's answer.

    Every message becomes a task.
    """

    def __init__(
        self, settings: Settings, memory: Memory, faults: Faults, status: Status, delegator: Delegator
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._delegator = delegator
        self._faults = faults
        self._status = status
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message = context.message
        assert message is not None, "the SDK calls execute() with a message"
        # The SDK has put the ids it generated for a new task into the message.
        await event_queue.enqueue_event(context.current_task or new_task_from_user_message(message))
        updater = TaskUpdater(event_queue, message.task_id, message.context_id)
        if "busy" in self._faults:
            await updater.reject(updater.new_agent_message([new_text_part("The agent is busy; send it again later.")]))
            return
        with self._status.task():
            await updater.start_work()
            try:
                answer = await self._once(message.task_id, message.message_id, context.get_user_input().strip())
            except DelegationFailed as error:
                await updater.failed(updater.new_agent_message([new_text_part(str(error))]))
                return
            await updater.add_artifact([new_text_part(answer)], name="answer")
            await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None and context.context_id is not None, "the SDK cancels a known task"
        # Afterwards the SDK cancels execute(), as it also does when the agent stops. Only this is a wish to give up.
        self._delegator.cancel(context.task_id)
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()

    async def _once(self, task_id: str, message_id: str, text: str) -> str:
        """The same message sent twice, even at the same time, is worked on once."""
        lock = self._locks.setdefault(message_id, asyncio.Lock())
        self._waiting[message_id] += 1
        try:
            async with lock:
                known = self._memory.recall(message_id)
                return known if known is not None else await self._answer(task_id, message_id, text)
        finally:
            self._waiting[message_id] -= 1
            if not self._waiting[message_id]:
                del self._waiting[message_id], self._locks[message_id]

    async def _answer(self, task_id: str, message_id: str, text: str) -> str:
        await asyncio.sleep(self._faults.seconds("slow"))
        await self._faults.wait_while("wedged")
        mine = self._settings
        # Questions about the agent change nothing, so they are neither counted nor remembered.
        if text == "count":
            return str(self._memory.answered)
        if text == "whoami":
            return f"{mine.name}/{mine.namespace}/{mine.incarnation}"
        wish = parse(text)
        if wish is not None:
            # Not remembered: a message that comes again finds the same Delegation.
            return f"{mine.name}: {await self._delegator.ask(task_id, message_id, *wish)}"
        answer = f"{mine.name}: {text}"
        self._memory.remember(message_id, answer)
        return answer
