"""One step as an operator goes through it, over its death if there is one. Shared by all players."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from tests.crash.lane import Lane, wait_for
from tests.crash.points import Plan
from tests.crash.seams import CLASS_WIDE

REACHED_WITHIN = 90.0  # seconds
COLLECTED_WITHIN = 90.0  # the control plane's garbage collector learns of new kinds every 30 s
QUIET = 1.0  # seconds without a call, after which a step that reached its wish is over


class Named(Protocol):
    """A step, as far as the choice of deaths knows it."""

    @property
    def name(self) -> str: ...


S = TypeVar("S", bound=Named)
Notes = Counter[tuple[str, str]]  # what else was counted: of whom, and what


@dataclass(frozen=True)
class Kill:
    """One death: in this step, right before or right after this call."""

    step: str
    point: str
    side: str

    def __str__(self) -> str:
        return f"{self.step}: {self.point} {self.side}"


@dataclass
class Chain(Generic[S]):
    """Steps that follow each other, with at most one death in each."""

    steps: tuple[S, ...]
    kills: dict[str, Kill] = field(default_factory=dict)


@dataclass
class Outcome:
    """What came of one planned death. Neither died nor problem: the call was not made this time."""

    kill: Kill
    died: bool
    problem: str = ""


class Wrong(AssertionError):
    """Something that must hold does not; the message says what."""


class Player(Protocol[S]):
    """Plays chains on one lane."""

    points: dict[str, list[str]]  # of the last chain, by step
    notes: Notes

    def play(self, chain: Chain[S], *, recording: bool = False) -> tuple[list[Outcome], str]:
        """Outcomes of the deaths that were tried, and what went wrong, if anything, in a step without one.

        ``recording`` waits at the end of each step for what follows it.
        """

    def close(self) -> list[str]:
        """End what this player began; what is left of it."""


class Act:
    """One step: the operator that runs, or dies and is replaced, until its end is reached."""

    def __init__(self, lane: Lane, played: str, kill: Kill | None) -> None:
        self._lane, self._played, self._kill = lane, played, kill
        self.points: list[str] = []

    def begin(self, *, anew: bool = False) -> None:
        """Have an operator that follows this step; ``anew``: one that starts within it."""
        kill = self._kill
        plan = Plan(self._played, kill.point, kill.side) if kill is not None else Plan(self._played)
        if anew:
            self._lane.start(plan)
            return
        have_operator(self._lane)
        self._lane.arm(plan)

    def follow(
        self, reached: Callable[[bool], bool], *, recording: bool, on_death: Callable[[], None] = lambda: None
    ) -> bool:
        """Until ``reached``, which is told whether the operator has died; returns that."""
        lane, died = self._lane, False
        patient = recording or self._kill is not None
        deadline = time.monotonic() + REACHED_WITHIN
        while True:
            if not lane.alive:
                if died or not lane.journal.killed():
                    raise Wrong("the operator ended, and not by us")
                died = True
                self.points = lane.journal.points(self._played)
                on_death()
                lane.start(Plan(f"{self._played}, after a death"))
                lane.wait_settled()
            if reached(died) and (died or not patient or self._is_over()):
                break
            if time.monotonic() > deadline:
                raise Wrong(f"what was wished is not reached in {REACHED_WITHIN:.0f} s")
            time.sleep(0.03)
        if not died:
            self.points = lane.journal.points(self._played)
        return died

    def _is_over(self) -> bool:
        """Whether nothing follows any more; the operator may still die on what follows."""
        if not self._lane.wait_settled():
            return False
        calls = -1
        while self._lane.alive:
            now = sum(CLASS_WIDE not in point for point in self._lane.journal.points())
            if now == calls:
                return True
            calls = now
            wait_for(lambda: not self._lane.alive, QUIET)
        return False


def have_operator(lane: Lane) -> None:
    """One that lives, follows everything, and is to die at no call."""
    while not (lane.alive and lane.wait_settled()):
        lane.start(Plan("between"))
    lane.arm(Plan("between"))
