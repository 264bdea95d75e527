"""Traces with the least that is needed for one promise: some broke it once, the others are easily missed by chance."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from tests.model.callers import PAUSE_AFTER
from tests.model.happenings import Delegations, Happening, Past, User
from tests.model.simulation import Setting, Simulation

Trace = tuple[tuple[Happening, float], ...]  # what happens, and the seconds that pass afterwards


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(setting: Setting, trace: Trace) -> None:
    """Every promise holds after each step, and every wish is reached in the end."""
    sim = Simulation(setting)
    try:
        sim.passes(5)
        for what, then in trace:
            what.happen(sim)
            sim.passes(then)
            sim.check()
        assert not sim.unreached()
    finally:
        sim.close()


def test_an_older_instance_that_a_listing_does_not_show_yet_is_waited_for() -> None:
    """I-06: the new incarnation starts when the old one, which takes its time to stop, is really gone."""
    run(Setting(ends=None), ((Past("backend", 60), 0.0), (User("Running", "a"), 20.0), (User("restarts", "a"), 60.0)))


def test_data_outlives_an_instance_that_a_listing_does_not_show_yet() -> None:
    """I-16: the volume goes after the compute, whatever an old listing says."""
    run(Setting(ends=None), ((Past("backend", 60), 0.0), (User("Running", "d"), 8.0), (User("deletes", "d"), 60.0)))


@pytest.fixture
def idle() -> Iterator[Simulation]:
    """A workspace that may idle and had its last task long enough ago for the decision to come soon."""
    sim = Simulation(Setting())
    sim.passes(5)
    User("Running", "d").happen(sim)
    sim.passes(5)
    Delegations("wait").happen(sim)
    Delegations("are sent").happen(sim)
    Delegations("are over").happen(sim)
    sim.passes(PAUSE_AFTER - 5)
    yield sim
    sim.close()


def _count(sim: Simulation, what: str) -> int:
    return sum(f"{what} of d-" in line for line in sim.story)


def test_a_hundred_delegations_at_once_wake_it_once(idle: Simulation) -> None:
    """I-22, I-06: however many want it, one start follows."""
    idle.passes(60)
    assert idle.sleeps and _count(idle, "provision") == 1
    Delegations("wait", 50).happen(idle)
    for _ in range(50):
        Delegations("wait").happen(idle)
    idle.passes(30)
    Delegations("are sent").happen(idle)
    idle.passes(300)
    idle.check()
    assert idle.callers.flying == 100 and not idle.unreached()
    assert (_count(idle, "provision"), _count(idle, "halt")) == (2, 1)


@pytest.mark.parametrize("calls", range(1, 8))
def test_a_task_that_comes_in_the_very_moment_of_the_decision(idle: Simulation, calls: int) -> None:
    """I-22: before each call around it. Either it is not paused, or the task was not sent and wakes it."""

    def arrive() -> None:
        idle.callers.wait(1)
        idle.callers.go()

    idle.hooks.append((calls, arrive))
    idle.passes(60)
    idle.check()
    assert not idle.hooks and not idle.sleeps and not idle.unreached()
    assert _count(idle, "halt") == (0 if idle.callers.flying else 1)
    Delegations("are sent").happen(idle)
    idle.passes(60)
    idle.check()
    assert idle.callers.flying == 1 and not idle.unreached()
