"""The same wishes on EC2: the whole operator against moto's server behind our fault proxy; no real AWS can run here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.backends.ec2_kit import SECRET, Lab
from tests.ec2.counterpart import Counterpart, Faults, Rule
from tests.support.fleet import Fleet, until, workspace, workspace_class
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster

QUICK = {"pending": 0.3, "stopping": 0.3, "shutting_down": 0.3}


@pytest.fixture(scope="module")
def ec2() -> Iterator[Counterpart]:
    with Counterpart(Faults(seed=7, **QUICK)) as counterpart:
        yield counterpart


@pytest.fixture(scope="module")
def ec2_class(cluster: LocalCluster, ec2: Counterpart) -> Iterator[str]:
    """A class on the counterpart, with its credentials in a Secret."""
    lab, admin = Lab(ec2), Fleet(cluster, "default")
    cluster.kubectl("create", "namespace", SECRET.namespace)
    literals = [f"--from-literal={key}={value.decode()}" for key, value in lab.keys.items()]
    cluster.kubectl("-n", SECRET.namespace, "create", "secret", "generic", SECRET.name, *literals)
    block = lab.block().model_dump(mode="json", by_alias=True, exclude_none=True)
    identity = {"mode": "None"}
    admin.apply(workspace_class("ec2", ec2=block, identity=identity, observeInterval="1s", stopGracePeriod="2s"))
    yield "ec2"
    admin.kubectl("delete", "workspaceclass", "ec2")


def test_a_pause_stops_the_machine_and_a_stop_terminates_it(
    fleet: Fleet, operator: Operator, ec2: Counterpart, ec2_class: str
) -> None:
    """What EC2 itself shows, not what the row says (I-01, I-02, I-23)."""
    fleet.apply(workspace("one", className=ec2_class, storage={"whenDeleted": "Delete"}))
    fleet.wait_ready("one")
    first = fleet.status("one")["instance"]["id"]
    fleet.desire("one", "Paused")
    fleet.wait_phase("one", "Paused")
    assert ec2.instance(first).state == "stopped"
    fleet.desire("one", "Running")
    fleet.wait_phase("one", "Running")
    assert fleet.status("one")["instance"]["id"] == first, "a resume keeps the machine"
    fleet.desire("one", "Stopped")
    fleet.wait_phase("one", "Stopped")
    assert ec2.instance(first).state == "terminated"
    fleet.desire("one", "Running")
    fleet.wait_phase("one", "Running")
    second = fleet.status("one")["instance"]["id"]
    assert second != first
    fleet.delete("one")
    assert ec2.instance(second).state == "terminated"


def test_lost_answers_late_listings_and_a_killed_operator_never_make_two(
    fleet: Fleet, operator: Operator, ec2: Counterpart, ec2_class: str
) -> None:
    """Every second answer of RunInstances is lost and Describe is late (I-05, I-06, I-08)."""
    ec2.faults.lost, ec2.faults.describe_delay = Rule("RunInstances", every=2), 1.0
    names = [f"many-{number}" for number in range(6)]
    fleet.apply(*(workspace(name, className=ec2_class) for name in names))
    until(lambda: ec2.count("RunInstances") >= 2, 30)
    operator.kill()
    operator.start()
    fleet.wait_ready(*names, seconds=120)
    assert max(ec2.max_alive_per("workspace-operator.dev/workspace-uid").values()) == 1
    ec2.faults.lost, ec2.faults.describe_delay = None, 0.0
    fleet.delete(*names, seconds=120)
