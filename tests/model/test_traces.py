"""Traces that broke a promise once, each with the least that is needed for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from tests.model.happenings import Happening, Past, User
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
