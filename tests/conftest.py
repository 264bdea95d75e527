"""Session-wide real parts: one API server, one Docker engine, the agent's image. Each starts on first use."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from tests.conformance.table import Table
from tests.gitops.judge import Judge, program
from tests.support import closing
from tests.support.fleet import Fleet, workspace_class
from tests.support.operator import ROOT, Operator
from tests.support.pods import Space

import image
from controlplane import pythonimage
from controlplane.cluster import LocalCluster
from controlplane.engine import DockerEngine
from controlplane.fakenodes import FakeNodes
from controlplane.kubectl import Cluster
from controlplane.nodes import Node, Nodes

Say = Callable[[str], None]
PYTHON = sys.executable
_serial = itertools.count(1)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(closing.Hooks())
    pluginmanager.register(closing.Closing())
    pluginmanager.register(Table())


def pytest_addoption(parser: pytest.Parser) -> None:
    """For third parties who test a backend of their own."""
    parser.addoption(
        "--backend",
        action="append",
        metavar="NAME",
        help="run the conformance suite on this backend only (repeatable): process, docker, ec2, kubernetes "
        "or module:Class of your own Rig (tests/conformance/rigs.py)",
    )


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Say:
    """Progress of long set-up, visible although pytest captures output."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    return lambda text: reporter.write_line(f"  … {text}") if reporter is not None else None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, say: Say) -> Iterator[LocalCluster]:
    """A real control plane with our CRDs and RBAC."""
    with LocalCluster(tmp_path_factory.mktemp("cluster") / "c", say=say) as running:
        running.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
        running.kubectl("wait", "--for=condition=Established", "crd", "--all")
        yield running


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory, say: Say) -> Iterator[DockerEngine]:
    """A private Docker engine, so that tests may stop and freeze it."""
    obstacle = DockerEngine.available(always_private=True)
    if obstacle is not None:
        pytest.fail(f"no Docker engine can be had here: {obstacle}")
    with DockerEngine(tmp_path_factory.mktemp("engine") / "e", always_private=True, say=say) as running:
        yield running


@pytest.fixture(scope="session")
def agent_image(engine: DockerEngine, say: Say) -> str:
    """The reference agent's image, built into the engine."""
    client = docker.DockerClient(base_url=engine.host, timeout=120)
    try:
        pythonimage.build(image.RECIPE, client, say=say)
    finally:
        client.close()
    return image.RECIPE.tag


@pytest.fixture(scope="session")
def nodes(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory, say: Say) -> Iterator[Nodes]:
    """What a test may add nodes of its own to; they live as long as the cluster does."""
    obstacle = Nodes.available()
    if obstacle is not None:
        pytest.fail(f"no node can be had here: {obstacle}")
    with Nodes(cluster, tmp_path_factory.mktemp("nodes") / "n", say=say) as running:
        yield running


@pytest.fixture(scope="session")
def agent_archive(tmp_path_factory: pytest.TempPathFactory, say: Say) -> Path:
    """The reference agent's image as a file, for nodes."""
    archive = tmp_path_factory.mktemp("image") / "agent.tar"
    pythonimage.save(image.RECIPE, archive, say=say)
    return archive


@pytest.fixture(scope="session")
def node(nodes: Nodes, agent_archive: Path) -> Node:
    """A node on which pods of the reference agent run, and of images.BUSYBOX_TAG."""
    added = nodes.add()
    added.load(agent_archive)
    return added


@pytest.fixture
def space(cluster: LocalCluster) -> Iterator[Space]:
    """A namespace of the test's own for pods made by hand; they are gone afterwards."""
    made = Space(cluster, f"pods-{next(_serial)}")
    yield made
    made.remove()


@pytest.fixture(scope="session")
def fake_nodes(cluster: LocalCluster, say: Say) -> Iterator[FakeNodes]:
    """Ten nodes for 1000 pods each, of which none runs; for pods that ask for them."""
    with FakeNodes(cluster, 10, say=say) as running:
        yield running


@pytest.fixture(scope="session")
def judge(say: Say) -> Judge:
    """What Argo CD and Flux say of objects."""
    return Judge(program(say))


@pytest.fixture
def fleet(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A namespace of the test's own; its workspaces are gone afterwards."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    name = f"{words[:40].strip('-')}-{next(_serial)}"
    cluster.kubectl("create", "namespace", name)
    made = Fleet(cluster, name)
    yield made
    if made.all():
        made.kubectl("delete", "workspaces", "--all", "--timeout=60s", timeout=70)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def operator_kubeconfig(cluster: LocalCluster) -> Path:
    """The operator's own ServiceAccount, with the rights of deploy/base/rbac.yaml."""
    return cluster.service_account_kubeconfig("workspace-operator-system", "workspace-operator")


@pytest.fixture(scope="module")
def operator(operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """A running operator, shared by the tests of a module."""
    with Operator(operator_kubeconfig, tmp_path_factory.mktemp("operator")) as running:
        yield running


@pytest.fixture(scope="session")
def process_class(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A class of plain processes that knows the reference agent."""
    images = [
        {
            "name": "workspace-operator/reference-agent:dev",
            "command": [PYTHON, "-m", "reference_agent"],
            "env": [{"name": "PYTHONPATH", "value": str(ROOT / "deploy" / "agent")}],
        },
        {"name": "sleep", "command": ["sleep", "infinity"]},
        {"name": "exit-3", "command": ["sh", "-c", "sleep 0.3; exit 3"]},
    ]
    spec = {"directory": str(tmp_path_factory.mktemp("workspaces")), "images": images}
    Fleet(cluster, "default").apply(workspace_class("process", process=spec, stopGracePeriod="3s"))
    return "process"


@pytest.fixture(scope="session")
def docker_class(cluster: LocalCluster, engine: DockerEngine, agent_image: str) -> str:
    """A class of containers on the private engine."""
    spec = {
        "host": engine.host,
        "pullPolicy": "Never",
        "extraHosts": [f"host.docker.internal:{engine.gateway}"],
    }
    identity = {"server": f"https://host.docker.internal:{cluster.port}"}
    Fleet(cluster, "default").apply(
        workspace_class("docker", docker=spec, identity=identity, stopGracePeriod="5s", observeInterval="5s")
    )
    return "docker"
