"""Prometheus' own programs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane import binaries

Promtool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def prometheus_binaries() -> dict[str, Path]:
    return binaries.ensure_prometheus()


@pytest.fixture(scope="session")
def promtool(prometheus_binaries: dict[str, Path]) -> Promtool:
    """Run promtool; the result has its exit code and words."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [prometheus_binaries["promtool"], *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run
