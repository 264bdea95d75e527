"""Nodes die, come back and are cut off like real ones, and leave nothing behind; fake ones only say that they run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fleet import until
from tests.support.pods import Space, pod

from controlplane import leftovers, network
from controlplane import nodes as module
from controlplane.cluster import LocalCluster
from controlplane.fakenodes import SELECTOR, TOLERATION, FakeNodes
from controlplane.machine import SETTINGS
from controlplane.network import Slot
from controlplane.nodes import Node, NodeError, Nodes

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="a node needs root"),
]
SOURCE = Path(module.__file__).resolve().parents[1]
#: The API server gives a silent node 30 s (components.py).
SILENCE = 120


def quiet(_line: str) -> None:
    pass


def settings() -> list[str]:
    """What a kubelet changes where it can, and what a network of pods needs."""
    return [Path("/proc/sys", name).read_text() for name in (*SETTINGS, "net/ipv4/ip_forward")]


def traces(slot: Slot, directory: Path) -> list[str]:
    """Whatever of nodes is still on this machine."""
    everything = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [
        *(f"process {entry.name}" for entry in everything if str(directory) in _mounts_seen_by(entry)),
        *(f"mount {point}" for point in leftovers.mounts(directory) + leftovers.mounts(slot.run)),
        *(f"device {path.name}" for path in Path("/sys/class/net").glob(f"{slot.name}*")),
        *(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{slot.name}")),
        *(str(path) for path in (slot.run, directory) if path.exists()),
    ]


def _mounts_seen_by(entry: Path) -> str:
    """A node's processes, those of its pods included, see its directory mounted; nobody else does."""
    try:
        return (entry / "mountinfo").read_text()
    except OSError:
        return ""


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """One whose nodes may be treated badly."""
    with LocalCluster(tmp_path / "c", say=quiet) as running:
        yield running


def test_dead_and_cut_off_nodes_look_alike_and_both_come_back(own_cluster: LocalCluster, tmp_path: Path) -> None:
    """Pods of the one are gone, pods of the other go on: a second instance of these would be a double."""
    before = settings()
    with Nodes(own_cluster, tmp_path / "n", say=quiet) as nodes:
        dead, cut = nodes.add(), nodes.add()
        space = Space(own_cluster, "life")
        beats = {node.name: _clock(space, node, tmp_path) for node in (dead, cut)}
        dead.power_off()
        cut.disconnect()
        until(lambda: not dead.ready and not cut.ready, SILENCE)
        seen = {name: beat.read_text() for name, beat in beats.items()}
        until(lambda: beats[cut.name].read_text() not in ("", seen[cut.name]), 60)
        assert beats[dead.name].read_text() == seen[dead.name]
        cut.reconnect()
        dead.start()
        assert dead.ready
        until(lambda: cut.ready, SILENCE)
        restarts = "-o=jsonpath={.items[*].status.containerStatuses[0].restartCount}"
        until(lambda: space("get", "pod", dead.name, cut.name, restarts) == "1 0", SILENCE)
        until(lambda: beats[dead.name].read_text() not in ("", seen[dead.name]), 60)
        slot = network.held_by(nodes.directory)
        assert slot is not None
        assert len(traces(slot, nodes.directory)) > 10
    assert traces(slot, tmp_path / "n") == []
    assert settings() == before


def _clock(space: Space, node: Node, directory: Path) -> Path:
    """A pod on the node, named as it is, that writes the time into this file of ours."""
    space.admit("privileged")
    written = directory / f"beat-of-{node.name}"
    written.touch()
    written.chmod(0o666)
    container = {
        "command": ["sh", "-c", "while true; do cat /proc/uptime > /beat; sleep 1; done"],
        "volumeMounts": [{"name": "beat", "mountPath": "/beat"}],
    }
    volumes = [{"name": "beat", "hostPath": {"path": str(written), "type": "File"}}]
    space.run(pod(node.name, container=container, volumes=volumes, nodeName=node.name))
    until(written.read_text, 60)
    return written


def test_the_next_nodes_remove_what_a_killed_process_left(own_cluster: LocalCluster, tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from controlplane.cluster import LocalCluster\n"
        "from controlplane.nodes import Nodes\n"
        "cluster = LocalCluster(pathlib.Path(sys.argv[1])); cluster.start()\n"
        "nodes = Nodes(cluster, pathlib.Path(sys.argv[2])); nodes.add()\n"
        "cluster.kubectl('run', 'sleeper', '--image=workspace-operator/busybox:dev')\n"
        "cluster.kubectl('wait', '--for=condition=Ready', 'pod/sleeper', '--timeout=60s', timeout=70)\n"
        "print('pod runs', flush=True); time.sleep(300)\n"
    )
    killed = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "cluster"), str(killed)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert any("pod runs" in line for line in parent.stdout)
        slot = network.held_by(killed)
        assert slot is not None
        first = leftovers.machines(slot)
        parent.send_signal(signal.SIGKILL)
    # Even without anybody's help nothing of it runs on: neither the node nor the pod.
    until(lambda: not any(process.alive for process in first), 30)
    assert not [trace for trace in traces(slot, killed) if trace.startswith(("process", "mount"))]
    with Nodes(own_cluster, tmp_path / "next", say=quiet) as nodes:
        nodes.add()
        assert not killed.exists()
        if network.held_by(nodes.directory) != slot:
            assert traces(slot, killed) == []


def test_a_directory_with_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    nodes = Nodes(LocalCluster(tmp_path / "never-started", say=quiet), tmp_path, say=quiet)
    with pytest.raises(NodeError, match="holds something else"):
        nodes.add()
    nodes.stop()
    assert (tmp_path / "precious").read_text() == "mine"


def test_the_command_line_starts_nodes_that_stay_and_stops_them(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "controlplane", *arguments, f"--directory={tmp_path / 'cli'}"],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "CLUSTER": ""},
            capture_output=True,
            text=True,
            check=False,
        )

    directory = tmp_path / "cli-nodes"
    assert "node-1 ready" in run("start", "--nodes=1", "--fake-nodes=2").stdout
    slot = network.held_by(directory)
    assert slot is not None
    archive = directory / "node-1" / "busybox.tar"
    assert run("load", str(archive)).stdout == "node-1 has busybox.tar\n"
    assert "node-1: " in run("status").stdout
    assert "starting node-2" in run("start", "--nodes=2").stdout
    assert run("stop").returncode == 0
    assert traces(slot, directory) == []
    assert not (tmp_path / "cli").exists()


def test_pods_that_ask_for_fake_nodes_run_there_and_others_do_not(
    cluster: LocalCluster, fake_nodes: FakeNodes, space: Space
) -> None:
    placed = [pod(f"placed-{i}", nodeSelector=SELECTOR, tolerations=[TOLERATION]) for i in range(20)]
    space.apply(*placed, pod("elsewhere", nodeSelector=SELECTOR))
    until(lambda: space("get", "pods", "--no-headers").count("1/1") == len(placed), 120)
    assert space("get", "pod", "elsewhere", "-o=jsonpath={.status.phase}{.spec.nodeName}") == "Pending"
    hosts = space("get", "pods", "-o=jsonpath={.items[*].spec.nodeName}").split()
    assert set(hosts) <= set(fake_nodes.names)
    addresses = space("get", "pods", "-o=jsonpath={.items[*].status.podIP}").split()
    assert len(set(addresses)) == len(placed)
    space("delete", "pods", "--all", "--wait=false")
    until(lambda: space("get", "pods", "--no-headers") == "", 120)
    # Its watches were refused once: it then lists, up to a minute late.
    assert "a watch stream was requested" not in cluster.log("kwok").read_text()
