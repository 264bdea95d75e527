"""The three backends as the storm sees them: classes, what their workspaces look like, and what is left there."""

from __future__ import annotations

import os
import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.backends.ec2_kit import SECRET, Lab
from tests.chaos.witness import Census
from tests.ec2.counterpart import Counterpart
from tests.support.containers import Containers
from tests.support.fleet import Object, workspace_class
from tests.support.manifests import AGENT, IDLE_COMMAND

from controlplane.engine import DockerEngine
from workspace_operator.api import meta

EDITION = "EDITION"  # a variable whose value shows which edit a running instance was made from


class Site(ABC):
    """One backend and its class."""

    kind: str

    @property
    def class_name(self) -> str:
        return f"chaos-{self.kind}"

    @abstractmethod
    def manifest(self, server: str) -> Object:
        """The class. ``server`` is the real API server's URL, for the identities."""

    @abstractmethod
    def template(self, dice: random.Random) -> dict[str, Any]:
        """The part of a spec that differs between backends: image, command, resources."""

    def kill(self, uid: str, seen: Census, dice: random.Random) -> bool:
        """End the compute by hand, past the operator; whether there was any."""
        pids = [mark.pid for one in seen.get(uid, {}).values() for mark in one.processes]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return bool(pids)

    def running(self, uid: str, seen: Census) -> list[str]:
        """What runs for a workspace right now; an id each."""
        return list(seen.get(uid, ()))

    def problem(self, uid: str, spec: dict[str, Any], seen: Census) -> str | None:
        """What the one running instance has that its spec has not."""
        (instance,) = seen[uid].values()
        wanted = next(each["value"] for each in spec["env"] if each["name"] == EDITION)
        found = instance.environment.get(EDITION)
        return None if found == wanted else f"runs edition {found} instead of {wanted}"

    @abstractmethod
    def remains(self) -> set[str]:
        """UIDs of all workspaces that have anything here, running or not, data included."""

    @abstractmethod
    def held(self) -> set[str]:
        """UIDs of those whose compute is not released, running or halted."""


class Processes(Site):
    kind = "process"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def manifest(self, server: str) -> Object:
        images = [{"name": name, "command": ["sleep", seconds]} for name, seconds in (("doze", "1e6"), ("nap", "9e5"))]
        block = {"directory": str(self.directory), "images": images}
        return _class(self, process=block, identity={"server": server})

    def template(self, dice: random.Random) -> dict[str, Any]:
        memory = dice.choice(("128Mi", "256Mi"))
        return {"image": dice.choice(("doze", "nap")), "resources": {"limits": {"memory": memory}}}

    def remains(self) -> set[str]:
        return {home.name for home in self.directory.glob("*/*") if home.is_dir() and not home.name.startswith(".")}

    def held(self) -> set[str]:
        return {room.parent.name for room in self.directory.glob("*/*/incarnation-*")}


class Docker(Site):
    kind = "docker"

    def __init__(self, engine: DockerEngine, containers: Containers, namespace: str) -> None:
        self.engine, self._containers, self._namespace = engine, containers, namespace

    def manifest(self, server: str) -> Object:
        return _class(self, docker={"host": self.engine.host, "pullPolicy": "Never"}, identity={"server": server})

    def template(self, dice: random.Random) -> dict[str, Any]:
        return {"image": AGENT, "command": [*IDLE_COMMAND[:-1], f"{IDLE_COMMAND[-1]}  # {dice.randrange(3)}"]}

    def remains(self) -> set[str]:
        filters = {"label": f"{meta.LABEL_NAMESPACE}={self._namespace}"}
        volumes = self._containers.client.volumes.list(filters=filters)
        return self.held() | {volume.attrs["Labels"][meta.LABEL_UID] for volume in volumes}

    def held(self) -> set[str]:
        return {each.labels[meta.LABEL_UID] for each in self._containers.of_namespace(self._namespace)}


class Machines(Site):
    kind = "ec2"

    def __init__(self, ec2: Counterpart) -> None:
        self.ec2 = ec2
        self.lab = Lab(ec2)

    def manifest(self, server: str) -> Object:
        # Listings are late by at most a second here (storm.py), and the driver must know the bound.
        block = self.lab.block(consistency_window="3s").model_dump(mode="json", by_alias=True, exclude_none=True)
        return _class(self, ec2=block, identity={"mode": "None"})

    def template(self, dice: random.Random) -> dict[str, Any]:
        memory = dice.choice(tuple(_TYPE))
        return {"image": dice.choice(("agent:1", "agent:2")), "resources": {"limits": {"memory": memory}}}

    def kill(self, uid: str, seen: Census, dice: random.Random) -> bool:
        found = self._alive(uid)
        for machine in found:
            dice.choice((self.ec2.terminate, self.ec2.stop_by_hand, self.ec2.power_off))(machine.id)
        return bool(found)

    def running(self, uid: str, seen: Census) -> list[str]:
        return [machine.id for machine in self._alive(uid)]

    def problem(self, uid: str, spec: dict[str, Any], seen: Census) -> str | None:
        (machine,) = self._alive(uid)
        wanted = _TYPE[spec["resources"]["limits"]["memory"]]
        return None if machine.instance_type == wanted else f"is a {machine.instance_type} instead of a {wanted}"

    def remains(self) -> set[str]:
        return self.held() | _owners(volume.tags for volume in self.ec2.volumes() if _is_data(volume.tags))

    def held(self) -> set[str]:
        return _owners(machine.tags for machine in self.ec2.instances() if machine.state != "terminated")

    def _alive(self, uid: str) -> list[Any]:
        return self.ec2.alive({meta.LABEL_UID: uid, meta.LABEL_ROLE: "instance"})


#: The smallest of Lab's machine types that holds the memory.
_TYPE = {"1Gi": "t3.small", "4Gi": "t3.large"}


def credentials(site: Machines) -> Object:
    """The Secret that the EC2 class names."""
    values = {key: value.decode() for key, value in site.lab.keys.items()}
    return {"metadata": {"name": SECRET.name, "namespace": SECRET.namespace}, "stringData": values}


def _class(site: Site, **spec: Any) -> Object:
    """All of them look often and end quickly, because time is short here."""
    return workspace_class(site.class_name, stopGracePeriod="2s", observeInterval="1s", **spec)


def _owners(tags: Iterable[dict[str, str]]) -> set[str]:
    return {each[meta.LABEL_UID] for each in tags if meta.LABEL_UID in each}


def _is_data(tags: dict[str, str]) -> bool:
    return tags.get(meta.LABEL_ROLE) == "data"
