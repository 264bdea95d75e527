"""The backends as the harness sees them, past the operator: what lives, what was ever alive at once, what is left."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
from tests.backends import tiny_image
from tests.backends.ec2_kit import SECRET, Lab
from tests.crash import seams
from tests.ec2.counterpart import Counterpart
from tests.support.fleet import Object
from tests.support.operator import ROOT
from tests.support.processes import state_of

from controlplane.cluster import LocalCluster
from workspace_operator.api import meta
from workspace_operator.kube.owned import account_name

IMAGE = "crash-test"

#: Takes a lock for as long as it lives, so that a second one at the same time leaves a line. Looks from outside,
#: however often, could miss it.
_WITNESS = """
import fcntl, os, signal
mine = open(os.environ["WITNESS"] + "/" + os.environ["WORKSPACE_UID"], "a")
try:
    fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    mine.write("alive beside another\\n")
    mine.flush()
signal.pause()
"""


class Rig(ABC):
    """One backend, used by all lanes. Workspaces are told apart by their UID."""

    name: str
    renews = True  # delivers a new token to what runs
    halts = True  # pauses in place: the same instance comes back
    collects = False  # what goes with an instance goes later, by the control plane's garbage collector
    streams: frozenset[str] = frozenset()

    def prepare(self, cluster: LocalCluster, lane: Path, workspaces: str) -> None:  # noqa: B027 - most need nothing
        """Give the cluster of a lane what it needs besides; ``workspaces``: their namespace."""

    @abstractmethod
    def class_spec(self, lane: Path, server: str) -> Object:
        """The WorkspaceClass's spec for one lane."""

    def workspace_spec(self) -> Object:
        """What the workspace says of its image."""
        return {"image": IMAGE}

    def secrets(self) -> Mapping[str, str]:
        """Contents of the Secret that the class names."""
        return {}

    def secrets_of(self, name: str, uid: str, incarnation: int) -> set[str]:
        """Names of the Secrets of a workspace that runs."""
        return {account_name(name)}

    def lacks(self, uid: str) -> list[str]:
        """What a workspace that runs should have and has not."""
        return []

    @abstractmethod
    def alive(self, uid: str) -> list[str]:
        """Ids of the instances that run now."""

    @abstractmethod
    def most_alive(self, uid: str) -> int:
        """The most that ever ran at once, so far."""

    @abstractmethod
    def compute(self, uid: str) -> list[str]:
        """Everything that a stopped workspace must not have."""

    @abstractmethod
    def left(self, uid: str, lane: Path) -> list[str]:
        """Everything that a deleted workspace must not have, and what else the operator of a lane left lying about."""

    def close(self) -> None:  # noqa: B027 - most have nothing
        """End what the rig itself holds open."""


class ProcessRig(Rig):
    name = "process"

    def __init__(self, directory: Path) -> None:
        self._witness = directory
        self._roots: set[Path] = set()

    def class_spec(self, lane: Path, server: str) -> Object:
        image = {
            "name": IMAGE,
            "command": [sys.executable, "-S", "-c", _WITNESS],
            "env": [{"name": "WITNESS", "value": str(self._witness)}],
        }
        root = lane / "workspaces"
        self._roots.add(root)
        return {"process": {"directory": str(root), "images": [image]}, "stopGracePeriod": "2s"}

    def alive(self, uid: str) -> list[str]:
        mark = f"/{uid}/incarnation-".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and state_of(int(entry.name)) is not None:
                try:
                    if b"WORKSPACE_STATE=" in (environment := (entry / "environ").read_bytes()) and mark in environment:
                        found.append(entry.name)
                except OSError:
                    continue  # it ended, or is somebody else's
        return found

    def most_alive(self, uid: str) -> int:
        file = self._witness / uid
        return 1 + len(file.read_text().splitlines()) if file.exists() else 0

    def compute(self, uid: str) -> list[str]:
        rooms = (room for root in self._roots for room in root.glob(f"*/{uid}/incarnation-*"))
        return [f"process {pid}" for pid in self.alive(uid)] + [str(room) for room in rooms]

    def left(self, uid: str, lane: Path) -> list[str]:
        found = [*lane.glob("workspaces/.*"), *lane.glob(f"workspaces/*/{uid}")]
        return self.compute(uid) + [str(path) for path in found]


class DelegationRig(ProcessRig):
    """Plain processes that speak A2A and outlive the operator: what is played is not their lives but their tasks."""

    name = "delegation"

    def class_spec(self, lane: Path, server: str) -> Object:
        spec = super().class_spec(lane, server)
        command = [sys.executable, "-m", "tests.support.a2a_plain"]
        spec["process"]["images"] = [
            {"name": IMAGE, "command": command, "env": [{"name": "PYTHONPATH", "value": str(ROOT)}]}
        ]
        spec["sweep"] = {"interval": "24h"}  # the noise of other suites
        return spec


class DockerRig(Rig):
    name = "docker"
    streams = frozenset({seams.EVENTS})
    _COMMAND = ("/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do /bin/busybox sleep 1000 & wait $!; done")

    def __init__(self, host: str) -> None:
        self._host = host
        self._client: Any = docker.DockerClient(base_url=host, timeout=30)
        self._image = tiny_image.ensure(self._client)
        self._since: dict[str, int] = {}  # uid → when it was asked about first, or last
        self._running: dict[str, set[str]] = {}
        self._most: Counter[str] = Counter()

    def class_spec(self, lane: Path, server: str) -> Object:
        return {"docker": {"host": self._host, "pullPolicy": "Never"}, "stopGracePeriod": "2s"}

    def workspace_spec(self) -> Object:
        return {"image": self._image, "command": list(self._COMMAND)}

    def alive(self, uid: str) -> list[str]:
        return [one.id for one in self._containers(uid) if one.status in ("running", "paused")]

    def most_alive(self, uid: str) -> int:
        """By the engine's own events since the last question; it keeps the newest 256."""
        running, until = self._running.setdefault(uid, set()), time.time()
        filters = {"type": "container", "label": f"{meta.LABEL_UID}={uid}", "event": ["start", "die"]}
        since = self._since.get(uid, 0)
        for event in self._client.api.events(
            since=_text(since), until=_text(until * 1e9), filters=filters, decode=True
        ):
            if int(event["timeNano"]) <= since:
                continue
            (running.add if event["Action"] == "start" else running.discard)(event["Actor"]["ID"])
            self._most[uid] = max(self._most[uid], len(running))
            self._since[uid] = int(event["timeNano"])
        return self._most[uid]

    def compute(self, uid: str) -> list[str]:
        return [f"container {one.name} {one.status}" for one in self._containers(uid)]

    def left(self, uid: str, lane: Path) -> list[str]:
        volumes = self._client.volumes.list(filters={"label": f"{meta.LABEL_UID}={uid}"})
        return self.compute(uid) + [f"volume {each.name}" for each in volumes]

    def close(self) -> None:
        self._client.close()

    def _containers(self, uid: str) -> list[Any]:
        filters = {"label": f"{meta.LABEL_UID}={uid}"}
        return list(self._client.containers.list(all=True, filters=filters, ignore_removed=True))


def _text(nanoseconds: float) -> str:
    return f"{int(nanoseconds) // 10**9}.{int(nanoseconds) % 10**9:09d}"


class Ec2Rig(Rig):
    """The counterpart of tests/ec2: EC2's promises about client tokens and states, on a loopback port."""

    name = "ec2"
    renews = False

    def __init__(self, ec2: Counterpart) -> None:
        self._ec2 = ec2
        self._lab = Lab(ec2)

    def class_spec(self, lane: Path, server: str) -> Object:
        block = self._lab.block().model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"ec2": block, "stopGracePeriod": "2s", "observeInterval": "1s"}

    def secrets(self) -> Mapping[str, str]:
        return {key: value.decode() for key, value in self._lab.keys.items()}

    def alive(self, uid: str) -> list[str]:
        return [each.id for each in self._ec2.alive({meta.LABEL_UID: uid})]

    def most_alive(self, uid: str) -> int:
        return self._ec2.max_alive_per(meta.LABEL_UID).get(uid, 0)

    def compute(self, uid: str) -> list[str]:
        found = self._ec2.instances({meta.LABEL_UID: uid})
        return [f"machine {each.id} {each.state}" for each in found if each.state != "terminated"]

    def left(self, uid: str, lane: Path) -> list[str]:
        volumes = [each for each in self._ec2.volumes() if each.tags.get(meta.LABEL_UID) == uid]
        return self.compute(uid) + [f"volume {each.id} {each.state}" for each in volumes]


SECRET_OF_CLASS = SECRET
