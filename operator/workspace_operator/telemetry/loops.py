"""Supervised loops: each has a heartbeat that the liveness probe reads, and takes the process down when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from workspace_operator.telemetry import metrics

log = logging.getLogger(__name__)


@dataclass
class Heartbeat:
    """When a loop last succeeded and last tried, on the monotonic clock (the wall clock may jump).

    The gauge shows the age of the last success. Liveness asks for the last try: a backend that is away is no reason to
    restart the operator, a loop that hangs is.
    """

    name: str
    overdue_after: float | None  # seconds without a try; None: never (a stream that may be silent)
    last: float = field(default_factory=time.monotonic)
    tried: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        self.last = self.tried = time.monotonic()

    def tick(self) -> None:
        self.tried = time.monotonic()

    @property
    def age(self) -> float:
        return time.monotonic() - self.last

    @property
    def overdue(self) -> bool:
        return self.overdue_after is not None and time.monotonic() - self.tried > self.overdue_after


class Supervisor:
    """Starts loops, knows their heartbeats, and reports the first one that dies."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._beats: dict[str, Heartbeat] = {}
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def start(self, name: str, body: Coroutine[Any, Any, None]) -> None:
        """Run a loop until :meth:`stop`. Its end, however it comes, is the end of the process."""
        task = asyncio.create_task(body, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))

    async def stop(self, name: str) -> None:
        """Cancel one loop and wait for it; unknown names are ignored."""
        task = self._tasks.pop(name, None)
        self._beats.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def forget(self, name: str) -> None:
        """Drop the heartbeat of what is not wanted any more."""
        self._beats.pop(name, None)

    async def stop_all(self) -> None:
        """Cancel every loop, newest first."""
        for name in reversed(list(self._tasks)):
            await self.stop(name)

    def heartbeat(self, name: str, overdue_after: float | None = None) -> Heartbeat:
        """A heartbeat for ``name``; the loop calls ``beat()`` on each success."""
        beat = self._beats[name] = Heartbeat(name, overdue_after)
        return beat

    def overdue(self) -> list[str]:
        """Sentences about loops that have not succeeded for too long."""
        return [
            f"{beat.name}: no sign of life for {beat.overdue_after:.0f} s"
            for beat in self._beats.values()
            if beat.overdue and beat.overdue_after is not None
        ]

    def collect(self) -> None:
        """Refresh the age gauges, right before a scrape."""
        metrics.LOOP_AGE.clear()
        metrics.LOOP_OVERDUE_AFTER.clear()
        for beat in self._beats.values():
            metrics.LOOP_AGE.labels(beat.name).set(beat.age)
            if beat.overdue_after is not None:
                metrics.LOOP_OVERDUE_AFTER.labels(beat.name).set(beat.overdue_after)

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._tasks.get(name) is not task:
            return
        error = task.exception()
        log.critical("loop %s ended: %r", name, error, exc_info=error)
        if not self.died.done():
            self.died.set_result(name)


async def forever(beat: Heartbeat, interval: Callable[[], float], round_: Callable[[], Awaitable[None]]) -> None:
    """Call ``round_`` again and again; a failed round is logged and counted, and leaves the heartbeat to age."""
    while True:
        try:
            await round_()
            beat.beat()
        except Exception as error:
            metrics.LOOP_FAILURES.labels(beat.name).inc()
            log.warning("loop %s: %s", beat.name, error, exc_info=log.isEnabledFor(logging.DEBUG))
        beat.tick()
        await asyncio.sleep(interval())
