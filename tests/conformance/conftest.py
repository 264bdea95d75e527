"""Which backends the suite runs on, and the table of promises kept that it prints at its end."""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.rigs import RIGS, Rig

#: Rigs that are imported only when they are run: the EC2 one brings moto with it, and pods need a node.
BY_NAME = {"ec2": "tests.backends.ec2_rig:Ec2Rig", "kubernetes": "tests.backends.kubernetes_rig:KubernetesRig"}

_RESULTS = pytest.StashKey[dict[str, dict[str, str]]]()
_config: list[pytest.Config] = []


def pytest_configure(config: pytest.Config) -> None:
    results: dict[str, dict[str, str]] = defaultdict(dict)
    config.stash[_RESULTS] = results
    _config.append(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rig" in metafunc.fixturenames:
        names = metafunc.config.getoption("--backend", default=None) or [*RIGS, *BY_NAME]
        marks = {"docker": [pytest.mark.engine], "kubernetes": [pytest.mark.cluster]}
        params = [pytest.param(name, id=name, marks=marks.get(name, [])) for name in names]
        metafunc.parametrize("rig", params, indirect=True)


def _rig_class(name: str) -> type[Rig]:
    if name in RIGS:
        return RIGS[name]
    module, _, attribute = BY_NAME.get(name, name).partition(":")
    if not attribute:
        raise pytest.UsageError(f"--backend={name}: write one of {', '.join(RIGS)}, or package.module:Class")
    found: type[Rig] = getattr(importlib.import_module(module), attribute)
    return found


@pytest.fixture
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """The backend under test, with nothing of this test on it before and after."""
    made = _rig_class(request.param)(request, tmp_path)
    try:
        yield made
    finally:
        await made.clean()


_NODE = re.compile(r"conformance/test_\w+\.py::test_(?P<test>\w+)\[(?P<backend>[^\]]+)\]$")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    found = _NODE.search(report.nodeid)
    if found is None or not _config:
        return
    row = _config[-1].stash[_RESULTS][found["test"]]
    if report.failed:
        row[found["backend"]] = "FAILED"
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        row[found["backend"]] = reason.removeprefix("Skipped: ") or "skipped"
    elif report.when == "call":
        row.setdefault(found["backend"], "ok")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash.get(_RESULTS, {})
    if not results:
        return
    backends = sorted({backend for row in results.values() for backend in row})
    width = max(len(test) for test in results)
    widths = {b: max(len(b), *(len(row.get(b, "-")) for row in results.values())) for b in backends}
    terminalreporter.section("conformance: promises kept, by backend")
    terminalreporter.write_line("  ".join([" " * width, *(f"{b:<{widths[b]}}" for b in backends)]).rstrip())
    for test, row in results.items():
        cells = [f"{row.get(b, '-'):<{widths[b]}}" for b in backends]
        terminalreporter.write_line("  ".join([f"{test.replace('_', ' '):<{width}}", *cells]).rstrip())
