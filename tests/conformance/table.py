"""The table of promises kept, by backend; tests/conftest.py registers it where the results of all workers arrive."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
from tests.support.closing import Words

_NODE = re.compile(r"conformance/test_\w+\.py::test_(?P<test>\w+)\[(?P<backend>[^\]@]+)\]")


class Table:
    """Fills with the results of the suite."""

    def __init__(self) -> None:
        self._results: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = _NODE.search(report.nodeid)
        if found is None:
            return
        row = self._results[found["test"]]
        if report.failed:
            row[found["backend"]] = "FAILED"
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            row[found["backend"]] = reason.removeprefix("Skipped: ") or "skipped"
        elif report.when == "call":
            row.setdefault(found["backend"], "ok")

    def pytest_closing_words(self, config: pytest.Config) -> Words | None:
        if not self._results or hasattr(config, "workeroutput"):
            return None  # a worker of pytest-xdist sees a part only
        backends = sorted({backend for row in self._results.values() for backend in row})
        width = max(len(test) for test in self._results)
        widths = {b: max(len(b), *(len(row.get(b, "-")) for row in self._results.values())) for b in backends}
        lines = ["  ".join([" " * width, *(f"{b:<{widths[b]}}" for b in backends)]).rstrip()]
        for test, row in self._results.items():
            cells = [f"{row.get(b, '-'):<{widths[b]}}" for b in backends]
            lines.append("  ".join([f"{test.replace('_', ' '):<{width}}", *cells]).rstrip())
        return "conformance: promises kept, by backend", lines
