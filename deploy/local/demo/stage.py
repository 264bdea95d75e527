"""Builds the stage that the demo plays on, and takes it down again however the demo ends."""

from __future__ import annotations

import contextlib
import re
import shutil
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
from controlplane.processes import Process, spawn, tail

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "deploy" / "examples"
IMAGE = "workspace-operator/reference-agent:dev"
_STARTUP = 60.0

Say = Callable[[str], None]


class StageError(Exception):
    """The stage could not be built; the message says what to do."""


class Stage:
    """A control plane, an engine where there is one, the CRDs and a running operator."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._exit = contextlib.ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="workspace-demo-"))
        self.cluster = connect(self.directory / "cluster", say=say)
        self.engine: DockerEngine | None = None
        self._operator: Process | None = None

    def __enter__(self) -> Self:
        try:
            self._exit.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.cluster.start()
            self._exit.callback(self.cluster.stop)
            self._start_engine()
            self.cluster.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
            self.cluster.kubectl("wait", "--for=condition=Established", "crd", "-l", "!none", "--all")
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

        client = docker.DockerClient(base_url=engine.host, timeout=120)
        try:
            image.build(client, tag=IMAGE, say=self._say)
        finally:
            client.close()

    def _start_operator(self) -> None:
        kubeconfig = self.cluster.service_account_kubeconfig("workspace-operator-system", "workspace-operator")
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
            "WORKSPACE_OPERATOR_NAMESPACE": "workspace-operator-system",
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

    def _empty(self) -> None:
        """Workspaces first: what they run would outlive the operator."""
        self.cluster.kubectl("delete", "workspaces", "--all", "-A", "--timeout=60s", timeout=70, check=False)
        self.cluster.kubectl("delete", "workspaceclasses", "--all", "--timeout=10s", check=False)

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
        if isinstance(self.cluster, LocalCluster):
            spec["identity"] = {"server": f"https://host.docker.internal:{self.cluster.port}"}

    def _process(self, spec: dict[str, Any]) -> None:
        environment = [{"name": "PYTHONPATH", "value": str(ROOT / "deploy" / "agent")}]
        command = [sys.executable, "-m", "reference_agent"]
        spec["process"] = {
            "directory": str(self.directory / "workspaces"),
            "images": [{"name": IMAGE, "command": command, "env": environment}],
        }
