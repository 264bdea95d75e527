"""The operator is killed right before and right after each call that it makes, one death per run (tests/crash)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.crash.matrix import Report

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(4 * 3600)]

LARGEST_MISS = 0.2  # share of the planned deaths whose call was not made again, in two plays


def test_death_at_every_step(reports: Mapping[str, Report], backend: str) -> None:
    """The wish is reached, at most one instance lives at every moment, nothing is left (I-05, I-06, I-09, I-10)."""
    check(reports[backend])


def test_a_delegation_over_a_death_at_every_call(reports: Mapping[str, Report], ledger: str) -> None:
    """Each one ends, in one update (I-62, I-64, I-65), is cancelled where wished (I-71), and goes in time (I-69).

    An agent that can be asked, or that de-duplicates, works on each once; for any other one, ``resends`` counts what
    may be a double (I-61).
    """
    check(reports[ledger])


def check(report: Report) -> None:
    """Nothing failed, and most of what was planned was played."""
    found = [f"{outcome.kill}\n{outcome.problem}" for outcome in report.failed] + report.problems
    assert not found, "\n\n".join(found[:5] + [each.splitlines()[0] for each in found[5:]])
    assert report.died > 0
    assert len(report.missed) <= LARGEST_MISS * report.planned, "\n".join(map(str, report.missed))
