"""Several workspaces, the sweeper, and everything that may go wrong at once, in traces that hypothesis makes up.

The whole ``Runtime`` of the operator runs, with its queues, its loops and the sweeper, in virtual time and against a
simulated API server and backend (``simulation``). After each step every promise must hold (``promises``); at the end of
a trace nothing goes wrong any more, and within bounds every wish must be reached and every orphan be gone. A trace that
breaks a promise is shrunk by hypothesis and printed as the shortest one that does, with what the operator did in it.

A run is the same each time. ``WORKSPACE_MODEL_TRACES=20000`` makes so many traces instead, other ones each time, e.g.
over night: ``WORKSPACE_MODEL_TRACES=20000 make test ARGS=tests/model/test_stateful.py``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.model.happenings import HAPPENINGS, Happening
from tests.model.simulation import COVERED, INTERVAL, NAMES, OBSERVE, STOP_GRACE, Setting, Simulation

TRACES = int(os.environ.get("WORKSPACE_MODEL_TRACES", "0"))
IN_CI, STEPS = 150, 30

SETTINGS = st.builds(
    Setting,
    sweep=st.sampled_from(("Remove", "Remove", "Remove without a fuse", "Report")),
    sweep_grace=st.sampled_from((0, 45)),
    freeze=st.booleans(),
    tokens=st.booleans(),
    boots=st.sampled_from((0.0, 4.0, 20.0)),
    ends=st.sampled_from((0.0, 4.0, None, None)),
    pace=st.sampled_from((0.02, 0.3)),
)
WISHES = st.lists(st.sampled_from(("Running", "Paused", "Stopped")), max_size=3)
THEN = st.sampled_from(
    (0.3, 0.0, 1.0, 3.0, 3.0, 10.0, 10.0, 20.0, 40.0, 150.0, 700.0)
)  # seconds that pass after what happened


class Workspaces(RuleBasedStateMachine):
    """The steps of a trace. There is one rule, because hypothesis leaves rules out of most traces."""

    sim: Simulation

    @initialize(setting=SETTINGS, wishes=WISHES)
    def begin(self, setting: Setting, wishes: list[str]) -> None:
        logging.disable(logging.CRITICAL)
        self.sim = Simulation(setting)
        COVERED.traces += 1
        for who, wish in zip(NAMES, wishes, strict=False):
            self.sim.user(wish, who, 0)
        self.sim.passes(5)

    @rule(what=HAPPENINGS, then=THEN)
    def happens(self, what: Happening, then: float) -> None:
        COVERED.steps += 1
        what.happen(self.sim)
        self.sim.passes(then)
        self.sim.check()

    def teardown(self) -> None:
        if not hasattr(self, "sim"):
            return
        try:
            if not self.sim.violations:
                calm_down(self.sim)
        finally:
            self.sim.close()
            logging.disable(logging.NOTSET)


def calm_down(sim: Simulation) -> None:
    """Nothing goes wrong any more: leaks go within the published bound, wishes are reached, and then all is quiet."""
    sim.calm()
    sim.passes(70)  # the longest that a call hangs
    leaks = {unit.id for unit in sim.leaks()}
    bound = max(INTERVAL + sim.setting.sweep_grace + STOP_GRACE + 6 * OBSERVE, sim.back_off() + 30)
    report = sim.setting.sweep == "Report"
    fuse = _wait(sim, bound, lambda: not sim.unreached() and (report or not leaks & {u.id for u in sim.leaks()}))
    for problem in sim.unreached():
        sim.broken(problem)
    if not report and not fuse:
        sim.expect(not leaks & {unit.id for unit in sim.leaks()}, "a leak is still there after interval and grace")
    _wait(sim, 900, lambda: report or not sim.leaks())
    sim.expect(report or not sim.leaks(), "a leak is still there")
    sim.callers.leave()
    _wait(sim, 240, lambda: sim.sleeps)
    sim.expect(sim.sleeps, "what has nothing to do is not paused")
    sim.passes(310 if sim.failed() else 0)  # so long a back-off may be remembered
    before = sim.changes
    sim.passes(90)
    sim.expect(before == sim.changes, "something is still done or written although all is reached")
    sim.check()


def _wait(sim: Simulation, seconds: float, until: Callable[[], bool]) -> bool:
    """Whether a person had to release the fuse meanwhile."""
    end, fuse = sim.loop.now + seconds, False
    while sim.loop.now < end and not until():
        fuse = sim.release_fuse() or fuse
        sim.passes(5)
    return fuse


@pytest.mark.timeout(0 if TRACES else 900)  # hypothesis shrinks for five minutes
class TestWorkspaces(Workspaces.TestCase):
    """I-05, I-06, I-08, I-10, I-11, I-13, I-15, I-16, I-17, I-18, I-22, I-23, I-29, I-30, I-50, I-51."""

    def runTest(self) -> None:
        """Without hypothesis' mutator: five of six traces would repeat steps of the one before."""
        with mock.patch.object(ConjectureRunner, "generate_mutations_from", lambda runner, data: None):
            super().runTest()

    runTest.is_hypothesis_test = True  # type: ignore[attr-defined]


TestWorkspaces.settings = settings(
    max_examples=TRACES or IN_CI,
    stateful_step_count=STEPS,
    derandomize=not TRACES,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
