"""All that may happen to a workspace: edits, faults, crashes at every write and verb, in every order, to closure.

Each configuration is explored breadth-first with the real passes (see ``machine``); a broken promise is reported with
the shortest way to it. From every state that is found, the world turns calm, the goal must be reached, and then
nothing may be written any more.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.model.explore import TAKEN, Explorer, Found
from tests.model.machine import Machine
from tests.model.scenarios import CONFIGS, starts
from tests.model.world import Config, State

from workspace_operator.api.states import Reading
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.table import TABLE, Guard, Row

pytestmark = pytest.mark.timeout(900)  # two minutes on two idle cores
LINES: list[str] = []  # for the terminal summary


def _explore(config: Config) -> tuple[Found, Counter[Row]]:
    TAKEN.clear()
    return Explorer(config).run(*starts(config)), Counter(TAKEN)


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Found]]:
    """Every configuration explored, on as many cores as there are."""
    with multiprocessing.get_context("fork").Pool(maxtasksperchild=1) as pool:
        results = pool.map(_explore, CONFIGS, chunksize=1)
    for result, taken in results:
        TAKEN.update(taken)
        LINES.append(result.line())
    total = sum(result.states for result, _ in results), sum(result.transitions for result, _ in results)
    LINES.append(f"together {total[0]} states and {total[1]} transitions")
    yield {result.config.name: result for result, _ in results}


@pytest.mark.parametrize("name", [config.name for config in CONFIGS])
def test_every_promise_holds_in(name: str, found: dict[str, Found]) -> None:
    """I-05, I-06, I-07, I-08, I-09, I-10, I-11, I-14, I-23, I-24, I-27, I-40, I-50, I-51, I-81."""
    broken = found[name].violations.values()
    assert not broken, "\n\n".join(broken)


def test_every_row_of_the_table_is_taken_by_something_that_may_happen(found: dict[str, Found]) -> None:
    """I-27: every transition of the table end to end; no row is there for nothing."""
    untaken = {(row.goal, row.sight, row.guard) for row in TABLE if not TAKEN[row]}
    assert untaken == {(Goal.PAUSED, Sight.FROZEN, Guard.ALWAYS)}, "the class's pauseMode is not edited here"


def _hour(config: Config) -> int:
    """Starts within the first hour of a workspace whose every start fails."""
    machine, s, starts_made, passes = Machine(config.freeze, config.credentials), State(config, 0, 0), 0, 0
    try:
        while s.now < 3600 and passes < 1000:
            s, done = machine.calm_pass(s)
            passes, starts_made = passes + 1, starts_made + done.backend.starts
            wake = done.wake_in.total_seconds() if done.wake_in is not None else 3600
            s.now += int(wake + 0.999)
            after = {"exits": Reading.HALTED, "fails": Reading.FAILED}.get(config.hopeless)
            if config.hopeless == "vanishes":
                s.units = ()
            elif after is not None:
                s.units = tuple(replace(unit, reading=after) for unit in s.units)
    finally:
        machine.close()
    return starts_made


@pytest.mark.parametrize("how", ["exits", "fails", "vanishes", "is refused", "gets no answer", "ends at once"])
def test_a_start_that_always_fails_slows_down(how: str) -> None:
    """I-26: 1, 2, 4 ... 300 s, whatever it is that goes wrong."""
    assert 5 <= _hour(Config(f"every start {how}", hopeless=how, patient=False)) <= 22
