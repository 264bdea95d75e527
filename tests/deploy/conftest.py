"""Helm without a cluster, what the two ways to install come to, and the table of rights at the end of a run."""

from __future__ import annotations

import pytest
from tests.deploy.pod_plays import ROWS
from tests.deploy.rights import TABLE
from tests.support.closing import Words
from tests.support.helm import BASE, Helm, Object, kustomize


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def rendered(helm: Helm) -> dict[str, list[Object]]:
    """What each way installs with nothing changed."""
    return {"kustomize": kustomize(BASE), "helm": helm.template()}


def pytest_closing_words(config: pytest.Config) -> Words:
    lines = sorted(config.stash.get(TABLE, []))
    if lines:
        plays = set(ROWS.values())
        lines.append(f"{len(ROWS)} rights, each needed in one of {len(plays)} plays; {len(lines)} were taken away now")
    return "what fails without a right", lines
