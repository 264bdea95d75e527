"""Two control planes and two operators share one Docker engine: neither touches what is the other's (I-15)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from tests.support.containers import Containers
from tests.support.fleet import Fleet, until, workspace, workspace_class
from tests.support.manifests import IDLE_COMMAND
from tests.support.operator import ROOT, Operator

from controlplane.cluster import LocalCluster
from controlplane.engine import DockerEngine
from workspace_operator.api import meta

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

QUICK = {"interval": "5s", "gracePeriod": "2s"}


class Side:
    """One cluster with its operator and its fleet."""

    def __init__(self, cluster: LocalCluster, operator: Operator) -> None:
        self.operator, self.fleet = operator, Fleet(cluster, "default")
        self.id = cluster.kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")

    def leak(self, name: str) -> None:
        """Lose a workspace while the operator is away."""
        self.operator.stop()
        self.fleet.kubectl("patch", "workspace", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        self.fleet.kubectl("delete", "workspace", name)
        self.operator.start()


@pytest.fixture
def sides(tmp_path: Path, engine: DockerEngine, agent_image: str) -> Iterator[list[Side]]:
    """Both use the same engine, the same class name and the same workspace names."""
    with ExitStack() as stack:
        made = []
        for number in (1, 2):
            cluster = stack.enter_context(LocalCluster(tmp_path / f"c{number}", say=lambda text: None))
            cluster.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
            cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
            kubeconfig = cluster.service_account_kubeconfig("workspace-operator-system", "workspace-operator")
            (directory := tmp_path / f"o{number}").mkdir()
            made.append(Side(cluster, stack.enter_context(Operator(kubeconfig, directory))))
        for side in made:
            docker = {"host": engine.host, "pullPolicy": "Never"}
            side.fleet.apply(
                workspace_class("docker", docker=docker, identity={"mode": "None"}, sweep=QUICK, observeInterval="2s")
            )
            names = ("kept", "lost")
            side.fleet.apply(
                *(workspace(n, className="docker", command=IDLE_COMMAND, image=agent_image) for n in names)
            )
        for side in made:
            side.fleet.wait_ready()
        yield made
        for side in made:
            side.fleet.delete("kept")


def test_each_sweeps_its_own(sides: list[Side], containers: Containers) -> None:
    """I-15: the leak of one is removed by its own operator, and everything of the other stays."""
    one, other = sides
    listing = partial(containers.client.containers.list, ignore_removed=True)

    def shown(side: Side) -> set[str]:
        return {c.id for c in listing(all=True, filters={"label": f"{meta.LABEL_CLUSTER}={side.id}"})}

    before = shown(other)
    assert len(before) == len(shown(one)) == 2
    one.leak("lost")
    until(lambda: len(shown(one)) == 1, 60, one.operator.tail)
    assert shown(other) == before
    assert all(c.status == "running" for c in listing(all=True, filters={"label": f"{meta.LABEL_CLUSTER}={other.id}"}))
    other.leak("lost")
    until(lambda: len(shown(other)) == 1, 60, other.operator.tail)
    assert len(shown(one)) == 1
    assert [side.fleet.phase("kept") for side in sides] == ["Running", "Running"]
