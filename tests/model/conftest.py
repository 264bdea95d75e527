"""What the exploration and the traces covered, printed at the end of the run."""

from __future__ import annotations

import pytest
from tests.model.explore import TAKEN, rows_taken
from tests.model.simulation import COVERED
from tests.model.test_world import LINES
from tests.support.closing import Words

from workspace_operator.lifecycle.table import TABLE


def pytest_closing_words(config: pytest.Config) -> Words:
    lines = [*LINES, *rows_taken(TABLE, TAKEN)] if LINES else []
    if COVERED.traces:
        lines.append(COVERED.line())
    return "model of the lifecycle", lines
