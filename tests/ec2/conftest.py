"""One counterpart for the session; every test finds it empty and kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.ec2.counterpart import Counterpart, Faults


@pytest.fixture(scope="session")
def _counterpart() -> Iterator[Counterpart]:
    with Counterpart() as running:
        yield running


@pytest.fixture
def ec2(_counterpart: Counterpart) -> Counterpart:
    """An empty region without faults, whose instances take a moment for each change."""
    quick = 0.05
    faults = Faults(seed=7, pending=quick, stopping=quick, shutting_down=quick, creating_volume=quick)
    _counterpart.reset(faults)
    return _counterpart
