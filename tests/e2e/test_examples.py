"""The manifests that we hand out work: as they are where that can be, else turned to what this machine has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.support.fleet import Fleet, Object
from tests.support.operator import ROOT, Operator

from controlplane.cluster import LocalCluster
from controlplane.engine import DockerEngine
from demo.standin import SECRET, StandIn

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("*.yaml"))
COLUMNS = ["NAME", "DESIRED", "PHASE", "READY", "REASON", "CLASS", "ENDPOINT", "AGE"]


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A control plane of its own, because the examples' class names are cluster-wide."""
    with LocalCluster(tmp_path_factory.mktemp("examples") / "cluster") as cluster:
        cluster.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        yield cluster


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandIn]:
    """The demo's stand-in for AWS."""
    made = StandIn(tmp_path)
    made.begin()
    try:
        made.wait()
        yield made
    finally:
        made.end()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_the_api_server_takes_every_example_as_it_is(own_cluster: LocalCluster, example: Path) -> None:
    """Schema, CEL rules and unknown fields, on the server. Nothing is stored, so that no operator ever calls AWS."""
    told = own_cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", str(example))
    assert "created (server dry run)" in told
    assert not own_cluster.kubectl("get", "workspaces,workspaceclasses", "-A", "-o", "name")


def test_every_example_becomes_ready(
    own_cluster: LocalCluster, engine: DockerEngine, agent_image: str, standin: StandIn, tmp_path: Path
) -> None:
    """apply, wait for Ready, get the fleet with the columns that the documentation promises.

    The EC2 class is turned to the stand-in first: the region's own names and keys, and a command for the workspace,
    because its machines have no container engine. What is left of it as written is what this proves.
    """
    fleet = Fleet(own_cluster, "default")
    kubeconfig = own_cluster.service_account_kubeconfig(SECRET["namespace"], "workspace-operator")
    own_cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(standin.secret()))
    with Operator(kubeconfig, tmp_path):
        for example in EXAMPLES:
            fleet.apply(adapted(yaml.safe_load(example.read_text()), engine, standin, tmp_path))
        fleet.wait_ready(seconds=90)
        header = fleet.kubectl("get", "workspaces").splitlines()[0].split()
        assert header == COLUMNS
        [instance] = standin.instances()
        assert (instance["State"]["Name"], instance["InstanceType"]) == ("running", "t3.medium")
        fleet.delete("--all")
        assert {each["State"]["Name"] for each in standin.instances()} == {"terminated"}


def adapted(manifest: Object, engine: DockerEngine, standin: StandIn, tmp_path: Path) -> Object:
    """The engine's socket, a temporary directory and the stand-in instead of the machine's own and AWS."""
    spec = manifest["spec"]
    if "docker" in spec:
        spec["docker"]["host"] = engine.host
    if "process" in spec:
        spec["process"]["directory"] = str(tmp_path / "workspaces")
    if "ec2" in spec:
        standin.point(spec)
        assert spec["ec2"]["endpointUrl"].startswith("http://127.0.0.1:"), "AWS itself is never called"
    if spec.get("className") == "ec2":
        standin.run_agent(spec)
    return manifest
