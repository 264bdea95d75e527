"""A token bucket that is asked and never waits."""

from __future__ import annotations

import time


class PerMinute:
    """So many a minute, with a burst of a tenth of it (at least one)."""

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._burst = max(1.0, per_minute / 10)
        self._tokens = self._burst
        self._at = time.monotonic()

    def take(self) -> bool:
        """Take one if there is one."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
