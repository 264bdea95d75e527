"""The matrix is played once, by the first test that asks for it; its table is printed at the end of the session."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.crash.lane import lane
from tests.crash.matrix import Matrix, Report
from tests.crash.podrig import KubernetesApartRig, KubernetesRig
from tests.crash.rigs import DelegationRig, DockerRig, Ec2Rig, ProcessRig, Rig
from tests.crash.subject import subject
from tests.crash.table import lines
from tests.support.closing import Words

PODS = {rig.name: rig for rig in (KubernetesRig, KubernetesApartRig)}
BACKENDS = ("process", "docker", "ec2", *PODS)
DELEGATION = "delegation"
MOMENT = 0.1  # seconds for each change of an EC2 machine
_REPORTS = pytest.StashKey[Mapping[str, Report]]()


def selected(config: pytest.Config, names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``--backend``, each in all its variants, and ``delegation``; those of other suites are not ours."""
    wanted = config.getoption("--backend", default=None) or names
    return tuple(name for name in names if name in wanted or name.partition("-")[0] in wanted)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = {"docker": [pytest.mark.engine]}
    for fixture, names in (("backend", BACKENDS), ("ledger", (DELEGATION,))):
        if fixture in metafunc.fixturenames:
            params = [
                pytest.param(name, id=name, marks=marks.get(name, [])) for name in selected(metafunc.config, names)
            ]
            metafunc.parametrize(fixture, params)


def _rig(name: str, request: pytest.FixtureRequest, directory: Path, stack: ExitStack) -> Rig:
    if name in ("process", DELEGATION):
        witness = directory / "witness"
        witness.mkdir(exist_ok=True)
        return (ProcessRig if name == "process" else DelegationRig)(witness)
    if name == "docker":
        return DockerRig(request.getfixturevalue("engine").host)
    if name in PODS:
        return PODS[name]()
    from tests.ec2.counterpart import Counterpart, Faults

    faults = Faults(seed=7, pending=MOMENT, stopping=MOMENT, shutting_down=MOMENT, creating_volume=MOMENT)
    return Ec2Rig(stack.enter_context(Counterpart(faults)))


@pytest.fixture(scope="session")
def reports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Report]]:
    """What came of the matrix, by backend, and of delegations."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")

    def say(text: str) -> None:
        if reporter is not None:
            reporter.write_line(f"  … {text}")

    directory = tmp_path_factory.mktemp("crash")
    wanted = {name for item in request.session.items if (name := _subject_of(item)) is not None}
    with ExitStack() as stack:
        rigs = [_rig(name, request, directory, stack) for name in (*BACKENDS, DELEGATION) if name in wanted]
        count = int(os.environ.get("CRASH_LANES", "3"))
        lanes = [stack.enter_context(lane(directory / f"lane-{number}", say)) for number in range(count)]
        for rig in rigs:
            stack.callback(rig.close)
        full, seed = os.environ.get("CRASH") == "full", int(os.environ.get("CRASH_SEED", "1"))
        matrix = Matrix([subject(rig) for rig in rigs], full=full, seed=seed, say=say)
        request.config.stash[_REPORTS] = matrix.reports
        matrix.run(lanes)
    yield matrix.reports


def _subject_of(item: pytest.Item) -> str | None:
    """What a test asks of the matrix: the backend, or delegations."""
    if not isinstance(item, pytest.Function) or "reports" not in item.fixturenames:
        return None
    return next(str(item.callspec.params[name]) for name in ("backend", "ledger") if name in item.callspec.params)


def pytest_closing_words(config: pytest.Config) -> Words:
    reports = config.stash.get(_REPORTS, {})
    return "death at every step: kill -9 right before and right after each call", list(
        lines(reports)
    ) if reports else []
