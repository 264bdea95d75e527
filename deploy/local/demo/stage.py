"""Builds the stage that the demo plays on, and takes it down again however the demo ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import yaml

from controlplane.cluster import LocalCluster
from controlplane.current import connect
from controlplane.engine import DockerEngine, EngineError
from controlplane.kubectl import ClusterError
from controlplane.processes import Process, spawn, tail
from demo.standin import AGENT, ROOT, SECRET, StandIn

EXAMPLES = ROOT / "deploy" / "examples"
IMAGE = "workspace-operator/reference-agent:dev"
NAMESPACE = "workspace-operator-system"
_STARTUP = 60.0
WORKSPACES = ("planner", "researcher", "writer", "analyst")
CLASSES = ("docker", "process", "ec2")

Say = Callable[[str], None]


class StageError(Exception):
    """The stage could not be built; the message says what to do."""


class Stage:
    """A control plane, an engine where there is one, a stand-in for AWS, the CRDs and a running operator."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._exit = contextlib.ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="workspace-demo-"))
        self.cluster = connect(self.directory / "cluster", say=say)
        self.engine: DockerEngine | None = None
        self.standin = StandIn(self.directory)
        self._operator: Process | None = None

    def __enter__(self) -> Self:
        try:
            self._exit.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._exit.callback(self.standin.end)  # last but one: the operator releases its instances before
            self.standin.begin()
            self.cluster.start()
            self._exit.callback(self.cluster.stop)
            self._start_engine()
            self.cluster.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
            self.cluster.kubectl("wait", "--for=condition=Established", "crd", "-l", "!none", "--all")
            self._say("starting a local stand-in for AWS: moto's server behind a proxy with EC2's habits")
            self.standin.wait()
            self._start_operator()
            self._exit.callback(self._empty)
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @property
    def operator_log(self) -> Path:
        return self.directory / "operator.log"

    def classes(self) -> list[Path]:
        """The two example classes with this machine's addresses filled in."""
        return [self._adapted("class-docker.yaml", self._docker), self._adapted("class-process.yaml", self._process)]

    def ec2(self) -> list[Path]:
        """The credentials, class and workspace of the EC2 examples, turned to the stand-in."""
        secret = self.directory / "aws-secret.yaml"
        secret.write_text(yaml.safe_dump(self.standin.secret()))
        return [
            secret,
            self._adapted("class-ec2.yaml", self.standin.point),
            self._adapted("workspace-on-ec2.yaml", self.standin.run_agent),
        ]

    def logs(self, *arguments: str) -> str:
        """``workspace-operator logs``, as a person would run it on this machine."""
        command = [sys.executable, "-m", "workspace_operator", "logs", *arguments]
        environment = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig), "PYTHONPATH": str(ROOT / "operator")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment, check=False)
        if done.returncode != 0:
            raise ClusterError(done.stderr.strip())
        return done.stdout + done.stderr

    def process_of(self, uid: str) -> int:
        """The main process of a workspace of the process backend, from the file that the backend keeps of it."""
        found = (self.directory / "workspaces").glob(f"**/{uid}/incarnation-*/pid")
        newest = max(found, key=lambda file: int(file.parent.name.rpartition("-")[2]))
        return int(newest.read_text().split()[0])

    def _start_engine(self) -> None:
        obstacle = DockerEngine.available()
        if obstacle is None:
            engine = DockerEngine(self.directory / "engine", say=self._say)
            try:
                engine.start()
            except EngineError as error:
                obstacle = str(error)
            else:
                self.engine = engine
                self._exit.callback(engine.stop)
                self._build_image(engine)
                return
        self._say(f"no Docker engine here ({obstacle}): the class named docker runs plain processes instead")

    def _build_image(self, engine: DockerEngine) -> None:
        import docker

        import image
        from controlplane import pythonimage

        client = docker.DockerClient(base_url=engine.host, timeout=120)
        try:
            pythonimage.build(image.RECIPE, client, tag=IMAGE, say=self._say)
        finally:
            client.close()

    def _start_operator(self) -> None:
        kubeconfig = self.cluster.service_account_kubeconfig(NAMESPACE, "workspace-operator")
        self._say("starting the operator, with the rights of deploy/base/rbac.yaml and no others")
        command = [
            sys.executable,
            "-m",
            "workspace_operator",
            "run",
            "--listen-host",
            "127.0.0.1",
            "--listen-port",
            "0",
        ]
        environment = {
            "KUBECONFIG": str(kubeconfig),
            "WORKSPACE_OPERATOR_NAMESPACE": NAMESPACE,
            "PYTHONPATH": str(ROOT / "operator"),
        }
        self._operator = spawn(command, self.operator_log, die_with_parent=True, environment=environment)
        self._exit.callback(self._operator.end, 20)
        deadline = time.monotonic() + _STARTUP
        while not self._ready():
            if not self._operator.alive or time.monotonic() > deadline:
                raise StageError(f"the operator did not become ready; its log ends:\n{tail(self.operator_log)}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        found = re.search(r"metrics on (http://\S+)", self.operator_log.read_text(errors="replace"))
        if found is None:
            return False
        try:
            with urllib.request.urlopen(f"{found[1]}/readyz", timeout=2) as answer:  # noqa: S310 - our own address
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def labels_of(self, container: str) -> str:
        """A container's labels, a line each."""
        assert self.engine is not None
        template = "{{range $key, $value := .Config.Labels}}{{$key}}={{$value}}{{println}}{{end}}"
        command = ["docker", f"--host={self.engine.host}", "inspect", f"--format={template}", container]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    def _empty(self) -> None:
        """Workspaces first: what they run would outlive the operator. Only ours: the cluster may be a user's."""
        for sender in ("planner", "researcher"):
            sent = f"--field-selector=spec.from.name={sender}"
            self.cluster.kubectl("delete", "delegations", sent, "--timeout=60s", timeout=70, check=False)
        for kind, names in (("workspaces", WORKSPACES), ("workspaceclasses", CLASSES)):
            command = ("delete", kind, *names, "--ignore-not-found", "--timeout=60s")
            self.cluster.kubectl(*command, timeout=70, check=False)
        secret = ("secret", SECRET["name"], "-n", SECRET["namespace"])
        self.cluster.kubectl("delete", *secret, "--ignore-not-found", check=False)

    def _adapted(self, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
        manifest = yaml.safe_load((EXAMPLES / name).read_text())
        change(manifest["spec"])
        adapted = self.directory / name
        adapted.write_text(yaml.safe_dump(manifest, sort_keys=False))
        return adapted

    def _docker(self, spec: dict[str, Any]) -> None:
        if self.engine is None:
            del spec["docker"]
            self._process(spec)
            return
        spec["docker"]["host"] = self.engine.host
        spec["docker"]["pullPolicy"] = "Never"
        spec |= {
            "sweep": {"interval": "5s", "gracePeriod": "3s"},
            "observeInterval": "3s",
        }  # a walk has no five minutes
        if isinstance(self.cluster, LocalCluster):
            spec["identity"] = {"server": f"https://host.docker.internal:{self.cluster.port}"}

    def _process(self, spec: dict[str, Any]) -> None:
        environment = [{"name": "PYTHONPATH", "value": str(AGENT)}]
        command = [sys.executable, "-m", "reference_agent"]
        spec["process"] = {
            "directory": str(self.directory / "workspaces"),
            "images": [{"name": IMAGE, "command": command, "env": environment}],
        }
