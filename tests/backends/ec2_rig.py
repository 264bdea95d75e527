"""The conformance suite on EC2: the counterpart, whose machines really boot.

    pytest tests/conformance --backend=tests.backends.ec2_rig:Ec2Rig

Each running machine is a process that runs the operator's own ``boot.py`` from its user data, which it reads from a
metadata service of its own; only the container engine is a stand-in (``ec2_engine.py``), and the data volume a
directory by the workspace's UID.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.backends import ec2_engine
from tests.backends.ec2_kit import Lab
from tests.conformance.rigs import MOUNT_PATH, PORT, Rig, Workload, script
from tests.ec2.counterpart import Counterpart, Faults, Guest, Volume

from workspace_operator.api import meta
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends.ec2 import Ec2Driver
from workspace_operator.backends.protocol import Backend, Template, WorkspaceRef

QUICK = 0.05
NOWHERE = "http://127.0.0.1:9"  # nobody listens on the discard port


class Machines:
    """A counterpart with guests, and their metadata service."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ec2-rig-"))
        engine = self.directory / "bin" / "docker"
        engine.parent.mkdir()
        engine.write_text(f'#!/bin/sh\nexec {sys.executable} {ec2_engine.__file__} "$@"\n')
        engine.chmod(0o755)
        faults = Faults(pending=QUICK, stopping=QUICK, shutting_down=QUICK, creating_volume=QUICK, attaching=QUICK)
        self.ec2 = Counterpart(faults, guest=self.boot)
        self.ec2.__enter__()
        self._serve()

    def close(self) -> None:
        self.ec2.__exit__()
        self._metadata.shutdown()
        self._metadata.server_close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def data(self, uid: str) -> Path:
        """Where the data volume of a workspace keeps its files."""
        return self.directory / "data" / uid / "volume"

    def boot(self, guest: Guest) -> subprocess.Popen[bytes]:
        """Power on: what cloud-init would start, with the console on a pipe."""
        home = self.directory / guest.instance_id
        home.mkdir(exist_ok=True)
        config = json.loads(guest.user_data.partition("\n")[2])
        program = home / "boot.py"
        program.write_text(next(f["content"] for f in config["write_files"] if f["path"].endswith("boot.py")))
        uid = guest.tags[meta.LABEL_UID]
        self.data(uid).mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
            "BOOT_METADATA": f"{self.metadata}/{guest.instance_id}",
            "BOOT_STATE": str(home / "state"),
            "BOOT_DATA": str(self.data(uid).parent),
            "BOOT_CONSOLE": "/dev/stdout",
            "BOOT_NO_DISK": "yes",
            "WORKSPACE_BIND_ADDRESS": guest.address,
        }
        process = subprocess.Popen([sys.executable, str(program), "run"], env=environment, stdout=subprocess.PIPE)
        threading.Thread(target=self._watch, args=(guest.instance_id, process), daemon=True).start()
        return process

    def _watch(self, instance: str, process: subprocess.Popen[bytes]) -> None:
        """The serial console, and the power button that the workload's end presses."""
        assert process.stdout is not None
        with process.stdout as console:
            for line in console:
                self.ec2.write_console(instance, line.decode(errors="replace"))
        process.wait()
        if self.ec2.instance(instance).state == "running":
            self.ec2.power_off(instance)

    def _serve(self) -> None:
        ec2 = self.ec2

        class Metadata(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._say(b"a-session")

            def do_GET(self) -> None:
                if self.headers.get("X-aws-ec2-metadata-token") != "a-session":
                    self.send_error(401)
                    return
                self._say(ec2.user_data(self.path.split("/")[1]).encode())

            def _say(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._metadata = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
        threading.Thread(target=self._metadata.serve_forever, daemon=True).start()
        self.metadata = f"http://127.0.0.1:{self._metadata.server_address[1]}"


@cache
def machines(config: pytest.Config) -> Machines:
    """One region for the session; tests are told apart by their cluster."""
    made = Machines()
    config.add_cleanup(made.close)
    return made


class Ec2Rig(Rig):
    """Instances of the counterpart."""

    name = "ec2"

    def __init__(self, request: pytest.FixtureRequest, directory: Path) -> None:
        super().__init__(request, directory)
        self.machines = machines(request.config)
        self.lab = Lab(self.machines.ec2)
        self._endpoint = self.machines.ec2.endpoint

    def create(self, class_name: str, cluster: str) -> Backend:
        block = self.lab.block(endpoint_url=self._endpoint, consistency_window="0s", call_timeout="5s")
        spec = WorkspaceClassSpec(ec2=block, stop_grace_period="1s")
        return Ec2Driver(class_name, spec, cluster, self.lab.resolve)

    def template(self, workload: Workload = Workload.COUNTER, *, port: bool = False) -> Template:
        serve = f'exec {sys.executable} -m http.server --bind "$WORKSPACE_BIND_ADDRESS" "$WORKSPACE_PORT"'
        text = serve if workload is Workload.SERVING else script(workload)
        return Template(
            image="agent:1",
            command=("/bin/sh", "-c", text),
            port=PORT if port else None,
            mount_path=MOUNT_PATH,
        )

    async def read_data(self, ref: WorkspaceRef, name: str) -> str | None:
        file = self.machines.data(ref.uid) / name
        return file.read_text() if file.exists() else None

    async def data_labels(self, ref: WorkspaceRef) -> Mapping[str, str] | None:
        found = self._volume(ref)
        return found.tags if found is not None else None

    async def data_size(self, ref: WorkspaceRef) -> int:
        found = self._volume(ref)
        assert found is not None
        return found.size * 2**30

    def _volume(self, ref: WorkspaceRef) -> Volume | None:
        wanted = {meta.LABEL_UID: ref.uid, meta.LABEL_CLUSTER: ref.cluster, meta.LABEL_ROLE: "data"}
        found = [v for v in self.machines.ec2.volumes() if wanted.items() <= v.tags.items()]
        assert len(found) <= 1, f"more than one volume of one workspace: {found}"
        return found[0] if found else None

    def break_connection(self) -> None:
        self._endpoint = NOWHERE

    def mend_connection(self) -> None:
        self._endpoint = self.machines.ec2.endpoint
