"""Which backends the suite runs on."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.rigs import RIGS, Rig

#: Rigs that are imported only when they are run: the EC2 one brings moto with it, and pods need a node.
BY_NAME = {"ec2": "tests.backends.ec2_rig:Ec2Rig", "kubernetes": "tests.backends.kubernetes_rig:KubernetesRig"}


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
