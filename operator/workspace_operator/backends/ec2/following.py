"""What follows from a look: volumes are attached to what runs without them, and what is on its way is looked at soon.

EC2 has no event stream without further services, and between two listings of a class lie 15 s. So whatever is seen
starting or halting is looked at every two seconds, all of it with one call, until it has arrived; in steady state
nothing is asked. Used inside backends/ec2 only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from workspace_operator.backends.ec2 import readings
from workspace_operator.backends.ec2.readings import Seen
from workspace_operator.backends.ec2.volumes import Volumes
from workspace_operator.backends.protocol import Reading, Wake
from workspace_operator.errors import OperatorError

log = logging.getLogger(__name__)

INTERVAL: Final = 2.0
_AGAIN: Final = 2.0  # seconds; a look may have begun before the attachment
_LONGEST: Final = 900.0  # seconds; what moves longer than that is left to the listings


class Follower:
    """Remembers what is moving. One per driver."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._moving: dict[str, float] = {}  # uid → since when
        self._known: dict[str, tuple[tuple[str, Reading], ...]] = {}
        self._moves = asyncio.Event()
        self._attaching: dict[str, asyncio.Task[None]] = {}
        self._tried: dict[str, float] = {}  # instance → when its volume was last tried to attach
        self._problems: dict[str, str] = {}  # instance → why its volume is not attached
        self._wake: Wake | None = None

    def tell(self, complete: Sequence[Seen]) -> Sequence[Seen]:
        """Everything that a look showed, with what is known of its volumes."""
        by_uid: dict[str, list[Seen]] = {}
        for seen in complete:
            by_uid.setdefault(seen.instance.ref.uid, []).append(seen)
            if seen.lacks_data:
                self._attach(seen)
            elif self._problems:
                self._problems.pop(seen.id, None)
        for uid, instances in by_uid.items():
            self._compare(uid, instances)
        return [self._explained(seen) for seen in complete] if self._problems else complete

    async def follow(self, wake: Wake, look: Callable[[str], Awaitable[Sequence[Seen]]]) -> None:
        """Look at what moves, until cancelled; ``wake`` is called when a reading differs from the last one."""
        self._wake = wake
        try:
            while True:
                await self._moves.wait()
                await asyncio.sleep(INTERVAL)
                self._drop_stuck()
                await asyncio.gather(*(self._look(uid, look) for uid in list(self._moving)))
                if not self._moving:
                    self._moves.clear()
        finally:
            self._wake = None

    def close(self) -> None:
        for task in self._attaching.values():
            task.cancel()

    def _compare(self, uid: str, instances: Sequence[Seen]) -> None:
        now = tuple((seen.id, seen.instance.reading) for seen in instances if seen.instance.reading != Reading.ABSENT)
        moving = any(reading in (Reading.STARTING, Reading.HALTING) for _, reading in now)
        if moving:
            self._moving.setdefault(uid, time.monotonic())
            self._moves.set()
        else:
            self._moving.pop(uid, None)
        before = self._known.get(uid)
        if moving:
            self._known[uid] = now
        else:
            self._known.pop(uid, None)
        if before is not None and before != now and self._wake is not None:
            self._wake(uid)

    async def _look(self, uid: str, look: Callable[[str], Awaitable[Sequence[Seen]]]) -> None:
        try:
            if not await look(uid):
                self._compare(uid, ())
        except OperatorError as error:
            log.debug("looking at a moving instance: %s", error)

    def _drop_stuck(self) -> None:
        now = time.monotonic()
        for uid, since in list(self._moving.items()):
            if now - since > _LONGEST:
                self._moving.pop(uid)
                self._known.pop(uid, None)

    def _attach(self, seen: Seen) -> None:
        now = time.monotonic()
        if seen.id in self._attaching or now - self._tried.get(seen.id, -_AGAIN) < _AGAIN:
            return
        self._tried = {key: at for key, at in self._tried.items() if now - at < _AGAIN} | {seen.id: now}
        task = asyncio.get_running_loop().create_task(self._attach_now(seen))
        self._attaching[seen.id] = task
        task.add_done_callback(lambda _: self._attaching.pop(seen.id, None))

    async def _attach_now(self, seen: Seen) -> None:
        problem = await self._volumes.attach(seen)
        if problem is None:
            self._problems.pop(seen.id, None)
        else:
            self._problems[seen.id] = problem

    def _explained(self, seen: Seen) -> Seen:
        problem = self._problems.get(seen.id)
        return seen if problem is None else readings.with_message(seen, Reading.STARTING, problem)
