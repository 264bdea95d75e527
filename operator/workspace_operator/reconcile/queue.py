"""A keyed work queue: wake-ups coalesce, passes for one key never overlap, failures back off per key (I-21, I-24)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from workspace_operator.errors import OperatorError
from workspace_operator.telemetry import metrics

log = logging.getLogger(__name__)

Work = Callable[[str], Awaitable[timedelta | None]]

_FIRST_RETRY = 0.25  # seconds
_LAST_RETRY = 60.0
_JITTER = 0.1


class Overtaken(Exception):
    """What the pass had read is no longer so. It was read anew: repeat at once, ever more slowly if it goes on."""


@dataclass
class _Entry:
    """What is known of one key; dropped when nothing is due any more."""

    due_at: float | None = None  # when it became due; None: not queued
    timer: asyncio.TimerHandle | None = None
    timer_at: float = 0.0
    running_since: float | None = None  # when its pass began; None: none is under way
    dirty: bool = False  # woken while running: one more pass follows
    failures: int = 0


class KeyedQueue:
    """Runs ``work(key)`` with at most ``workers`` at once; its answer is when the key is wanted again."""

    def __init__(self, name: str, work: Work, workers: int, deadline: float) -> None:
        self.name, self._work, self._workers, self._deadline = name, work, workers, deadline
        self._entries: dict[str, _Entry] = {}
        self._due: deque[str] = deque()
        self._wakeup = asyncio.Semaphore(0)
        self._running: set[asyncio.Task[None]] = set()
        self._closing = False

    def add(self, key: str, delay: timedelta | None = None) -> None:
        """Wake a key now, or after ``delay`` unless it is due sooner."""
        entry = self._entries.setdefault(key, _Entry())
        if delay is not None and delay > timedelta(0):
            self._schedule(key, entry, delay.total_seconds())
        elif entry.running_since is not None:
            entry.dirty = True
        elif entry.due_at is None:
            self._make_due(key, entry)

    def __len__(self) -> int:
        """Keys that are due and wait for a worker."""
        return len(self._due)

    @property
    def busy(self) -> int:
        """Passes under way."""
        return len(self._running)

    @property
    def oldest(self) -> float:
        """Seconds that the key at the head has been due."""
        due_at = self._entries[self._due[0]].due_at if self._due else None
        return 0.0 if due_at is None else time.monotonic() - due_at

    @property
    def longest(self) -> float:
        """Seconds that the oldest pass has been under way."""
        began = [entry.running_since for entry in self._entries.values() if entry.running_since is not None]
        return time.monotonic() - min(began) if began else 0.0

    async def run(self) -> None:
        """The dispatcher; cancel it to stop taking new work."""
        slots = asyncio.Semaphore(self._workers)
        while True:
            await self._wakeup.acquire()
            await slots.acquire()
            key = self._due.popleft()
            task = asyncio.create_task(self._pass(key))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            task.add_done_callback(lambda _: slots.release())

    async def work_now(self, key: str) -> None:
        """One pass right here, before the dispatcher takes keys (start-up); a failed one is repeated later."""
        try:
            again = await self._work(key)
        except OperatorError as error:
            log.warning("%s %s: first pass failed: %s", self.name, key, error)
            again = timedelta(seconds=_FIRST_RETRY)
        if again is not None:
            self.add(key, again)

    async def drain(self, seconds: float) -> None:
        """Let the passes under way finish, then cancel what is left."""
        self._closing = True
        for entry in self._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=seconds)
            for task in late:
                task.cancel()

    def _make_due(self, key: str, entry: _Entry) -> None:
        if self._closing:
            return
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        entry.due_at = time.monotonic()
        self._due.append(key)
        self._wakeup.release()

    def _schedule(self, key: str, entry: _Entry, delay: float) -> None:
        at = time.monotonic() + delay
        if self._closing or entry.due_at is not None or (entry.timer is not None and entry.timer_at <= at):
            return
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer_at = at
        entry.timer = asyncio.get_running_loop().call_later(delay, self._timer_fired, key)

    def _timer_fired(self, key: str) -> None:
        entry = self._entries.get(key)
        if entry is not None:
            entry.timer = None
            self.add(key)

    async def _pass(self, key: str) -> None:
        entry = self._entries[key]
        assert entry.due_at is not None
        metrics.QUEUE_DELAY.labels(self.name).observe(time.monotonic() - entry.due_at)
        entry.due_at, entry.running_since, entry.dirty = None, time.monotonic(), False
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        started, outcome = time.perf_counter(), "ok"
        again: timedelta | None = None
        try:
            async with asyncio.timeout(self._deadline):
                again = await self._work(key)
            entry.failures = 0
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Overtaken:
            outcome = "overtaken"
            later = self._retry_in(entry)
            again = later if entry.failures > 1 else timedelta(0)
        except Exception as error:
            outcome = "error"
            again = self._retry_in(entry)
            log.warning(
                "%s %s: pass failed, next in %.1f s: %s",
                *(self.name, key, again.total_seconds(), error or type(error).__name__),
                exc_info=not getattr(error, "failure", None),
            )
        finally:
            metrics.PASS_SECONDS.labels(self.name, outcome).observe(time.perf_counter() - started)
            self._finished(key, entry, again)

    def _finished(self, key: str, entry: _Entry, again: timedelta | None) -> None:
        entry.running_since = None
        if entry.dirty or again == timedelta(0):
            self._make_due(key, entry)
        elif again is not None:
            self._schedule(key, entry, again.total_seconds())
        elif entry.timer is None and entry.failures == 0:
            self._entries.pop(key, None)

    @staticmethod
    def _retry_in(entry: _Entry) -> timedelta:
        delay = min(_LAST_RETRY, _FIRST_RETRY * 2 ** min(entry.failures, 16))
        entry.failures += 1
        return timedelta(seconds=delay * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - jitter
