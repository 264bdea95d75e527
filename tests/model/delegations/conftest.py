"""What the exploration and the traces of delegations covered, printed at the end of the run."""

from __future__ import annotations

import pytest
from tests.model.delegations.explore import TAKEN
from tests.model.delegations.test_world import LINES
from tests.model.explore import rows_taken
from tests.support.closing import Words

from workspace_operator.lifecycle.delegation.table import TABLE


def pytest_closing_words(config: pytest.Config) -> Words:
    return "model of delegations", [*LINES, *rows_taken(TABLE, TAKEN)] if LINES else []
