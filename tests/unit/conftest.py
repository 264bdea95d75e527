"""Prints which incidents no test names."""

from __future__ import annotations

import pytest
from tests.unit.incidents import OPEN, PARTLY, named, promises, untested


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tests = {test for row in named().values() for test in row}
    terminalreporter.section("incidents")
    terminalreporter.write_line(f"{len(named())} of {len(promises())} rows are named by {len(tests)} tests")
    for line in untested():
        terminalreporter.write_line(f"  no test: {line}{f' (later: {OPEN[line[:4]]})' if line[:4] in OPEN else ''}")
    for row, rest in PARTLY.items():
        terminalreporter.write_line(f"  in part: {row} {promises()[row]} (later: {rest})")
