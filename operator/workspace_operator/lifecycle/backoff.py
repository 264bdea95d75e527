"""How long to wait after consecutive failures."""

from __future__ import annotations

from datetime import timedelta

FIRST = timedelta(seconds=1)
LONGEST = timedelta(minutes=5)  # as the kubelet's CrashLoopBackOff
STABLE_AT_LEAST = timedelta(seconds=10)


def delay(failures: int) -> timedelta:
    """Wait after the n-th consecutive failure: 1 s, doubled each time, at most 5 min."""
    if failures <= 0:
        return timedelta(0)
    doublings: int = min(failures - 1, 16)
    return min(LONGEST, FIRST * (1 << doublings))


def stable_after(failures: int) -> timedelta:
    """How long a workspace must stay Ready until its failures are forgotten, so that a crash loop keeps slowing."""
    return max(STABLE_AT_LEAST, delay(failures))
