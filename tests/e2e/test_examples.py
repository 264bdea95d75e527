"""The manifests that we hand out work as they are; only this machine's addresses are filled in."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.support.fleet import Fleet
from tests.support.operator import ROOT, Operator

from controlplane.cluster import LocalCluster
from controlplane.engine import DockerEngine

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("*.yaml"))
COLUMNS = ["NAME", "DESIRED", "PHASE", "READY", "REASON", "CLASS", "ENDPOINT", "AGE"]


@pytest.fixture
def own_cluster(tmp_path: Path, engine: DockerEngine, agent_image: str) -> object:
    """A control plane of its own, because the examples' class names are cluster-wide."""
    with LocalCluster(tmp_path / "cluster") as cluster:
        cluster.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
        yield cluster


def test_every_example_becomes_ready(own_cluster: LocalCluster, engine: DockerEngine, tmp_path: Path) -> None:
    """apply, wait for Ready, get the fleet with the columns that the documentation promises."""
    fleet = Fleet(own_cluster, "default")
    kubeconfig = own_cluster.service_account_kubeconfig("workspace-operator-system", "workspace-operator")
    with Operator(kubeconfig, tmp_path):
        for example in EXAMPLES:
            fleet.apply(adapted(yaml.safe_load(example.read_text()), engine, tmp_path))
        fleet.wait_ready(seconds=90)
        header = fleet.kubectl("get", "fleet").splitlines()[0].split()
        assert header == COLUMNS
        fleet.delete("--all")


def adapted(manifest: dict[str, object], engine: DockerEngine, tmp_path: Path) -> dict[str, object]:
    """The engine's socket and a temporary directory instead of the machine's own."""
    spec = manifest["spec"]
    assert isinstance(spec, dict)
    if "docker" in spec:
        spec["docker"]["host"] = engine.host
    if "process" in spec:
        spec["process"]["directory"] = str(tmp_path / "workspaces")
    return manifest
