"""The local control plane keeps its promises: a real cluster, gone without a trace when stopped."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane import cluster as cluster_module
from controlplane.cluster import LocalCluster
from controlplane.current import CurrentCluster, connect
from controlplane.kubectl import ClusterError, KubectlError
from controlplane.processes import Process, free_port
from controlplane.state import State

pytestmark = pytest.mark.cluster
SOURCE = Path(cluster_module.__file__).resolve().parents[1]


def quiet(_line: str) -> None:
    pass


def eventually(condition: Callable[[], bool], within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return condition()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster"), say=quiet) as cluster:
        yield cluster


def test_kubectl_and_server_are_the_pinned_version(cluster: LocalCluster) -> None:
    assert cluster.kubectl("version").count("v1.36.3") == 2


def test_private_keys_are_readable_by_their_owner_only(cluster: LocalCluster) -> None:
    keys = [*cluster.directory.rglob("*.key"), cluster.kubeconfig]
    assert len(keys) >= 6
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_an_unknown_user_is_denied(cluster: LocalCluster) -> None:
    stranger = cluster.client_kubeconfig("stranger", ["nobody-special"])
    with pytest.raises(KubectlError, match="Forbidden"):
        cluster.kubectl("get", "secrets", kubeconfig=stranger)


def test_without_a_name_one_learns_only_that_it_is_healthy(cluster: LocalCluster) -> None:
    def get(path: str) -> str:
        code = (
            "import ssl, sys, http.client as h\n"
            "c = h.HTTPSConnection('127.0.0.1', int(sys.argv[1]),"
            " context=ssl.create_default_context(cafile=sys.argv[2]))\n"
            "c.request('GET', sys.argv[3]); print(c.getresponse().status)\n"
        )
        command = [sys.executable, "-c", code, str(cluster.port), str(cluster.ca_file), path]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert get("/readyz") == "200"
    assert get("/api/v1/namespaces") == "401"


def test_a_service_account_acts_with_its_token(cluster: LocalCluster) -> None:
    kubeconfig = cluster.service_account_kubeconfig("default", "default")
    assert "system:serviceaccount:default:default" in cluster.kubectl("auth", "whoami", kubeconfig=kubeconfig)


def test_deleting_the_secret_revokes_the_token_bound_to_it(cluster: LocalCluster) -> None:
    cluster.kubectl("create", "secret", "generic", "identity")
    bound = ("--bound-object-kind=Secret", "--bound-object-name=identity")
    token = cluster.kubectl("create", "token", "default", *bound).strip()

    def whoami() -> str:
        # An empty user: kubectl would rather use the administrator's certificate than the token.
        anonymous = cluster.directory / "nobody.kubeconfig"
        anonymous.write_text("")
        return cluster.kubectl(
            f"--server={cluster.server}",
            f"--certificate-authority={cluster.ca_file}",
            f"--token={token}",
            "auth",
            "whoami",
            kubeconfig=anonymous,
            check=False,
        )

    assert "system:serviceaccount:default:default" in whoami()
    cluster.kubectl("delete", "secret", "identity")
    # The API server remembers a good token for 10 s.
    assert eventually(lambda: "Unauthorized" in whoami(), within=15)


def test_a_deleted_namespace_goes_with_its_content(cluster: LocalCluster) -> None:
    cluster.kubectl("create", "namespace", "short-lived")
    cluster.kubectl("create", "configmap", "inside", "-n", "short-lived")
    cluster.kubectl("delete", "namespace", "short-lived", "--timeout=30s")
    assert "NotFound" in cluster.kubectl("get", "namespace", "short-lived", check=False)


def test_the_data_survives_a_restart_of_the_api_server(cluster: LocalCluster) -> None:
    cluster.kubectl("create", "configmap", "kept")
    server = cluster.server
    cluster.stop_apiserver()
    assert "refused" in cluster.kubectl("get", "configmap", "kept", check=False)
    cluster.start_apiserver()
    assert cluster.server == server
    assert "kept" in cluster.kubectl("get", "configmap", "kept")


def test_another_one_runs_beside_it_and_leaves_nothing_behind(cluster: LocalCluster, tmp_path: Path) -> None:
    other = LocalCluster(tmp_path / "other", say=quiet)
    other.start()
    processes = list(other.processes.values())
    assert other.port != cluster.port
    other.kubectl("create", "configmap", "only-there")
    assert "NotFound" in cluster.kubectl("get", "configmap", "only-there", check=False)
    other.stop()
    assert len(processes) == 3
    assert not any(process.alive for process in processes)
    assert not (tmp_path / "other").exists()
    assert cluster.running


def test_a_kept_directory_resumes_on_its_data(tmp_path: Path) -> None:
    first = LocalCluster(tmp_path / "kept", say=quiet)
    first.start()
    first.kubectl("create", "configmap", "kept")
    first.stop(keep=True)
    with LocalCluster(tmp_path / "kept", say=quiet) as second:
        assert "kept" in second.kubectl("get", "configmap", "kept")
    assert not (tmp_path / "kept").exists()


def test_a_port_taken_in_the_meantime_is_replaced(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = iter([cluster.port, *(free_port() for _ in range(5))])
    monkeypatch.setattr("controlplane.cluster.free_port", lambda _address="": next(offered))
    with LocalCluster(tmp_path / "crowded", say=quiet) as other:
        assert other.running
        assert other.port != cluster.port


def start_in_another_process(directory: Path, then: str) -> subprocess.Popen[str]:
    code = (
        "import sys, time, pathlib\n"
        "from controlplane.cluster import LocalCluster\n"
        f"cluster = LocalCluster(pathlib.Path(sys.argv[1])); cluster.start(); {then}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(directory)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killing_the_parent_takes_everything_down(tmp_path: Path) -> None:
    with start_in_another_process(tmp_path / "orphan", "time.sleep(300)") as parent:
        assert parent.stdout is not None
        assert any("cluster ready" in line for line in parent.stdout)
        state = State.load(tmp_path / "orphan" / "state.json")
        assert state is not None
        assert all(process.alive for process in state.processes.values())
        parent.send_signal(signal.SIGKILL)
    assert eventually(lambda: not any(process.alive for process in state.processes.values()), within=5)


def test_the_command_line_starts_one_that_stays_and_stops_it(tmp_path: Path) -> None:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "controlplane", command, f"--directory={tmp_path / 'cli'}"],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "CLUSTER": ""},
            capture_output=True,
            text=True,
            check=False,
        )

    assert f"export KUBECONFIG={tmp_path / 'cli' / 'kubeconfig'}" in run("start").stdout
    mine = LocalCluster(tmp_path / "cli")
    processes = list(mine.processes.values())
    assert len(processes) == 3
    assert run("status").returncode == 0
    assert run("stop").returncode == 0
    assert not any(process.alive for process in processes)
    assert not (tmp_path / "cli").exists()
    assert run("status").returncode == 1


def test_a_component_that_dies_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = LocalCluster(tmp_path / "broken", say=quiet)
    binary = str(broken._kubectl_binary().with_name("kube-apiserver"))
    monkeypatch.setattr("controlplane.components.apiserver", lambda *_: [binary, "--no-such-flag"])
    with pytest.raises(ClusterError, match=r"(?s)kube-apiserver ended while starting.*unknown flag: --no-such-flag"):
        broken.start()
    assert broken.processes == {}
    assert not (tmp_path / "broken").exists()


def test_a_directory_with_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(ClusterError, match="holds something else"):
        LocalCluster(tmp_path, say=quiet).start()
    LocalCluster(tmp_path, say=quiet).stop()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_reused_pid_is_not_taken_for_ours() -> None:
    myself = Process.of(os.getpid())
    assert myself is not None
    assert myself.alive
    assert not Process(myself.pid, myself.started + 1).alive


def test_the_current_context_is_used_and_never_touched(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTER", "current")
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setenv("PATH", str(cluster._kubectl_binary().parent), prepend=os.pathsep)
    with connect(tmp_path) as current:
        assert isinstance(current, CurrentCluster)
        monkeypatch.setenv("KUBECONFIG", "/nowhere")
        assert "default" in current.kubectl("get", "namespaces")
        bob = current.client_kubeconfig("bob")
        assert "Forbidden" in current.kubectl("get", "secrets", kubeconfig=bob, check=False)
    assert cluster.running
