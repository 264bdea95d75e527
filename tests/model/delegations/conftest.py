"""What the exploration and the traces of delegations covered, printed at the end of the run."""

from __future__ import annotations

import pytest
from tests.model.delegations.explore import TAKEN
from tests.model.delegations.test_world import LINES

from workspace_operator.lifecycle.delegation.table import TABLE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not LINES:
        return
    terminalreporter.section("model of delegations")
    for line in LINES:
        terminalreporter.write_line(line)
    untaken = [row for row in TABLE if not TAKEN[row]]
    terminalreporter.write_line(f"rows of the table taken: {len(TABLE) - len(untaken)} of {len(TABLE)}")
    for row in untaken:
        terminalreporter.write_line(f"  not taken: {row.goal} / {row.sight} / {row.guard} -> {row.step}")
