"""Breadth-first exploration of all that may happen to a delegation, to closure, and its calm end from each state."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from tests.model.backend import Violation
from tests.model.delegations import promises
from tests.model.delegations.agent import progress
from tests.model.delegations.calm import calm, expect
from tests.model.delegations.edits import edits, faults, relief
from tests.model.delegations.machine import Doing, Machine
from tests.model.delegations.world import Config, State, key, text, thresholds

from workspace_operator.lifecycle.delegation import plan as planning
from workspace_operator.lifecycle.delegation.facts import Situation
from workspace_operator.lifecycle.delegation.plan import Decision
from workspace_operator.lifecycle.delegation.table import Row

STEPS = 80  # within so many steps of a calm world every delegation is over and gone
LONGEST = 30  # steps of a calm end that a trace shows
TAKEN: Counter[Row] = Counter()  # rows of the table, over all explorations


@dataclass
class Found:
    """What one exploration covered and what it found."""

    config: Config
    states: int = 0
    transitions: int = 0
    stuck: int = 0  # states that are reported as Stuck
    endings: int = 0
    seconds: float = 0.0
    violations: dict[str, str] = field(default_factory=dict)  # promise → shortest trace

    def line(self) -> str:
        return (
            f"{self.config.name}: {self.states} states ({self.stuck} Stuck), {self.transitions} transitions, the calm "
            f"end of each ({self.endings} steps), {self.seconds:.1f} s"
        )


def watching_plan(situation: Situation) -> Decision:
    """The real plan, counted."""
    decision = planning.plan(situation)
    TAKEN[decision.row] += 1
    return decision


class Explorer:
    """Explores one configuration from a new object on."""

    def __init__(self, config: Config, limit: int = 200_000) -> None:
        self.found = Found(config)
        self._limit = limit
        self._machine = Machine(config)
        self._calm: set[Any] = set()
        self._parents: dict[Any, tuple[Any, str]] = {}

    def run(self, *starts: State) -> Found:
        began = time.perf_counter()
        logging.disable(logging.CRITICAL)
        with mock.patch("workspace_operator.reconcile.delegation.reconciler.plan", watching_plan):
            try:
                self._explore(starts)
            finally:
                logging.disable(logging.NOTSET)
                self._machine.close()
        self.found.seconds = time.perf_counter() - began
        return self.found

    def _explore(self, starts: tuple[State, ...]) -> None:
        seen = {key(s) for s in starts}
        queue = deque(starts)
        for s in starts:
            self._parents[key(s)] = (None, f"start: {text(s)}")
        while queue:
            s = queue.popleft()
            here = key(s)
            self.found.states += 1
            self.found.stuck += s.phase == "Stuck"
            assert self.found.states < self._limit, "the model does not close; its key lets too much through"
            if not s.there:
                continue
            self._come_to_its_end(s, here)
            for label, after in self._successors(s, here):
                self.found.transitions += 1
                there = key(after)
                if there not in seen:
                    seen.add(there)
                    self._parents[there] = (here, f"{label}\n      {text(after)}")
                    queue.append(after)

    def _successors(self, s: State, here: Any) -> Iterator[tuple[str, State]]:
        for label, after in self._possible(s, here):
            try:
                promises.worked(after)
                promises.in_time(after)
            except Violation as violation:
                self._broken(violation, here, [f"{label}\n      {text(after)}"])
                continue
            yield label, after

    def _possible(self, s: State, here: Any) -> Iterator[tuple[str, State]]:
        yield from progress(s, failures="fails" in s.config.faults)
        yield from faults(s)
        yield from relief(s)
        yield from edits(s)
        yield from _time(s)
        try:
            yield from ((label, after) for label, after, _ in self._machine.passes(s))
            if s.errand is not None:
                yield from ((label, after) for label, after, _ in self._machine.ends(s))
        except Violation as violation:
            self._broken(violation, here, [])

    def _come_to_its_end(self, s: State, here: Any) -> None:
        """From here on nothing goes wrong: it is delivered or given up as wished, its claim ends, it goes (I-60)."""
        start, s, path, lines = s, calm(s), list[Any](), list[str]()
        try:
            for _ in range(STEPS):
                here_now = key(s)
                if here_now in self._calm or not s.there:
                    self._calm.update(path)
                    return
                heard = path[-1:] == [here_now]
                path.append(here_now)
                label, after = self._calm_step(s, heard)
                s = calm(after)
                self.found.endings += 1
                lines.append(f"calmly: {label}\n      {text(s)}")
                promises.worked(s)
                promises.in_time(s)
                expect(s, start)
            raise Violation(f"it is not gone within {STEPS} calm steps")
        except Violation as violation:
            self._broken(violation, here, lines)

    def _calm_step(self, s: State, heard: bool) -> tuple[str, State]:
        """``heard``: the errand under way brings nothing new now."""
        if s.wake_at is not None and s.wake_at <= s.now:
            after, done = self._machine.calmly(s, Doing.run)
            label = "pass"
        elif s.errand is None or heard:
            if s.wake_at is None:
                raise Violation("nothing will look at it again (I-68)")
            return "time passes", _at(s, s.wake_at)
        else:
            after, done = self._machine.calmly(s, Doing.end_errand)
            label = f"the talk ({s.errand.kind})"
        return f"{label}: {'; '.join(done.fate.told) or 'as usual'}", after

    def _broken(self, violation: Violation, here: Any, more: list[str]) -> None:
        promise, *last = (str(part) for part in violation.args)
        if promise in self.found.violations:
            return
        steps: list[str] = []
        node: Any = here
        while node is not None:
            node, label = self._parents[node]
            steps.append(label)
        more = more if len(more) < LONGEST else [*more[:LONGEST], "and so on"]
        lines = [*reversed(steps), *more, *([f"last: {'; '.join(last)}"] if last else [])]
        numbered = "\n".join(f"  {number:2}. {line}" for number, line in enumerate(lines))
        self.found.violations[promise] = f"{self.found.config.name}: {promise}\n{numbered}"


def _time(s: State) -> Iterator[tuple[str, State]]:
    """Time passes until something may come out differently, and never past the moment at which a pass is due."""
    due = s.wake_at
    ahead = [at for at in thresholds(s) if due is None or at < due]
    for at in sorted({*ahead, *([due] if due is not None and due > s.now else [])})[:1]:
        yield "time passes", _at(s, at)


def _at(s: State, now: float) -> State:
    after = s.copy()
    after.now = now
    return after
