"""Many small questions, one call: those asked within some milliseconds are sent together (karpenter's batcher).

EC2 counts calls, not the instances they name. While some calls are under way, or wait for their turn, what is asked is
collected for the next one, so that a budget that is used up makes the calls larger and not the queue longer. Used
inside backends/ec2 only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import BackendUnreachable, OperatorError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Send = Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]

WINDOW = 0.01  # seconds in which questions are collected
MOST = 100  # in one call; EC2 allows 200 values per filter and 1,000 ids
UNDER_WAY = 4  # calls at once; one that hangs must not hold up the rest


class Batcher(Generic[K, V]):
    """``send`` answers several keys; ``ask`` asks for one. A key that is asked for twice is sent once."""

    def __init__(self, send: Send[K, V], window: float = WINDOW, most: int = MOST) -> None:
        self._send, self._window, self._most = send, window, most
        self._waiting: dict[K, asyncio.Future[V]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, key: K) -> V:
        """The answer for one key, from a call that begins after this question."""
        loop = asyncio.get_running_loop()
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = loop.create_future()
            future.add_done_callback(_retrieved)
            if self._timer is None:
                self._timer = loop.call_later(self._window, self._flush)
            if len(self._waiting) >= self._most:
                self._flush()
        return await asyncio.shield(future)

    def close(self) -> None:
        """Give up what is waiting."""
        for task in self._tasks:
            task.cancel()
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and len(self._tasks) < UNDER_WAY:
            batch = {key: self._waiting.pop(key) for key in list(self._waiting)[: self._most]}
            task = asyncio.get_running_loop().create_task(self._settle(batch))
            self._tasks.add(task)
            task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._timer is None:  # else what was asked last may still find company
            self._flush()

    async def _settle(self, batch: dict[K, asyncio.Future[V]]) -> None:
        try:
            answers = await self._send(list(batch))
        except BackendUnreachable as error:
            _fail(batch, error)
        except OperatorError as error:
            # EC2 refuses a call as a whole for one bad id; the others must not suffer for it.
            if len(batch) == 1:
                _fail(batch, error)
            else:
                await asyncio.gather(*(self._settle({key: future}) for key, future in batch.items()))
        except asyncio.CancelledError:
            _fail(batch, BackendUnreachable(Reason.BACKEND_UNREACHABLE, "The connection to this backend was closed."))
            raise
        except Exception as error:
            _fail(batch, error)
        else:
            for key, future in batch.items():
                if future.done():
                    continue
                if key in answers:
                    future.set_result(answers[key])
                else:
                    future.set_exception(_UNANSWERED)


_UNANSWERED = BackendUnreachable(Reason.BACKEND_UNREACHABLE, "EC2's answer says nothing about this instance.")


def _fail(batch: Mapping[K, asyncio.Future[V]], error: Exception) -> None:
    for future in batch.values():
        if not future.done():
            future.set_exception(error)


def _retrieved(future: asyncio.Future[V]) -> None:
    """All askers may be gone; that is no reason for a warning of the event loop."""
    if not future.cancelled():
        future.exception()
