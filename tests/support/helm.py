"""The chart and the kustomizations, as Helm and kubectl render them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from tests.support.operator import ROOT

from controlplane import binaries

CHART = ROOT / "deploy" / "chart"
BASE = ROOT / "deploy" / "base"
NAMESPACE = "workspace-operator-system"
RELEASE = "workspace-operator"
Object = dict[str, Any]
Key = tuple[str, str, str, str]


class HelmError(Exception):
    """Helm refused; the message is its own."""


class Helm:
    """Runs helm, against one cluster or none."""

    def __init__(self, home: Path, kubeconfig: Path | None = None) -> None:
        self._binary = binaries.ensure_helm(lambda text: None)
        self._environment = {
            **os.environ,
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
            "KUBECONFIG": str(kubeconfig or os.devnull),
        }

    def __call__(self, *arguments: str, timeout: float = 60) -> str:
        """What it printed; raises HelmError."""
        done = subprocess.run(
            [str(self._binary), *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise HelmError(done.stderr)
        return done.stdout

    def template(self, values: Object | None = None) -> list[Object]:
        return objects(self("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *values_of(values)))


def values_of(values: Object | None) -> list[str]:
    """Flags that set these values; JSON keeps their types."""
    return [part for name, value in (values or {}).items() for part in ("--set-json", f"{name}={json.dumps(value)}")]


def kustomize(directory: Path) -> list[Object]:
    """What `kubectl apply -k` would apply."""
    command = [str(binaries.ensure().kubectl), "kustomize", str(directory)]
    return objects(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)


def objects(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


def key(found: Object) -> Key:
    metadata = found["metadata"]
    return found["apiVersion"], found["kind"], metadata.get("namespace", ""), metadata["name"]


def by_key(found: Iterable[Object]) -> dict[Key, Object]:
    listed = list(found)
    keyed = {key(each): each for each in listed}
    assert len(keyed) == len(listed), "an object is there twice"
    return keyed


def only(found: Iterable[Object], kind: str) -> Object:
    (one,) = (each for each in found if each["kind"] == kind)
    return one
