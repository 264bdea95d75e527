"""Pods truly run on a node: the agent serves, logs and obeys, limits bite, volumes keep what is written."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest
from tests.support.fleet import until
from tests.support.pods import AGENT, CARD, Space, pod

from controlplane.nodes import Node, Nodes

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="a node needs root"),
]
SLEEP = ["python", "-c", "import time; time.sleep(9999)"]


def claim(name: str, storage_class: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": storage_class,
        },
    }


def test_the_agent_serves_and_ends_in_time(node: Node, space: Space) -> None:
    probe = {"httpGet": {"path": CARD, "port": 8080}, "periodSeconds": 1, "failureThreshold": 60}
    container = {"readinessProbe": probe, "env": [{"name": "WORKSPACE_NAME", "value": "boxed"}]}
    running = space.run(pod("agent", AGENT, container=container, terminationGracePeriodSeconds=60))
    with urllib.request.urlopen(f"http://{running['status']['podIP']}:8080{CARD}", timeout=20) as answer:
        assert json.load(answer)["name"] == "boxed"
    assert space("exec", "agent", "--", "python", "-c", "import os; print(os.getuid())") == "10001\n"
    # It obeys SIGTERM: otherwise only the end of its grace would end it.
    space("delete", "pod", "agent", "--timeout=50s", timeout=60)


def test_a_pod_reaches_pods_and_the_api_server(node: Node, nodes: Nodes, space: Space) -> None:
    serve = ["sh", "-c", "echo open && exec nc -ll -p 8080 -e id"]
    address = space.run(pod("server", container={"command": serve}))["status"]["podIP"]
    until(lambda: space("logs", "server") == "open\n", 60)
    space.run(pod("client", AGENT, container={"command": SLEEP}))

    def client(code: str, *arguments: str) -> str:
        return space("exec", "client", "--", "python", "-c", code, *arguments)

    connect = "import socket, sys; print(socket.create_connection((sys.argv[1], 8080), 20).recv(9))"
    until(lambda: "uid=10001" in space("exec", "client", "--", "python", "-c", connect, address, check=False), 60)
    ask = (
        "import ssl, sys, urllib.request as u\n"
        "d = '/var/run/secrets/kubernetes.io/serviceaccount/'\n"
        "r = u.Request(sys.argv[1] + '/api', headers={'Authorization': 'Bearer ' + open(d + 'token').read()})\n"
        "print(u.urlopen(r, timeout=20, context=ssl.create_default_context(cafile=d + 'ca.crt')).status)\n"
    )
    # As programs in a cluster find it, and at this machine's own address.
    for server in ("https://10.96.0.1", nodes.server):
        assert client(ask, server) == "200\n"


def test_a_kubelet_may_act_for_itself_only(node: Node, nodes: Nodes, space: Space) -> None:
    kubelet = node.machine.directory / "kubelet.kubeconfig"
    assert "Forbidden" in space("get", "secrets", kubeconfig=kubelet, check=False)
    label = ("label", "node", "another", "mine=yes")
    assert "Forbidden" in space(*label, kubeconfig=kubelet, check=False)


def test_too_much_memory_is_a_reason(node: Node, space: Space) -> None:
    container = {
        "command": ["python", "-c", "b = bytearray(1 << 30)"],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    space.apply(pod("greedy", AGENT, container=container, restartPolicy="Never"))
    until(lambda: space.state("greedy", "terminated") == "OOMKilled", 120, lambda: space("get", "pods", "-o=yaml"))


def test_an_image_that_no_node_has_is_a_reason(node: Node, space: Space) -> None:
    space.apply(pod("nothing", "workspace-operator/no-such-image:dev"))
    until(lambda: space.state("nothing", "waiting") == "ErrImageNeverPull", 120)


@pytest.mark.parametrize("storage_class", ["local", "shared"])
def test_a_claim_keeps_what_is_written_until_it_is_deleted(
    node: Node, nodes: Nodes, space: Space, storage_class: str
) -> None:
    space.apply(claim("data", storage_class))
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "scratch", "mountPath": "/scratch"}]
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "scratch", "emptyDir": {}}]

    def run(name: str, shell: str) -> None:
        command = ["sh", "-c", f"{shell} && sleep 9999"]
        space.run(pod(name, container={"command": command, "volumeMounts": mounts}, volumes=volumes))

    run("writer", "echo kept > /data/note && echo gone > /scratch/note")
    space("delete", "pod", "writer")
    run("reader", "true")
    assert space("exec", "reader", "--", "cat", "/data/note") == "kept\n"
    assert space("exec", "reader", "--", "ls", "/scratch") == ""
    name = space("get", "pvc", "data", "-o=jsonpath={.spec.volumeName}")
    directory: Path = nodes.volumes / name
    assert (directory / "note").read_text() == "kept\n"
    space("delete", "pod", "reader")
    space("delete", "pvc", "data")
    until(lambda: space("get", "pv", name, "--ignore-not-found") == "", 60)
    assert not directory.exists()


def test_a_directory_of_this_machine_is_mounted(node: Node, nodes: Nodes, space: Space, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("from outside\n")
    tmp_path.chmod(0o755)
    space.admit("privileged")
    volumes = [{"name": "host", "hostPath": {"path": str(tmp_path), "type": "Directory"}}]
    mounts = [{"name": "host", "mountPath": "/host", "readOnly": True}]
    space.run(pod("reader", container={"volumeMounts": mounts}, volumes=volumes))
    assert space("exec", "reader", "--", "cat", "/host/note") == "from outside\n"
