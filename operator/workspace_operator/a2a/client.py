"""Sends messages to agents and asks for their tasks, each within a deadline, and says what is known when it fails.

What a failure means depends on what was asked: a lost answer to a message leaves its fate open, a lost answer to a
question costs nothing (I-61).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

import httpx
from a2a.types import CancelTaskRequest, GetTaskRequest, SubscribeToTaskRequest

from workspace_operator.a2a import following, listing, trouble
from workspace_operator.a2a.addresses import refused
from workspace_operator.a2a.discovery import Agent, Cards
from workspace_operator.a2a.errors import CannotAsk, NotDelivered, Refused, TaskNotFound, Unanswered, UnusableAnswer
from workspace_operator.a2a.exchange import Exchange, exchange
from workspace_operator.a2a.following import Heard
from workspace_operator.a2a.translation import request_of, view_of_answer, view_of_event, view_of_task
from workspace_operator.a2a.trouble import Kind, Trouble
from workspace_operator.a2a.values import Outgoing, TaskView
from workspace_operator.a2a.wire import http_client
from workspace_operator.telemetry import metrics

log = logging.getLogger(__name__)
T = TypeVar("T")

CARD_BYTES = 256 * 1024
CONNECTIONS, STREAMS = 256, 128
PER_AGENT = 16  # requests at once, so that a few slow agents cannot take all connections

#: After these the agent at the address may be another one.
_DOUBTFUL = frozenset({Kind.UNREACHED, Kind.MISSING, Kind.LOST, Kind.UNUSABLE})


@dataclass(frozen=True)
class Limits:
    """Seconds, each for all of one operation: an agent that answers byte by byte gains nothing."""

    send: float = 30.0
    ask: float = 10.0  # for a card, a task, a list, a cancellation
    silence: float = 20.0  # of a stream; then the task is asked for


class AgentClient:
    """Talks to any number of agents; an address is the observed ``host:port``."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._calls, self._streams = http_client(CONNECTIONS), http_client(STREAMS)
        self._cards = Cards(self._fetch, self._calls, self._streams)
        self._own_contexts: set[str] = set()  # addresses of agents that were seen not to keep a context
        self._gates: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._listening = 0

    async def send(self, address: str, message: Outgoing) -> TaskView:
        """Hand a message over, without waiting for its answer where the agent allows that."""

        async def send(agent: Agent) -> TaskView:
            view = view_of_answer(await agent.calls.send_message(request_of(message)))
            if view.context_id not in ("", message.context_id):
                self._own_contexts.add(address)
            return view

        try:
            return await self._ask("send", address, send, self._limits.send)
        except Trouble as found:
            match found.kind:
                case Kind.UNREACHED | Kind.NOT_NOW | Kind.MISSING:
                    raise NotDelivered(found.sentence) from found
                case Kind.LOST | Kind.UNUSABLE:
                    raise Unanswered(found.sentence) from found
                case _:
                    raise Refused(found.sentence) from found

    async def get(self, address: str, task_id: str) -> TaskView:
        """The task as it is now."""

        async def get(agent: Agent) -> TaskView:
            return view_of_task(await agent.calls.get_task(GetTaskRequest(id=task_id, history_length=0)), task_id)

        try:
            return await self._ask("get", address, get, self._limits.ask)
        except Trouble as found:
            match found.kind:
                case Kind.NO_TASK:
                    raise TaskNotFound from found
                case Kind.UNUSABLE:
                    raise UnusableAnswer(found.sentence) from found
                case _:
                    raise Unanswered(found.sentence) from found

    async def find(self, address: str, message: Outgoing) -> TaskView | None:
        """The task that a message became; None when the agent says that it has none."""
        try:
            view = await self._ask("list", address, partial(self._find, address, message), self._limits.ask)
        except Trouble as found:
            match found.kind:
                case Kind.UNREACHED | Kind.NOT_NOW | Kind.LOST:
                    raise Unanswered(found.sentence) from found
                case _:  # a list that cannot be read is as good as none
                    raise CannotAsk from found
        try:
            return await self.get(address, view.id) if view is not None and view.state.over else view
        except TaskNotFound as exc:
            raise Unanswered("The agent lists the task and does not know it.") from exc

    async def follow(self, address: str, task_id: str, seen: Callable[[TaskView], None]) -> TaskView:
        """The task once it is over or waits for input; ``seen`` gets each sign of life until then."""
        return await following.follow(
            partial(self.get, address, task_id), partial(self._listen, address, task_id, seen), seen
        )

    async def cancel(self, address: str, task_id: str) -> TaskView:
        """Tell the agent to give a task up. One that is over already is returned as it is."""

        async def cancel(agent: Agent) -> TaskView:
            return view_of_task(await agent.calls.cancel_task(CancelTaskRequest(id=task_id)), task_id)

        try:
            return await self._ask("cancel", address, cancel, self._limits.ask)
        except Trouble as found:
            match found.kind:
                case Kind.NO_TASK:
                    raise TaskNotFound from found
                case Kind.UNREACHED | Kind.NOT_NOW:
                    raise NotDelivered(found.sentence) from found
                case Kind.LOST | Kind.UNUSABLE:
                    raise Unanswered(found.sentence) from found
                case _:
                    view = await self.get(address, task_id)
                    if view.state.over:
                        return view
                    raise Refused(found.sentence) from found

    def forget(self, address: str) -> None:
        """Drop what is remembered of an address."""
        self._cards.forget(address)
        self._own_contexts.discard(address)

    async def close(self) -> None:
        await self._cards.close()
        await self._calls.aclose()
        await self._streams.aclose()

    async def _find(self, address: str, message: Outgoing, agent: Agent) -> TaskView | None:
        view = await listing.find(agent.calls, message)
        if view is None and address in self._own_contexts:
            raise Trouble(Kind.UNSUPPORTED, "The agent does not keep the context of a message.")
        return view

    async def _fetch(self, url: str) -> httpx.Response:
        """A card; any trouble with it means that nothing can be sent."""
        try:
            return await _measured("card", self._calls.get(url), Exchange(cap=CARD_BYTES), self._limits.ask)
        except Trouble as found:
            raise Trouble(Kind.UNREACHED, f"The agent's card could not be read. {found.sentence}") from found

    async def _ask(self, operation: str, address: str, ask: Callable[[Agent], Awaitable[T]], seconds: float) -> T:
        """One question within a deadline. All that goes wrong is a Trouble."""

        async def question() -> T:
            refusal = refused(address)
            if refusal is not None:
                raise Trouble(Kind.UNREACHED, refusal)
            agent = await self._cards.agent(address)
            async with self._gates.setdefault(address, asyncio.Semaphore(PER_AGENT)):
                return await ask(agent)

        try:
            return await _measured(operation, question(), Exchange(), seconds)
        except Trouble as found:
            if found.kind in _DOUBTFUL:
                self._cards.forget(address)
            raise

    async def _listen(self, address: str, task_id: str, seen: Callable[[TaskView], None]) -> Heard:
        """Listen to a task's events until they say something, end, or fall silent."""
        try:
            agent = await self._cards.agent(address)
        except Trouble:
            return Heard.NOTHING
        if agent.streams is None or self._listening >= STREAMS:
            return Heard.NOTHING
        exchange.set(this := Exchange(streaming=True))
        self._listening += 1
        metrics.A2A_STREAMS.inc()
        try:
            events = agent.streams.subscribe(SubscribeToTaskRequest(id=task_id))
            while True:
                async with asyncio.timeout(self._limits.silence):
                    view = view_of_event(await anext(events), task_id)
                if following.rests(view):
                    return Heard.NEWS
                seen(view)
                await asyncio.sleep(0)  # a flood of events is no reason to keep others waiting
        except TimeoutError:
            return Heard.SILENCE
        except Exception as exc:
            log.debug("a stream of events ended", extra={"kind": trouble.of(exc, written=True).kind})
            return Heard.BROKEN
        finally:
            self._listening -= 1
            metrics.A2A_STREAMS.dec()
            await this.leave()


async def _measured(operation: str, work: Awaitable[T], this: Exchange, seconds: float) -> T:
    """Work on one exchange, with a deadline and a metric."""
    token = exchange.set(this)
    started, outcome = time.monotonic(), "cancelled"
    try:
        async with asyncio.timeout(seconds):
            result = await work
        outcome = "ok"
        return result
    except Trouble as found:
        outcome = found.kind
        raise
    except Exception as exc:
        told = trouble.of(exc, written=this.written)
        outcome = told.kind
        log.debug("a request to an agent failed", extra={"operation": operation, "error": type(exc).__name__})
        raise told from exc
    finally:
        exchange.reset(token)
        metrics.A2A_SECONDS.labels(operation).observe(time.monotonic() - started)
        metrics.A2A_REQUESTS.labels(operation, outcome).inc()
