"""Manners towards an API: a token bucket that slows down when it is told to. Used inside backends/ec2 only.

EC2 meters each account and region by token buckets of its own and answers RequestLimitExceeded when one is empty
(docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html). Staying below them costs nothing; hitting them
costs everybody in the account. So each family of calls waits here first, in order of arrival, and a refusal lowers the
rate, which then recovers step by step: additive increase, multiplicative decrease, by the factor of botocore's own
adaptive mode. Refusals of one second are one signal: calls that were under way together say the same thing.
"""

from __future__ import annotations

import asyncio
import time

from workspace_operator.api.ec2 import ApiRate

_DECREASE = 0.7
_SLOWEST = 0.1  # of the configured rate, however often EC2 refuses
_ONE_SIGNAL = 1.0  # seconds
_RECOVERY = 0.05  # of the configured rate, for each call that is let through


class Busy(Exception):
    """The turn would come too late; nothing was sent."""


class Bucket:
    """Turns are given out in order, each when it is due at the rate of that moment; a waiting call holds no thread."""

    def __init__(self, rate: ApiRate) -> None:
        self._configured = float(rate.per_second)
        self._rate = self._configured
        self._burst = float(rate.burst)
        self._tokens = self._burst
        self._at = time.monotonic()
        self._slowed_at = self._at - _ONE_SIGNAL
        self._first = asyncio.Lock()  # held by the one whose turn is next; it lets the others in by age
        self._waiting = 0

    async def take(self, patience: float) -> None:
        """Wait for one turn. Raises Busy when it takes longer than ``patience`` seconds; at once when that is clear."""
        self._refill()
        if (self._waiting + 1 - self._tokens) / self._rate > patience:
            raise Busy
        self._waiting += 1
        try:
            async with asyncio.timeout(patience), self._first:
                await self._token()
        except TimeoutError:
            raise Busy from None
        finally:
            self._waiting -= 1

    async def _token(self) -> None:
        """A token is taken when the call leaves, not before: the rate may change while it waits."""
        self._refill()
        while self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) / self._rate)
            self._refill()
        self._tokens -= 1

    def slow_down(self) -> None:
        """EC2 refused a call for coming too fast."""
        self._refill()
        self._tokens = min(self._tokens, 0.0)
        if self._at - self._slowed_at >= _ONE_SIGNAL:
            self._slowed_at = self._at
            self._rate = max(self._configured * _SLOWEST, self._rate * _DECREASE)

    def speed_up(self) -> None:
        """EC2 let a call through."""
        if self._rate < self._configured:
            self._refill()
            self._rate = min(self._configured, self._rate + self._configured * _RECOVERY)

    def _refill(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
