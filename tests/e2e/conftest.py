"""What the scenarios share beside tests/conftest.py: the engine's command line, and an operator that may be killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ec2.counterpart import Counterpart
from tests.support import ec2
from tests.support.containers import Containers, containers_on
from tests.support.fleet import Fleet
from tests.support.operator import Operator
from tests.support.wild import Wild

import operatorimage
from controlplane import pythonimage
from controlplane.cluster import LocalCluster
from controlplane.engine import DockerEngine


@pytest.fixture(scope="session")
def containers(engine: DockerEngine) -> Iterator[Containers]:
    """The engine, past the operator."""
    with containers_on(engine.host) as found:
        yield found


@pytest.fixture(scope="session")
def operator_archive(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]) -> Path:
    """The operator's image as a file, for nodes."""
    archive = tmp_path_factory.mktemp("operator-image") / "operator.tar"
    pythonimage.save(operatorimage.RECIPE, archive, say=say)
    return archive


@pytest.fixture(scope="module")
def _killable(operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator of the module's own. The operators of other modules have ended before it starts."""
    made = Operator(operator_kubeconfig, tmp_path_factory.mktemp("killable"), lease="wild")
    yield made
    if made.alive:
        made.stop()


@pytest.fixture
def wild(fleet: Fleet, cluster: LocalCluster, _killable: Operator) -> Iterator[Wild]:
    """A fleet whose operator, and whatever it depends on, the test may kill; all of it works again afterwards."""
    made = Wild(fleet, cluster, _killable)
    made.revive()
    yield made
    cluster.start_apiserver()
    made.revive()  # the fleet is deleted next, and that takes an operator


@pytest.fixture(scope="session")
def _account(cluster: LocalCluster) -> Iterator[ec2.Account]:
    cluster.kubectl("create", "namespace", ec2.NAMESPACE)
    with Counterpart(ec2.kind()) as region:
        yield ec2.Account(cluster, region)


@pytest.fixture
def account(fleet: Fleet, _account: ec2.Account) -> Iterator[ec2.Account]:
    """An AWS account without faults and with good keys; its classes go with the test."""
    _account.ec2.faults.adopt(ec2.kind())
    _account.put_secret()
    yield _account
    _account.ec2.faults.adopt(ec2.kind())
    _account.put_secret()
    if fleet.all():
        fleet.kubectl("delete", "workspaces", "--all", "--timeout=60s", timeout=70)
    _account.delete_classes()
