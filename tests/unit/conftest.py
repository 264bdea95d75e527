"""Prints which incidents no test names."""

from __future__ import annotations

import pytest
from tests.support.closing import Words
from tests.unit.incidents import OPEN, PARTLY, named, promises, untested


def pytest_closing_words(config: pytest.Config) -> Words:
    tests = {test for row in named().values() for test in row}
    lines = [f"{len(named())} of {len(promises())} rows are named by {len(tests)} tests"]
    for line in untested():
        lines.append(f"  no test: {line}{f' (later: {OPEN[line[:4]]})' if line[:4] in OPEN else ''}")
    for row, rest in PARTLY.items():
        lines.append(f"  in part: {row} {promises()[row]} (later: {rest})")
    return "incidents", lines
