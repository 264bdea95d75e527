"""Helm without a cluster, and what the two ways to install come to."""

from __future__ import annotations

import pytest
from tests.support.helm import BASE, Helm, Object, kustomize


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def rendered(helm: Helm) -> dict[str, list[Object]]:
    """What each way installs with nothing changed."""
    return {"kustomize": kustomize(BASE), "helm": helm.template()}
