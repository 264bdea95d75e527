"""One fault at the one moment where it hurts most; a storm meets these by luck only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.apifaults import ApiFaults
from tests.chaos.apiserver import ApiServer
from tests.chaos.witness import census
from tests.ec2.counterpart import Rule
from tests.support.fleet import Fleet, until, workspace
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster

LEASE = "lone"


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[ApiServer]:
    spared = (f"leases/workspace-operator-system/{LEASE}",)
    with ApiServer(cluster.server, cluster.ca_file, ApiFaults(exempt=spared)) as running:
        yield running


@pytest.fixture
def operator(proxy: ApiServer, operator_kubeconfig: Path, tmp_path: Path, fleet: Fleet) -> Iterator[Operator]:
    """One behind the proxy; it ends before its fleet does not."""
    through = proxy.kubeconfig(operator_kubeconfig, tmp_path / "kubeconfig")
    with Operator(through, tmp_path, lease=LEASE) as running:
        yield running
        proxy.heal()
        if not running.alive:
            running.start()
        fleet.kubectl("delete", "workspaces", "--all", "--timeout=60s", timeout=70)


@pytest.fixture(autouse=True)
def no_counts(proxy: ApiServer) -> None:
    proxy.faults.injected.clear()


def test_a_conflict_when_the_finalizer_is_put_on(
    fleet: Fleet, proxy: ApiServer, operator: Operator, process_class: str
) -> None:
    """kopf gives up, and nothing else happens to the object that would wake anybody."""
    proxy.faults.conflict = Rule("patch workspaces", times=1)
    fleet.apply(workspace("w", className=process_class, image="sleep"))
    fleet.wait_ready("w")
    assert proxy.faults.injected["conflict"] == 1


@pytest.mark.parametrize("times", [1, 2, 3])
def test_conflicts_when_the_finalizer_is_taken_off(
    fleet: Fleet, proxy: ApiServer, operator: Operator, process_class: str, times: int
) -> None:
    """The same at the other end: the object would stay for ever."""
    fleet.apply(workspace("w", className=process_class, image="sleep"))
    fleet.wait_ready("w")
    proxy.faults.conflict = Rule("patch workspaces", times=times)
    fleet.delete("w")
    assert proxy.faults.injected["conflict"] == times


def test_a_stale_list_at_the_start_shows_a_workspace_that_is_gone(
    fleet: Fleet, proxy: ApiServer, operator: Operator, process_class: str
) -> None:
    """A start was on record, so no write would fail before the backend is asked; nothing is started (I-11)."""
    silent = {"port": 8080, "probe": "TCP"}  # nobody listens: the start is never over
    fleet.apply(workspace("w", className=process_class, image="sleep", agent=silent))
    fleet.wait_reason("w", "WaitingForAgent")
    metadata = fleet.get("w")["metadata"]
    fleet.delete("w")
    operator.stop()
    fleet.apply(workspace("fence", className=process_class, image="sleep"))
    proxy.faults.stale = Rule("list workspaces", code=metadata["resourceVersion"])
    operator.start()
    until(lambda: proxy.faults.injected["stale"])
    fleet.wait_ready("fence")  # it came by the watch, after everything that the list had shown
    assert metadata["uid"] not in census()
