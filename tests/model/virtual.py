"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing else is left to do.

The operator's own code reads ``time.monotonic`` and waits with asyncio; both follow this clock, so that an hour of its
life takes as long as the work in it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from tests.model.world import EPOCH

PATIENCE = 50_000  # rounds of the loop without any time passing; a mass of work at one moment takes hundreds
_ROUND = 1e-6  # seconds that a round of the loop takes
START = 1000.0  # what the monotonic clock shows at EPOCH


class _Jump(selectors.SelectSelector):
    """Nothing ever arrives from outside: waiting is a jump of the clock."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump, self._rounds = jump, 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        self._rounds += 1
        assert self._rounds < PATIENCE, "the operator is busy without end and without a call to anyone"
        if not ready and timeout != 0:
            assert timeout is not None, "everything waits for something that never comes"
            self._jump(timeout)
            self._rounds = 0
        self._jump(_ROUND)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop and its clock."""

    def __init__(self) -> None:
        self.now = START
        super().__init__(_Jump(self._jump))
        self.set_exception_handler(lambda loop, context: None)  # the tasks of a killed process end as they may

    def time(self) -> float:
        return self.now

    def moment(self) -> datetime:
        """The wall clock."""
        return EPOCH + timedelta(seconds=self.now - START)

    def after(self, seconds: float, call: Callable[..., Any], *args: Any) -> None:
        """Something that happens by itself, whether or not an operator runs."""
        self.call_later(seconds, call, *args)

    def _jump(self, seconds: float) -> None:
        self.now += max(seconds, 0.0)
