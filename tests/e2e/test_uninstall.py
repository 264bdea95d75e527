"""Leaving in order: what is deleted goes, what is retained stays, and no finalizer holds a namespace back (I-87)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fleet import Fleet, until, workspace, workspace_class
from tests.support.manifests import process_images
from tests.support.operator import ROOT, Operator, uninstall
from tests.support.processes import room_of, state_of

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster of the module's own, because everything in it is removed."""
    with LocalCluster(tmp_path_factory.mktemp("uninstall") / "c", say=lambda text: None) as running:
        running.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
        running.kubectl("wait", "--for=condition=Established", "crd", "--all")
        yield running


@pytest.fixture
def settled(own: LocalCluster, tmp_path: Path) -> Iterator[tuple[Fleet, Operator, int]]:
    """An operator, a namespace with a running and a paused workspace, and the process id of the running one."""
    kubeconfig = own.service_account_kubeconfig("workspace-operator-system", "workspace-operator")
    own.kubectl("create", "namespace", "team")
    fleet = Fleet(own, "team")
    with Operator(kubeconfig, tmp_path) as operator:
        fleet.apply(workspace_class("p", process=process_images(tmp_path / "p"), identity={"mode": "None"}))
        fleet.apply(workspace("runs", image="sleep", className="p"))
        fleet.apply(workspace("sleeps", image="sleep", className="p", desiredState="Paused"))
        fleet.wait_ready()
        yield fleet, operator, room_of(fleet, "runs").pid
        if not operator.alive:
            operator.start()
        leftovers = own.kubectl("get", "namespaces", "-o", "name")
        if "namespace/team" in leftovers:
            own.kubectl("delete", "namespace", "team", "--timeout=60s", timeout=70)


def test_release_needs_an_operator_and_retain_needs_none(
    own: LocalCluster, settled: tuple[Fleet, Operator, int]
) -> None:
    """Both say so and change nothing; without --yes nothing happens either."""
    fleet, operator, pid = settled
    refused = uninstall(own, "--compute", "retain", "--yes")
    assert refused.returncode == 1 and "Scale it to zero" in refused.stderr
    asked = uninstall(own, "--compute", "release")
    assert asked.returncode == 1 and "--yes" in asked.stderr
    operator.stop()
    refused = uninstall(own, "--compute", "release", "--yes")
    assert refused.returncode == 1 and "No operator leads" in refused.stderr
    assert len(fleet.all()) == 2 and state_of(pid) is not None


def test_released_compute_goes_before_the_finalizers(own: LocalCluster, settled: tuple[Fleet, Operator, int]) -> None:
    """I-87, I-10: then the CRDs can be deleted, and the namespace with them."""
    fleet, _, pid = settled
    done = uninstall(own, "--compute", "release", "--yes")
    assert done.returncode == 0, done.stderr
    assert state_of(pid) is None
    assert "All workspaces are gone." in done.stdout and "All classes are gone." in done.stdout
    own.kubectl("delete", "namespace", fleet.namespace, "--timeout=60s", timeout=70)
    again = uninstall(own, "--compute", "release", "--yes")
    assert again.returncode == 0 and "nothing holds anything back" in again.stdout


def test_retained_compute_outlives_its_namespace(own: LocalCluster, settled: tuple[Fleet, Operator, int]) -> None:
    """I-87: a namespace deletes without an operator; what is left running is named."""
    fleet, operator, pid = settled
    operator.stop()
    done = uninstall(own, "--compute", "retain", "--yes")
    assert done.returncode == 0, done.stderr
    assert "team/runs: process instance" in done.stdout and "team/sleeps: has no instance" in done.stdout
    own.kubectl("delete", "namespace", fleet.namespace, "--timeout=60s", timeout=70)
    assert state_of(pid) is not None
    own.kubectl("delete", "workspaceclass", "p", "--timeout=10s")
    os.kill(pid, 9)
    until(lambda: state_of(pid) is None)
