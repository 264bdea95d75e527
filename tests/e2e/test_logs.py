"""``workspace-operator logs`` as a person runs it: one call for every backend, and a sentence when there is nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.fleet import Fleet, until, workspace, workspace_class
from tests.support.operator import ROOT, Operator

from controlplane.cluster import LocalCluster
from demo.standin import SECRET, StandIn

pytestmark = pytest.mark.cluster

LINES = "".join(f"line {number}\n" for number in range(1, 6))
TALK = ["-S", "-c", "import signal; [print('line', n, flush=True) for n in range(1, 6)]; signal.pause()"]
ALLOWED = {
    "workspaces.workspace-operator.dev": "get",
    "workspaceclasses.workspace-operator.dev": "list",
    "namespaces": "get",
}


def logs(kubeconfig: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workspace_operator", "logs", *arguments]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(ROOT / "operator")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def refused(kubeconfig: Path | str, *arguments: str) -> str:
    """The one line on stderr of a call that shows nothing."""
    done = logs(kubeconfig, *arguments)
    assert (done.returncode, done.stdout) == (1, ""), done
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def process_logs(cluster: LocalCluster, tmp_path: Path) -> Iterator[tuple[str, str]]:
    images = [{"name": "talker", "command": [sys.executable]}]
    block = {"directory": str(tmp_path / "workspaces"), "images": images, "allowCommand": True}
    admin = Fleet(cluster, "default")
    admin.apply(workspace_class("logs-process", process=block, stopGracePeriod="3s"))
    yield "logs-process", sys.executable
    admin.drop_classes("logs-process")


@pytest.fixture
def docker_logs(docker_class: str) -> tuple[str, str]:
    return docker_class, "/usr/local/bin/python"


@pytest.fixture
def ec2_logs(cluster: LocalCluster, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The example's class on the demo's stand-in for AWS, whose machines write a console."""
    standin = StandIn(tmp_path)
    standin.begin()
    try:
        standin.wait()
        spec = yaml.safe_load((ROOT / "deploy" / "examples" / "class-ec2.yaml").read_text())["spec"]
        standin.point(spec)
        admin = Fleet(cluster, "default")
        cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(standin.secret()))
        admin.apply(workspace_class("logs-ec2", **{**spec, "allowedImages": [], "stopGracePeriod": "3s"}))
        yield "logs-ec2", sys.executable
        admin.drop_classes("logs-ec2")
    finally:
        standin.end()


@pytest.mark.engine
@pytest.mark.parametrize("backend", ["process", "docker", "ec2"])
def test_one_call_shows_the_output_on_every_backend(
    backend: str, request: pytest.FixtureRequest, cluster: LocalCluster, operator: Operator
) -> None:
    """While it runs and while it is paused; the operator's own log has nothing of it."""
    class_name, python = request.getfixturevalue(f"{backend}_logs")
    fleet: Fleet = request.getfixturevalue("fleet")  # after the class, so that its workspaces go before the class
    image: dict[str, Any] = {"image": "talker"} if backend == "process" else {}
    fleet.apply(workspace("talker", className=class_name, command=[python, *TALK], **image))
    fleet.wait_ready("talker")
    call = (cluster.kubeconfig, "talker", "-n", fleet.namespace)
    until(lambda: logs(*call).stdout == LINES, 60, lambda: str(logs(*call)))
    last = logs(*call, "--tail", "2")
    assert (last.returncode, last.stdout, last.stderr) == (0, "line 4\nline 5\n", "")
    fleet.desire("talker", "Paused")
    fleet.wait_phase("talker", "Paused")
    assert logs(*call).stdout == LINES
    assert "line 5" not in operator.all_logs()
    fleet.delete("talker")


def test_what_is_stopped_has_no_logs(
    process_logs: tuple[str, str], fleet: Fleet, cluster: LocalCluster, operator: Operator
) -> None:
    name, python = process_logs
    fleet.apply(workspace("idle", className=name, image="talker", command=[python, *TALK], desiredState="Stopped"))
    fleet.wait_phase("idle", "Stopped")
    told = refused(cluster.kubeconfig, "idle", "-n", fleet.namespace)
    assert "has no instance" in told
    assert "spec.desiredState to Running" in told
    fleet.delete("idle")


def test_the_namespace_is_the_contexts(fleet: Fleet, cluster: LocalCluster, tmp_path: Path) -> None:
    """No operator runs in the tests below: nothing but the API server and the backend is asked."""
    mine = tmp_path / "kubeconfig"
    shutil.copy(cluster.kubeconfig, mine)
    assert "no workspace 'nobody' in namespace 'default'" in refused(mine, "nobody")
    cluster.kubectl("config", "set-context", "--current", f"--namespace={fleet.namespace}", kubeconfig=mine)
    assert f"no workspace 'nobody' in namespace '{fleet.namespace}'" in refused(mine, "nobody")
    assert "no workspace 'nobody' in namespace 'other'" in refused(mine, "nobody", "-n", "other")


def test_a_class_that_does_not_exist(fleet: Fleet, cluster: LocalCluster) -> None:
    fleet.apply(workspace("stray", className="nowhere"))
    told = refused(cluster.kubeconfig, "stray", "-n", fleet.namespace)
    assert "WorkspaceClass 'nowhere'" in told
    assert "create it" in told


def test_an_engine_that_is_away(fleet: Fleet, cluster: LocalCluster, tmp_path: Path) -> None:
    Fleet(cluster, "default").apply(workspace_class("logs-away", docker={"host": f"unix://{tmp_path}/none.sock"}))
    fleet.apply(workspace("far", className="logs-away"))
    told = refused(cluster.kubeconfig, "far", "-n", fleet.namespace)
    assert "none.sock" in told
    assert "from this machine" in told
    fleet.drop_classes("logs-away")


def test_a_secret_that_the_caller_may_not_read(fleet: Fleet, cluster: LocalCluster) -> None:
    """The sentence names the Secret and the way out; who may read it is told nothing of its content either (I-53)."""
    hidden = "hidden-from-everyone"
    fleet.kubectl("create", "secret", "generic", "tls", f"--from-literal=ca.crt={hidden}")
    block = {"host": "tcp://127.0.0.1:9", "tlsSecretRef": {"namespace": fleet.namespace, "name": "tls"}}
    Fleet(cluster, "default").apply(workspace_class("logs-tls", docker=block))
    fleet.apply(workspace("guarded", className="logs-tls"))
    for resource, verb in ALLOWED.items():
        role = f"logs-{resource.partition('.')[0]}"
        cluster.kubectl("create", "clusterrole", role, f"--verb={verb}", f"--resource={resource}")
        cluster.kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", "--user=reader")
    told = refused(cluster.client_kubeconfig("reader"), "guarded", "-n", fleet.namespace)
    assert f"The right to get Secret 'tls' in namespace '{fleet.namespace}'" in told
    assert "the operator's own has it" in told
    told = refused(cluster.kubeconfig, "guarded", "-n", fleet.namespace)
    assert "lacks tls.crt" in told
    assert hidden not in told
    for kind in ("clusterrole", "clusterrolebinding"):
        cluster.kubectl("delete", kind, *(f"logs-{resource.partition('.')[0]}" for resource in ALLOWED))
    fleet.drop_classes("logs-tls")


def test_a_caller_without_any_right(cluster: LocalCluster) -> None:
    told = refused(cluster.client_kubeconfig("nobody-at-all"), "any")
    assert "forbidden" in told
    assert "Use a kubeconfig with that right" in told


def test_an_api_server_that_is_away_and_no_kubeconfig_at_all(cluster: LocalCluster, tmp_path: Path) -> None:
    away = tmp_path / "kubeconfig"
    away.write_text(cluster.kubeconfig.read_text().replace(cluster.server, "https://127.0.0.1:9"))
    assert "https://127.0.0.1:9" in refused(away, "any")
    assert "set KUBECONFIG" in refused(tmp_path / "none", "any")
    broken = tmp_path / "broken"
    broken.write_text("a: [")
    assert "set KUBECONFIG" in refused(broken, "any")


def test_the_credentials_of_a_class_that_are_gone(fleet: Fleet, cluster: LocalCluster) -> None:
    spec = yaml.safe_load((ROOT / "deploy" / "examples" / "class-ec2.yaml").read_text())["spec"]
    spec["ec2"] |= {"endpointUrl": "http://127.0.0.1:9", "credentialsSecretRef": {**SECRET, "name": "gone"}}
    Fleet(cluster, "default").apply(workspace_class("logs-keyless", **{**spec, "allowedImages": []}))
    fleet.apply(workspace("keyless", className="logs-keyless"))
    told = refused(cluster.kubeconfig, "keyless", "-n", fleet.namespace)
    assert "Secret 'gone'" in told
    assert "create it" in told
    fleet.drop_classes("logs-keyless")
