"""Breadth-first exploration of all that may happen, to closure, and the way back to calm from each state found."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest import mock

from tests.model.backend import Violation
from tests.model.machine import Machine
from tests.model.nature import calm, edit, faults, natural, text
from tests.model.world import Config, State, key, ready, seconds

from workspace_operator.lifecycle import plan as planning
from workspace_operator.lifecycle.facts import Sight
from workspace_operator.lifecycle.plan import Decision, Situation
from workspace_operator.lifecycle.table import Row, Step

PASSES = 30  # within so many passes of a calm world every goal is reached
TAKEN: Counter[Row] = Counter()  # rows of the table, over all explorations


def rows_taken(table: Sequence[Any], taken: Mapping[Any, int]) -> list[str]:
    """How many rows of a table the explorations went through, and those that they did not."""
    left = [row for row in table if not taken[row]]
    lines = [f"rows of the table taken: {len(table) - len(left)} of {len(table)}"]
    return lines + [f"  not taken: {row.goal} / {row.sight} / {row.guard} -> {row.step}" for row in left]


@dataclass
class Found:
    """What one exploration covered and what it found."""

    config: Config
    states: int = 0
    transitions: int = 0
    recoveries: int = 0
    longest: int = 0
    seconds: float = 0.0
    violations: dict[str, str] = field(default_factory=dict)  # promise → shortest trace

    def line(self) -> str:
        return (
            f"{self.config.name}: {self.states} states, {self.transitions} transitions, from each state back to calm "
            f"({self.recoveries} passes, at most {self.longest} in a row), {self.seconds:.1f} s"
        )


def watching_plan(situation: Situation) -> Decision:
    """The real plan, counted; nothing is ever done because of an Unknown sight."""
    decision = planning.plan(situation)
    TAKEN[decision.row] += 1
    if situation.seen.sight is Sight.UNKNOWN and decision.step is not Step.WAIT:
        raise Violation(f"{decision.step} because of an Unknown sight (I-40)")
    return decision


class Explorer:
    """Explores one configuration from a new object on."""

    def __init__(self, config: Config, limit: int = 200_000) -> None:
        self.found = Found(config)
        self._limit = limit
        self._machine = Machine(config.freeze, config.credentials)
        self._calm: set[Any] = set()
        self._parents: dict[Any, tuple[Any, str]] = {}

    def run(self, *starts: State) -> Found:
        began = time.perf_counter()
        logging.disable(logging.CRITICAL)
        with (
            mock.patch("workspace_operator.reconcile.workspace.plan", watching_plan),
            mock.patch("workspace_operator.reconcile.steps.plan", watching_plan),
        ):
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
            assert self.found.states < self._limit, "the model does not close; its key lets too much through"
            if s.finished:
                continue
            self._return_to_calm(s, here)
            for label, after in self._successors(s, here):
                self.found.transitions += 1
                there = key(after)
                if there not in seen:
                    seen.add(there)
                    self._parents[there] = (here, f"{label}\n      {text(after)}")
                    queue.append(after)

    def _successors(self, s: State, here: Any) -> Iterator[tuple[str, State]]:
        yield from natural(s)
        yield from faults(s)
        yield from self._passes(s, here, None)
        if not s.edits:
            return
        for kind in s.config.edits:
            edited = edit(s, kind)
            if edited is not None:
                yield f"the user edits: {kind}", edited
                yield from self._passes(s, here, (kind, edited))

    def _passes(self, s: State, here: Any, late: tuple[str, State] | None) -> Iterator[tuple[str, State]]:
        try:
            for label, after, _ in self._machine.outcomes(s, late):
                yield label, after
        except Violation as violation:
            self._broken(violation, here, [])

    def _return_to_calm(self, s: State, here: Any) -> None:
        """From here on nothing goes wrong: the goal is reached, and then nothing is written any more."""
        s, path = calm(s), []
        lines: list[str] = []
        for number in range(PASSES):
            path.append(key(s))
            if path[-1] in self._calm:
                break
            try:
                after, done = self._machine.calm_pass(s)
                rests = after.finished or (not done.wrote and not done.fate.told and self._rests(after, done.wake_in))
            except Violation as violation:
                self._broken(violation, here, lines)
                return
            self.found.recoveries += 1
            self.found.longest = max(self.found.longest, number + 1)
            lines.append(f"calm pass: {'; '.join(done.fate.told)}; wanted again in {done.wake_in}\n      {text(after)}")
            if rests:
                break
            s = calm(after)
            if not done.wrote and not done.fate.told:  # time passes only when there is nothing to do
                wake = done.wake_in or timedelta(0)
                s.now += min(int(wake.total_seconds() + 0.999), 3600)
        else:
            self._broken(Violation(f"{s.goal} is not reached within {PASSES} calm passes"), here, lines)
            return
        self._calm.update(path)

    def _rests(self, s: State, wake_in: timedelta | None) -> bool:
        """Whether a pass that did and wrote nothing did so because the goal is reached."""
        if ready(s).get("status") != "True" or s.status.get("phase") != s.goal:
            if wake_in is not None:
                return False  # e.g. a back-off
            raise Violation(f"at rest with phase {s.status.get('phase')} although the wish is {s.goal}")
        failures = s.status.get("failures")
        if failures and seconds(failures["retryAfter"]) > s.now:
            return False  # e.g. a restart that waits for its turn
        wished = {"Running": ["Running"], "Paused": ["Frozen"] if s.config.freeze else [], "Stopped": []}[s.goal]
        actual = [unit.reading.value for unit in s.live]
        if actual != wished and actual:
            raise Violation(f"at rest as {s.goal} while the backend shows {actual}")
        if s.goal == "Running":
            self._check_cycles(s)
        if s.idle_paused and s.token and s.status.get("restartToken") != f"token-{s.token}":
            raise Violation("a new restart token does not wake what is paused for being idle")
        return True

    def _check_cycles(self, s: State) -> None:
        """N new restart tokens cost at least one and at most N new incarnations (I-24)."""
        if s.cycles_from is None or s.config.edits != ("token",):
            return  # failures and template edits take new incarnations of their own
        cycles = s.top - s.cycles_from
        least = 1 if s.bound else 0
        most = max(s.token_edits, 1) + (1 if s.wiped else 0)
        if not least <= cycles <= most:
            raise Violation(f"{s.token_edits} new restart tokens cost {cycles} new incarnations (I-24)")

    def _broken(self, violation: Violation, here: Any, more: list[str]) -> None:
        promise, *last = (str(part) for part in violation.args)
        if promise in self.found.violations:
            return
        steps: list[str] = []
        node: Any = here
        while node is not None:
            node, label = self._parents[node]
            steps.append(label)
        lines = [*reversed(steps), *more, *([f"last pass: {'; '.join(last)}"] if last else [])]
        numbered = "\n".join(f"  {number:2}. {line}" for number, line in enumerate(lines))
        self.found.violations[promise] = f"{promise}\n{numbered}"
