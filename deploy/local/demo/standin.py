"""A stand-in for AWS on this machine: the process, the manifests that point at it, and its own view of instances."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlplane.processes import Process, spawn, tail

ROOT = Path(__file__).resolve().parents[3]
AGENT = ROOT / "deploy" / "agent"
_STARTUP, _GRACE = 60.0, 30.0  # seconds; at its end it shuts each machine down
# A name of its own: CLUSTER=current may be a cluster with a real Secret of the example's name.
SECRET = {"namespace": "workspace-operator-system", "name": "stand-in-for-aws"}
_LABEL = "workspace-operator.dev/"


class StandInError(Exception):
    """The stand-in did not come up."""


class StandIn:
    """moto behind a proxy with EC2's habits. Not AWS: what works here is not proven there."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "stand-in.log"
        self._process: Process | None = None
        self._facts: Mapping[str, Any] = {}

    def begin(self) -> None:
        """Start it, without waiting."""
        path = os.pathsep.join(str(ROOT / part) for part in ("operator", "deploy/local", "deploy/agent", "."))
        environment = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "demo.standin_server"]
        # Not killed with us: it sees that we are gone, and then ends its machines before itself.
        self._process = spawn(command, self._log, die_with_parent=False, environment=environment)

    def wait(self) -> None:
        """Until it serves."""
        assert self._process is not None
        deadline = time.monotonic() + _STARTUP
        while not self._facts:
            if not self._process.alive or time.monotonic() > deadline:
                raise StandInError(f"the stand-in for AWS did not start; its log ends:\n{tail(self._log)}")
            first = self._log.read_text(errors="replace").partition("\n")
            if first[1] and first[0].startswith("{"):
                self._facts = json.loads(first[0])
            else:
                time.sleep(0.05)

    def end(self) -> None:
        if self._process is not None:
            self._process.end(_GRACE)

    @property
    def endpoint(self) -> str:
        return str(self._facts["endpoint"])

    def secret(self) -> dict[str, Any]:
        """A Secret for the class, with keys that only the stand-in takes."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": SECRET,
            "stringData": {
                "aws_access_key_id": self._facts["accessKey"],
                "aws_secret_access_key": self._facts["secretKey"],
            },
        }

    def point(self, spec: dict[str, Any]) -> None:
        """Turn a class meant for AWS to the stand-in: its address, its keys, and the names that exist there."""
        spec["ec2"] |= {
            "endpointUrl": self.endpoint,
            "credentialsSecretRef": SECRET,
            "region": self._facts["region"],
            "image": self._facts["image"],
            "subnets": self._facts["subnets"],
            "securityGroups": [self._facts["group"]],
            "consistencyWindow": "1s",
        }
        spec["observeInterval"] = "1s"  # its machines boot in an instant

    def run_agent(self, spec: dict[str, Any]) -> None:
        """Its machines have no container engine: they run a command, here the reference agent's."""
        spec["command"] = [sys.executable, "-m", "reference_agent"]
        spec["env"] = [{"name": "PYTHONPATH", "value": str(AGENT)}]

    def instances(self) -> list[dict[str, Any]]:
        """DescribeInstances, asked with the SDK and past the operator."""
        import boto3

        client = boto3.client(
            "ec2",
            endpoint_url=self.endpoint,
            region_name=self._facts["region"],
            aws_access_key_id=self._facts["accessKey"],
            aws_secret_access_key=self._facts["secretKey"],
        )
        try:
            answer = client.describe_instances()
        finally:
            client.close()
        return [dict(instance) for each in answer["Reservations"] for instance in each["Instances"]]


def table(instances: list[dict[str, Any]]) -> str:
    """Id, state, type, and the tags that say whose each instance is."""
    rows = [("INSTANCE", "STATE", "TYPE", "TAGS")]
    for instance in instances:
        tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
        owner = (f"{key}={tags.get(_LABEL + key, '-')}" for key in ("workspace-name", "class", "incarnation"))
        rows.append((instance["InstanceId"], instance["State"]["Name"], instance["InstanceType"], " ".join(owner)))
    widths = [max(len(row[column]) for row in rows) + 3 for column in range(3)]
    return "\n".join("".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows)
