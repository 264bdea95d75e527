"""The same wishes as pods: the whole operator with its own rights, on a real node, in namespaces that admit only the
restricted Pod Security Standard."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.support.agents import api_status
from tests.support.fleet import Fleet, Object, until, workspace
from tests.support.kubernetes import Pods, pod_class
from tests.support.manifests import LEASED
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster
from controlplane.nodes import Node, Nodes

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="a node needs root"),
]
CLASS = "pods"
DIRECTORY = "/var/run/secrets/workspace-operator.dev"
OFTEN = [{"name": "AGENT_LEASE_INTERVAL", "value": "1"}]
SLEEP = ["python", "-c", "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"]
REVOKED_WITHIN = 20  # seconds; the API server caches a good token for 10
SILENCE = 120  # the API server gives a silent node 30 s (components.py)


@pytest.fixture(scope="module")
def pods_class(cluster: LocalCluster, nodes: Nodes, node: Node) -> Iterator[str]:
    """The example's class; `shared` volumes can be had on every node."""
    fleet = Fleet(cluster, "default")
    fleet.apply(pod_class(nodes, CLASS, {"storageClassName": "shared"}))
    yield CLASS
    fleet.drop_classes(CLASS)


@pytest.fixture
def pods(fleet: Fleet, cluster: LocalCluster, pods_class: str, operator: Operator) -> Pods:
    cluster.kubectl("label", "namespace", fleet.namespace, "pod-security.kubernetes.io/enforce=restricted")
    return Pods(fleet)


def sleeper(name: str, **spec: object) -> Object:
    return workspace(name, className=CLASS, **{"command": SLEEP, **spec})


def test_a_life_as_a_pod(fleet: Fleet, cluster: LocalCluster, pods: Pods) -> None:
    """Ready by its own Lease with a token that the kubelet brought and that dies with the pod; data outlives every
    pod; nothing else is left (I-01, I-02, I-13, I-17, I-50, I-51)."""
    storage = {"mountPath": "/data", "size": "3Mi"}
    fleet.apply(workspace("researcher", className=CLASS, agent=LEASED, env=OFTEN, storage=storage))
    fleet.wait_ready("researcher", seconds=120)
    status = fleet.status("researcher")
    assert "credentials" not in status, "no token of the operator's making exists"
    pod = pods.only("researcher")
    assert status["instance"]["id"] == pod["metadata"]["name"]
    assert status["instance"]["node"] == pod["spec"]["nodeName"]
    assert status["endpoint"] == f"http://{pod['status']['podIP']}:8080"
    assert {"service/researcher", f"networkpolicy.networking.k8s.io/{pod['metadata']['name']}"} <= set(pods.left())
    token = pods.python("researcher", f"print(open('{DIRECTORY}/token').read(), end='')")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{fleet.namespace}/leases/workspace-researcher"
    assert api_status(cluster, token, lease) == 200
    assert fleet.kubectl("get", "pvc", "-o=jsonpath={.items[*].spec.resources.requests.storage}") == "3Mi"
    pods.python("researcher", "open('/data/note', 'w').write('kept')")

    fleet.desire("researcher", "Paused")
    fleet.wait_phase("researcher", "Paused")
    assert pods.of("researcher") == []
    assert (fleet.condition("researcher", "StopConfirmed") or {})["status"] == "True"
    until(lambda: api_status(cluster, token, lease) == 401, REVOKED_WITHIN)
    until(lambda: len(pods.left()) == 2, 30, lambda: str(pods.left()))  # claim and Service

    fleet.desire("researcher", "Running")
    fleet.wait_ready("researcher", seconds=120)
    assert fleet.status("researcher")["incarnation"] == 2
    assert pods.python("researcher", "print(open('/data/note').read())") == "kept\n"

    fleet.delete("researcher")
    assert pods.of("researcher") == []
    uid = pod["metadata"]["labels"]["workspace-operator.dev/workspace-uid"]
    claim = f"persistentvolumeclaim/wsp-{uid}-data"
    until(lambda: pods.left() == [claim], 30, lambda: str(pods.left()))


def test_pods_in_a_namespace_of_the_class(fleet: Fleet, cluster: LocalCluster, nodes: Nodes, pods: Pods) -> None:
    """Without ServiceAccount and owner the token is delivered, and all goes with the pod (I-13, I-50, I-51)."""
    name = f"apart-{fleet.namespace}"[:63]
    apart = Fleet(cluster, name)
    cluster.kubectl("create", "namespace", apart.namespace)
    cluster.kubectl("label", "namespace", apart.namespace, "pod-security.kubernetes.io/enforce=restricted")
    Fleet(cluster, "default").apply(pod_class(nodes, name, {"namespace": apart.namespace}))
    data = {"mountPath": "/data", "whenDeleted": "Delete"}
    fleet.apply(workspace("guest", className=name, agent=LEASED, env=OFTEN, storage=data))
    fleet.wait_ready("guest", seconds=120)
    assert fleet.status("guest")["credentials"]["secretName"] == "workspace-guest"
    assert pods.left() == ["secret/workspace-guest"], "the token's anchor"
    elsewhere = Pods(apart)
    token = elsewhere.python("guest", f"print(open('{DIRECTORY}/token').read(), end='')")
    fleet.delete("guest")
    assert elsewhere.of("guest") == []
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{fleet.namespace}/leases/workspace-guest"
    until(lambda: api_status(cluster, token, lease) == 401, REVOKED_WITHIN)
    until(lambda: elsewhere.left() == [], 30, lambda: str(elsewhere.left()))
    fleet.drop_classes(name)


def test_deletion_takes_data_along_where_that_is_asked(fleet: Fleet, pods: Pods) -> None:
    """I-10, I-13."""
    fleet.apply(sleeper("brief", storage={"whenDeleted": "Delete"}))
    fleet.wait_ready("brief", seconds=120)
    fleet.delete("brief")
    assert not [left for left in pods.left() if left.startswith(("pod/", "persistentvolumeclaim/"))]


def test_a_pod_that_somebody_deletes_comes_back_as_another(fleet: Fleet, pods: Pods) -> None:
    """I-08, I-40."""
    fleet.apply(sleeper("hit"))
    fleet.wait_ready("hit", seconds=120)
    first = pods.only("hit")["metadata"]["name"]
    fleet.kubectl("delete", "pod", first, "--timeout=60s", timeout=70)
    until(lambda: fleet.status("hit")["incarnation"] == 2 and fleet.phase("hit") == "Running", 60)
    assert pods.only("hit")["metadata"]["name"] != first


def test_what_keeps_a_pod_from_running_is_told(fleet: Fleet, pods: Pods) -> None:
    """Each with a reason of its own and a sentence that says what to do (I-28, I-32)."""
    fleet.apply(
        sleeper("nothing", image="workspace-operator/no-such-image:dev"),
        sleeper("greedy", command=["python", "-c", "b = bytearray(1 << 30)"], resources={"limits": {"memory": "64Mi"}}),
        sleeper("quitter", command=["python", "-c", "exit(3)"]),
        sleeper("typo", command=["/no/such/program"]),
    )
    told = {
        "nothing": ("ImageNotFound", "load it into the nodes"),
        "greedy": ("OutOfMemory", "more memory than its limit"),
        "quitter": ("InstanceExited", "exit code 3"),
        "typo": ("ProvisionFailed", "spec.command"),
    }
    for name, (reason, words) in told.items():
        assert words in fleet.wait_reason(name, reason)["message"]


def test_a_used_up_quota_is_told_and_what_waits_for_it_starts_after(fleet: Fleet, pods: Pods) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"pods": "0"}},
    }
    fleet.apply(quota)
    until(lambda: "status" in fleet.kubectl("get", "resourcequota", "small", "-o=json"), 30)
    fleet.apply(sleeper("waiting"))
    assert "ResourceQuota small is used up" in fleet.wait_reason("waiting", "QuotaExceeded")["message"]
    fleet.kubectl("delete", "resourcequota", "small")
    fleet.wait_ready("waiting", seconds=120)


def test_no_node_that_can_take_it_is_told(fleet: Fleet, pods: Pods, cluster: LocalCluster, node: Node) -> None:
    cluster.kubectl("cordon", node.name)
    try:
        fleet.apply(sleeper("homeless"))
        assert "unschedulable" in fleet.wait_reason("homeless", "Unschedulable")["message"]
    finally:
        cluster.kubectl("uncordon", node.name)
    fleet.wait_ready("homeless", seconds=120)


def lost(ready: Object | None) -> Object | None:
    return ready if ready is not None and ready["reason"] == "NodeLost" else None


def test_a_lost_node_makes_no_double_until_a_person_says_that_it_is_gone(
    fleet: Fleet, pods: Pods, cluster: LocalCluster, nodes: Nodes, node: Node, agent_archive: object
) -> None:
    """I-06, I-40: a silent node says nothing about its pods. Of the two ways to say so, the taint works sooner here: a
    deleted Node's pods go after a minute."""
    doomed = nodes.add("doomed")
    doomed.load(agent_archive)  # type: ignore[arg-type]
    cluster.kubectl("cordon", node.name)
    try:
        fleet.apply(sleeper("survivor", storage={"mountPath": "/data"}))
        fleet.wait_ready("survivor", seconds=120)
    finally:
        cluster.kubectl("uncordon", node.name)
    assert fleet.status("survivor")["instance"]["node"] == doomed.name
    doomed.power_off()

    def seen() -> str:
        shown = [f"{kind}: {cluster.kubectl('get', kind, '-A', '-o=yaml')}" for kind in ("nodes", "leases", "pods")]
        return "\n".join([str(fleet.status("survivor")), *shown])

    said = until(lambda: lost(fleet.condition("survivor", "Ready")), SILENCE, seen)
    assert said["status"] == "Unknown" and "delete its Node object" in said["message"]
    fleet.patch("survivor", restartToken="again")  # not even asked for does a second one start
    until(lambda: fleet.status("survivor").get("observedGeneration") == 2, 60)
    assert len(pods.of("survivor")) == 1
    cluster.kubectl("taint", "node", doomed.name, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
    until(lambda: fleet.phase("survivor") == "Running", SILENCE, lambda: str(fleet.status("survivor")))
    assert fleet.status("survivor")["instance"]["node"] == node.name
    cluster.kubectl("delete", "node", doomed.name)
