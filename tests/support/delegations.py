"""Delegations of one namespace, in sentences; and workspaces whose agents are made for tests of them."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.fleet import API_VERSION, Fleet, Object, until, workspace, workspace_class
from tests.support.manifests import CARD, process_images
from tests.support.operator import ROOT

from controlplane.kubectl import Cluster

TERMINAL = ("Completed", "Failed", "Cancelled")
CLASS = "delegations"
_PROGRAMS = {"a2a-server": "tests.support.a2a_server", "hostile": "tests.support.hostile"}


def delegation(name: str, sender: str, receiver: str, text: str = "hello", **spec: Any) -> Object:
    """A Delegation manifest; ``message`` may replace the text, and None takes a field away."""
    wish = {"from": {"name": sender}, "to": {"name": receiver}, "message": {"text": text}, **spec}
    wish = {key: value for key, value in wish.items() if value is not None}
    return {"apiVersion": API_VERSION, "kind": "Delegation", "metadata": {"name": name}, "spec": wish}


# -- workspaces --------------------------------------------------------------------------------------------------------


def delegation_class(cluster: Cluster, directory: Path, name: str = CLASS, **spec: Any) -> str:
    """A class of plain processes that knows, beside the reference agent, the servers of the tests."""
    process = process_images(directory)
    for image, module in _PROGRAMS.items():
        env = [{"name": "PYTHONPATH", "value": f"{ROOT}:{ROOT / 'operator'}"}]
        process["images"].append({"name": image, "command": [sys.executable, "-m", module], "env": env})
    spec = {"stopGracePeriod": "1s", "observeInterval": "2s", **spec}
    Fleet(cluster, "default").apply(workspace_class(name, process=process, **spec))
    return name


def sender(name: str, **spec: Any) -> Object:
    """A workspace that need not run in order to delegate."""
    return workspace(name, **{"className": CLASS, "image": "sleep", "desiredState": "Stopped", **spec})


def obedient(name: str, *options: str, capacity: int = 1, **spec: Any) -> Object:
    """A workspace with the server of ``tests/support/a2a_server.py``."""
    agent = {**CARD, "maxConcurrentTasks": capacity}
    return workspace(name, **{"className": CLASS, "image": "a2a-server", "args": [*options], "agent": agent, **spec})


def remembering(name: str, capacity: int = 1, **spec: Any) -> Object:
    """A workspace with the reference agent, which keeps its answers, so that it can tell doubles after a restart."""
    agent = {**CARD, "maxConcurrentTasks": capacity}
    storage = {"whenDeleted": "Delete"}
    return workspace(name, **{"className": CLASS, "agent": agent, "storage": storage, **spec})


@contextmanager
def team(cluster: Cluster, namespace: str, *members: Object) -> Iterator[Fleet]:
    """A namespace with these workspaces, ready; all of it is gone, or going, afterwards."""
    cluster.kubectl("create", "namespace", namespace)
    fleet = Fleet(cluster, namespace)
    try:
        fleet.apply(*members)
        fleet.wait_ready()
        yield fleet
    finally:
        fleet.kubectl("delete", "workspaces", "--all", "--timeout=60s", timeout=70)
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


# -- their agents ------------------------------------------------------------------------------------------------------


class Server:
    """The server of one ``obedient`` workspace, spoken to past the operator."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._endpoint = fleet.status(name)["endpoint"]

    def release(self) -> None:
        """What it holds now goes on."""
        self._call("/release", b"")

    def forget(self) -> None:
        """It knows none of its tasks any more."""
        self._call("/forget", b"")

    def seen(self, about: str = "") -> list[Object]:
        """Messages that arrived, in order, of which the text contains ``about``."""
        return [message for message in self._state()["seen"] if about in message["text"]]

    def texts(self, about: str = "") -> list[str]:
        return [message["text"] for message in self.seen(about)]

    @property
    def cancelled(self) -> list[str]:
        """Ids of the tasks that it was told to give up."""
        return list(self._state()["cancelled"])

    @property
    def most_working(self) -> int:
        return int(self._state()["mostWorking"])

    def _state(self) -> Object:
        return dict(json.loads(self._call("/seen")))

    def _call(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self._endpoint + path, body), timeout=10) as answer:
            return bytes(answer.read())


def answered(fleet: Fleet, name: str) -> int:
    """How many different messages a reference agent has answered, as it tells itself."""
    message = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": "count"}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    headers = {"Content-Type": "application/json", "A2A-Version": "1.0"}
    request = urllib.request.Request(fleet.status(name)["endpoint"], json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(json.load(answer)["result"]["task"]["artifacts"][0]["parts"][0]["text"])


# -- delegations -------------------------------------------------------------------------------------------------------


class Tasks:
    """Speaks kubectl about the delegations of a fleet's namespace."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def give(self, name: str, sender: str, receiver: str, text: str = "hello", **spec: Any) -> None:
        self._fleet.apply(delegation(name, sender, receiver, text, **spec))

    def get(self, name: str) -> Object:
        return dict(json.loads(self._fleet.kubectl("get", "delegation", name, "-o", "json")))

    def all(self, about: str = "") -> list[Object]:
        """Those whose name begins so; one without a status yet has an empty one."""
        items = json.loads(self._fleet.kubectl("get", "delegations", "-o", "json"))["items"]
        return [{"status": {}, **item} for item in items if item["metadata"]["name"].startswith(about)]

    def status(self, name: str) -> Object:
        return dict(self.get(name).get("status") or {})

    def phase(self, name: str) -> str | None:
        return self.status(name).get("phase")

    def phases(self, about: str = "") -> list[str | None]:
        return [item["status"].get("phase") for item in self.all(about)]

    def condition(self, name: str, kind: str = "Finished") -> Object:
        """Empty where it is not there yet."""
        return next((c for c in self.status(name).get("conditions", ()) if c["type"] == kind), {})

    def desire(self, name: str, state: str) -> None:
        patch = json.dumps({"spec": {"desiredState": state}})
        self._fleet.kubectl("patch", "delegation", name, "--type=merge", "-p", patch)

    def delete(self, *names: str, seconds: float = 60) -> None:
        self._fleet.kubectl("delete", "delegation", *names, f"--timeout={seconds:.0f}s", timeout=seconds + 10)

    def wait_phase(self, name: str, *phases: str, seconds: float = 60) -> Object:
        """Until it is in one of the phases; its status."""
        if len(phases) == 1:
            return self._wait(name, "{.status.phase}", phases[0], seconds)
        return dict(
            until(
                lambda: (status := self.status(name)).get("phase") in phases and status,
                seconds,
                lambda: f"{name}: {self.status(name)}",
            )
        )

    def wait_queued(self, name: str, reason: str, seconds: float = 60) -> Object:
        """Until it waits for this reason; its status."""
        return self._wait(name, "{.status.queuedReason}", reason, seconds)

    def wait_reason(self, name: str, reason: str, seconds: float = 60) -> Object:
        """Until the condition Finished has this reason; its status."""
        return self._wait(name, "{.status.conditions[?(@.type=='Finished')].reason}", reason, seconds)

    def _wait(self, name: str, path: str, value: str, seconds: float) -> Object:
        """One watch, which costs less than asking again and again."""
        wish = (f"--for=jsonpath={path}={value}", f"delegation/{name}", f"--timeout={seconds:.0f}s")
        said = self._fleet.kubectl("wait", *wish, timeout=seconds + 10, check=False)
        assert "condition met" in said, f"{name} is not {value}: {said} {self.status(name)}"
        return self.status(name)

    def wait_over(self, *names: str, seconds: float = 60) -> None:
        """As a person waits. Many are asked for together: kubectl waits for one after the other."""
        if len(names) > 3:
            until(lambda: set(names) <= self._finished(), seconds, lambda: f"not over: {set(names) - self._finished()}")
            return
        targets = [f"delegation/{name}" for name in names] or ["delegation", "--all"]
        self._fleet.kubectl(
            "wait", "--for=condition=Finished", *targets, f"--timeout={seconds:.0f}s", timeout=seconds + 10
        )

    def _finished(self) -> set[str]:
        return {item["metadata"]["name"] for item in self.all() if item["status"].get("phase") in TERMINAL}
