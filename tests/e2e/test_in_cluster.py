"""The operator in a cluster: installed with Helm, two pods under their own ServiceAccount, upgraded and removed.

One story in the order of the file, on a cluster of its own: what Helm removes at the end is not this session's.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet, Object, until, workspace, workspace_class
from tests.support.helm import CHART, NAMESPACE, RELEASE, Helm, values_of
from tests.support.operator import ROOT

import operatorimage
from controlplane import pythonimage
from controlplane.cluster import LocalCluster
from controlplane.nodes import Nodes
from workspace_operator.kube.leader import LEASE_DURATION

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="a node needs root"),
]

PATIENCE = 180
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
VALUES: Object = {
    "image.tag": "dev",
    "image.pullPolicy": "Never",
    # Backend process writes here; each replica has a directory of its own, which ends with it.
    "extraVolumes": [{"name": "workspaces", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "workspaces", "mountPath": "/workspaces"}],
}
SLEEP = {"name": "sleep", "command": ["python", "-c", "import time; time.sleep(99999)"]}


class Installed:
    """A cluster with one node that has the operator's image, and Helm."""

    def __init__(self, cluster: LocalCluster, helm: Helm) -> None:
        self.cluster, self.helm = cluster, helm
        self.fleet = Fleet(cluster, "team")

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.cluster.kubectl("-n", NAMESPACE, *arguments, **more)

    def install(self, **changed: Any) -> str:
        """Install or upgrade, and wait until all replicas are ready."""
        values = values_of({**VALUES, **changed})
        command = ("upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--wait", "--timeout=300s")
        return self.helm(*command, *values, timeout=320)

    def pods(self) -> dict[str, Object]:
        """Those that are not on their way out."""
        listed = json.loads(self.kubectl("get", "pods", "-o=json"))["items"]
        return {pod["metadata"]["name"]: pod for pod in listed if "deletionTimestamp" not in pod["metadata"]}

    def lease(self) -> Object:
        found = self.kubectl("get", "lease", "workspace-operator", "--ignore-not-found", "-o=jsonpath={.spec}")
        return dict(json.loads(found or "{}"))

    def leader(self) -> str:
        """The pod that leads; empty between two."""
        return str(self.lease().get("holderIdentity") or "").partition("_")[0]

    def explain(self) -> str:
        logs = self.kubectl("logs", "--all-containers", "-l=app.kubernetes.io/component=operator", check=False)
        return f"{self.kubectl('describe', 'pods')}\n{self.lease()}\n{logs}"

    @contextmanager
    def recorded(self) -> Iterator[list[Object]]:
        """Every state of the Lease meanwhile."""
        spoken = ("get", "lease", "workspace-operator", "--watch", "-o=jsonpath={.spec}{'\\n'}")
        kubectl = [str(self.cluster._kubectl_binary()), f"--kubeconfig={self.cluster.kubeconfig}", "-n", NAMESPACE]
        states: list[Object] = []
        with subprocess.Popen([*kubectl, *spoken], stdout=subprocess.PIPE, text=True) as watch:
            try:
                yield states
            finally:
                watch.terminate()
                states += [json.loads(line) for line in (watch.stdout or ()) if line.strip()]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "operator.tar"
    pythonimage.save(operatorimage.RECIPE, path, say=lambda text: None)
    return path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Installed]:
    obstacle = Nodes.available()
    if obstacle is not None:
        pytest.fail(f"no node can be had here: {obstacle}")
    home = tmp_path_factory.mktemp("in-cluster")

    def quiet(_text: str) -> None:
        pass

    with LocalCluster(home / "c", say=quiet) as cluster, Nodes(cluster, home / "n", say=quiet) as nodes:
        nodes.add().load(archive)
        for name in (NAMESPACE, "team"):
            cluster.kubectl("create", "namespace", name)
        cluster.kubectl("label", "namespace", NAMESPACE, RESTRICTED)
        yield Installed(cluster, Helm(home / "helm", cluster.kubeconfig))


def test_two_replicas_run_and_one_leads(here: Installed) -> None:
    """As the least user there is, in a namespace that admits nothing more; the other is ready too."""
    notes = here.install()
    assert "kubectl -n workspace-operator-system rollout status" in notes
    pods = here.pods()
    assert len(pods) == 2
    assert {pod["spec"]["serviceAccountName"] for pod in pods.values()} == {"workspace-operator"}
    leader = until(here.leader, PATIENCE, here.explain)
    assert leader in pods
    look = "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/tmp', os.W_OK))"
    assert here.kubectl("exec", leader, "--", "python", "-c", look) == "65532 False True\n"


def test_it_does_what_it_is_for(here: Installed) -> None:
    """A workspace of backend process comes up inside the leader's pod, although no name resolves in this cluster."""
    spec = {"directory": "/workspaces", "images": [SLEEP]}
    here.fleet.apply(workspace_class("process", process=spec, stopGracePeriod="3s"))
    here.fleet.apply(workspace("sleeper", image="sleep", className="process"))
    until(lambda: here.fleet.phase("sleeper") == "Running", PATIENCE, here.explain)
    here.fleet.wait_ready("sleeper", seconds=PATIENCE)
    assert "True" in here.cluster.kubectl("get", "wsc", "process")
    assert "orbidden" not in here.kubectl("logs", here.leader())


def test_the_other_takes_over_when_the_leader_is_deleted(here: Installed) -> None:
    """And a third comes; the process that went with its pod is provisioned again."""
    first = here.leader()
    incarnation = here.fleet.status("sleeper")["incarnation"]
    here.kubectl("delete", "pod", first, "--wait=false")
    until(lambda: here.leader() not in ("", first), PATIENCE, here.explain)
    here.kubectl("rollout", "status", "deployment/workspace-operator", f"--timeout={PATIENCE}s", timeout=PATIENCE + 10)
    until(lambda: here.fleet.status("sleeper")["incarnation"] > incarnation, PATIENCE, here.explain)
    here.fleet.wait_ready("sleeper", seconds=PATIENCE)
    assert len(here.pods()) == 2


def test_an_upgrade_leaves_no_gap_in_the_lead(here: Installed) -> None:
    """By the Lease's own times: nobody had to wait for it to run out."""
    before = set(here.pods())
    with here.recorded() as states:
        here.install(**{"settings.logLevel": "DEBUG"})
        until(lambda: here.leader() not in ("", *before), PATIENCE, here.explain)
    assert not before & set(here.pods())
    takeovers = 0
    for earlier, later in itertools.pairwise(states):
        gap = time_of(later, "renewTime") - time_of(earlier, "renewTime")
        assert gap < LEASE_DURATION, states
        if later["leaseTransitions"] > earlier.get("leaseTransitions", 0):
            takeovers += 1
            assert earlier["holderIdentity"] == "", "it was given back, and not left to run out"
    assert takeovers >= 1
    here.fleet.wait_ready("sleeper", seconds=PATIENCE)


def time_of(lease: Object, field: str) -> float:
    return datetime.fromisoformat(lease[field]).timestamp()


def test_an_uninstall_leaves_definitions_and_workspaces(here: Installed) -> None:
    """And says so; installed again, the operator goes on with them."""
    said = here.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout=300s", timeout=320)
    assert "kept due to the resource policy" in said
    for plural in ("delegations", "workspaces", "workspaceclasses"):
        assert f"{plural}.workspace-operator.dev" in said
    assert here.kubectl("get", "deployments,services,serviceaccounts", "-o=name").split() == ["serviceaccount/default"]
    assert "workspace-operator" not in here.cluster.kubectl("get", "clusterroles,clusterrolebindings", "-o=name")
    assert here.fleet.get("sleeper")["metadata"]["finalizers"]
    here.install()
    here.fleet.delete("sleeper", seconds=PATIENCE)


def test_kustomize_takes_over_from_helm(here: Installed) -> None:
    """`kubectl apply -k deploy/overlays/local`: one replica, which leads."""
    here.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout=300s", timeout=320)
    here.cluster.kubectl("apply", "-k", str(ROOT / "deploy" / "overlays" / "local"))
    here.kubectl("rollout", "status", "deployment/workspace-operator", f"--timeout={PATIENCE}s", timeout=PATIENCE + 10)
    (pod,) = here.pods()
    until(lambda: here.leader() == pod, PATIENCE, here.explain)
    here.fleet.apply(workspace_class("elsewhere", docker={"host": "tcp://127.0.0.1:2376"}))
    until(lambda: "Unreachable" in here.cluster.kubectl("get", "wsc", "elsewhere"), PATIENCE, here.explain)
