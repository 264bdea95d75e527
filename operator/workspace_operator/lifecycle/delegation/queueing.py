"""Whose turn it is at one target: priority, fairness between the senders, then age (I-60).

A ``Line`` is the queue before one target. It lives in memory and is filled again from the Delegations after a restart,
so nothing is lost with it. What is held back (its back-off, its desiredState, its permission) is not in it, and so
never stands in another's way.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from typing import NamedTuple


@dataclass(frozen=True)
class Waiting:
    """One delegation that could go now."""

    key: str
    source: str  # whom it is fair to: the workspace that delegates
    priority: int  # higher goes first
    since: datetime


class _Rank(NamedTuple):
    """Where a source's next one of one priority stands; the lowest goes first."""

    urgency: int  # the negative priority
    flying: int  # tasks of the source at the target now
    served: int
    since: datetime
    key: str
    source: str


@dataclass
class _Source:
    """What one sender has at the target."""

    flying: int = 0
    served: int = 0  # when its last task here ended, counted in endings; 0: none did
    queues: dict[int, list[tuple[datetime, str]]] = field(default_factory=dict)  # by priority, the oldest first

    def rank(self, name: str, priority: int, position: int = 0, more: int = 0) -> _Rank:
        """Of the one at ``position`` in its queue, as if ``more`` were flying already."""
        since, key = self.queues[priority][position]
        return _Rank(-priority, self.flying + more, self.served, since, key, name)


class Line:
    """The queue before one target. What is said last about a key counts.

    Higher priority goes first; within one, the source with the fewest tasks flying, then the one whose last task ended
    longest ago (none yet: first), then the oldest; within one source by age, then key. Those whose turn it is may go in
    any order: as long as nothing else happens, one that went takes nobody else's turn away.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._flying: dict[str, str] = {}  # key → source
        self._sources: dict[str, _Source] = {}
        self._ranks: list[_Rank] = []  # the first of each source and priority, sorted
        self._endings = 0
        self._answer: tuple[int, tuple[str, ...], frozenset[str]] | None = None  # for a capacity, until a change

    @property
    def flying(self) -> int:
        return len(self._flying)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def empty(self) -> bool:
        return not self._flying and not self._waiting

    def join(self, waiting: Waiting) -> None:
        """It waits, and no longer flies if it did."""
        if self._waiting.get(waiting.key) == waiting:
            return
        self.leave(waiting.key)
        self._unrank(waiting.source)
        source = self._sources.setdefault(waiting.source, _Source())
        insort(source.queues.setdefault(waiting.priority, []), (waiting.since, waiting.key))
        self._waiting[waiting.key] = waiting
        self._rank(waiting.source)

    def fly(self, key: str, source: str) -> None:
        """It was claimed: it waits no longer and takes a place, whether there is one or not."""
        if self._flying.get(key) == source:
            return
        self._land(key)
        self._take_out(key)
        self._unrank(source)
        self._sources.setdefault(source, _Source()).flying += 1
        self._flying[key] = source
        self._rank(source)

    def leave(self, key: str) -> None:
        """It is over, held back or gone: it neither waits nor flies."""
        self._land(key)
        self._take_out(key)
        if self.empty:
            self._sources.clear()  # there is nobody left to be fair to

    def may_go(self, key: str, capacity: int) -> bool:
        """Whether a place is free and it is this one's turn."""
        if len(self._flying) >= capacity or key not in self._waiting:
            return False
        if len(self._flying) + len(self._waiting) <= capacity:
            return True
        return key in self._turn(capacity)[1]

    def turn(self, capacity: int) -> tuple[str, ...]:
        """Those that may go now, in order: as many as places are free."""
        return self._turn(capacity)[0]

    def _turn(self, capacity: int) -> tuple[tuple[str, ...], frozenset[str]]:
        if self._answer is None or self._answer[0] != capacity:
            keys = tuple(self._choose(min(capacity - len(self._flying), len(self._waiting))))
            self._answer = (capacity, keys, frozenset(keys))
        return self._answer[1:]

    def _choose(self, places: int) -> list[str]:
        """Take the lowest rank ``places`` times. A source that was chosen falls back in rank; so those that fell back
        are kept apart from the sorted list, and no more of it is looked at than places are given away.
        """
        chosen: list[str] = []
        by_source: Counter[str] = Counter()
        by_queue: Counter[tuple[str, int]] = Counter()
        listed, fallen_back = 0, list[_Rank]()
        while len(chosen) < places:
            if fallen_back and (listed == len(self._ranks) or fallen_back[0] < self._ranks[listed]):
                rank = heappop(fallen_back)
            else:
                rank = self._ranks[listed]
                listed += 1
            name, priority, source = rank.source, -rank.urgency, self._sources[rank.source]
            if rank.flying == source.flying + by_source[name]:
                chosen.append(rank.key)
                by_source[name] += 1
                by_queue[name, priority] += 1
            position = by_queue[name, priority]
            if position < len(source.queues[priority]):
                heappush(fallen_back, source.rank(name, priority, position, by_source[name]))
        return chosen

    def _land(self, key: str) -> None:
        name = self._flying.pop(key, None)
        if name is None:
            return
        self._unrank(name)
        self._endings += 1
        self._sources[name].flying -= 1
        self._sources[name].served = self._endings
        self._rank(name)

    def _take_out(self, key: str) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return
        self._unrank(waiting.source)
        queues = self._sources[waiting.source].queues
        queue = queues[waiting.priority]
        del queue[bisect_left(queue, (waiting.since, key))]
        if not queue:
            del queues[waiting.priority]
        self._rank(waiting.source)

    def _unrank(self, name: str) -> None:
        """Take a source out of the ranks, ahead of a change to it."""
        self._answer = None
        source = self._sources.get(name, _Source())
        for priority in source.queues:
            del self._ranks[bisect_left(self._ranks, source.rank(name, priority))]

    def _rank(self, name: str) -> None:
        source = self._sources[name]
        for priority in source.queues:
            insort(self._ranks, source.rank(name, priority))
