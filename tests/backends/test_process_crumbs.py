"""What a crash within a release leaves behind goes with the next look: no verb comes by there again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.backends.process_kit import Bench, run

from workspace_operator.backends.protocol import Reading


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "workspaces")
    try:
        yield made
    finally:
        await made.clean()


@pytest.mark.parametrize("crumbs", [(), ("lock",), ("lock", ".gone-1/instance.json"), (".new-1/instance.json",)])
async def test_crumbs_without_an_instance_vanish(bench: Bench, crumbs: tuple[str, ...]) -> None:
    """I-10: deleted is nothing left."""
    backend, request = bench.driver(), bench.request()
    home = bench.home(request)
    home.mkdir(parents=True)
    for crumb in crumbs:
        (home / crumb).parent.mkdir(exist_ok=True)
        (home / crumb).touch()
    assert await backend.observe(request.ref) == ()
    assert not home.exists()


async def test_data_and_instances_stay(bench: Bench) -> None:
    backend, request = bench.driver(), bench.request()
    await run(backend, request)
    home = bench.home(request)
    (home / ".gone-1").mkdir()
    (seen,) = await backend.observe(request.ref)
    assert seen.reading is Reading.RUNNING
    other = bench.request()
    bench.home(other).mkdir()
    (bench.home(other) / "data").mkdir()
    (bench.home(other) / "data.json").touch()
    (bench.home(other) / ".gone-1").mkdir()
    assert await backend.observe(other.ref) == ()
    assert {entry.name for entry in bench.home(other).iterdir()} - {"lock"} == {"data", "data.json"}
