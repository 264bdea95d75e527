"""All that the API server tells of a namespace's pods over a time, in its own order: were there ever two at once?"""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Self

from tests.support.fleet import Fleet, Object

from workspace_operator.api import meta


@dataclass(frozen=True)
class Event:
    """What became of one pod."""

    version: int
    pod: str
    workspace: str
    uid: str
    lives: bool

    def after(self, live: set[str]) -> set[str]:
        """Which pods of its workspace may execute now, when these could before."""
        return live | {self.pod} if self.lives else live - {self.pod}


class PodHistory:
    """A watch from a listing on, without a gap. The operator's own readings are not asked."""

    def __init__(self, fleet: Fleet) -> None:
        self._url = f"/api/v1/namespaces/{fleet.namespace}/pods"
        self._kubectl = [
            str(fleet.cluster._kubectl_binary()),
            f"--kubeconfig={fleet.cluster.kubeconfig}",
            "get",
            "--raw",
        ]
        listing = json.loads(fleet.kubectl("get", "--raw", f"{self._url}?limit=1"))
        self._version = int(listing["metadata"]["resourceVersion"])
        self._events: list[Event] = []
        self._live: dict[str, set[str]] = {}  # uid → names
        self._most: Counter[str] = Counter()
        self._refused = ""
        self._done = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, name="pod-history", daemon=True)

    def reaches(self, pods: list[Object]) -> bool:
        """Whether it has come to the newest of these."""
        assert not self._refused, self._refused
        return self._version >= max(int(pod["metadata"]["resourceVersion"]) for pod in pods)

    def doubles(self) -> list[str]:
        """Moments at which a workspace, by its UID, had two pods that may have executed."""
        live: dict[str, set[str]] = {}
        found = []
        for event in self._events:
            of_one = live[event.uid] = event.after(live.get(event.uid, set()))
            if len(of_one) > 1:
                found.append(f"{event.version}: {event.workspace} {sorted(of_one)}")
        return found

    def knows(self, uid: str) -> bool:
        """Whether it was told of a pod of a workspace."""
        return uid in self._live

    def live(self, uid: str) -> set[str]:
        """Names of the pods of a workspace that may execute, as far as the watch has come."""
        return self._live.get(uid, set())

    def most_alive(self, uid: str) -> int:
        """The most pods of a workspace that may ever have executed at once."""
        return self._most[uid]

    def lives(self) -> dict[str, int]:
        """How many pods each workspace had over the time, by its name."""
        pods: dict[str, set[str]] = {}
        for event in self._events:
            pods.setdefault(event.workspace, set()).add(event.pod)
        return {name: len(names) for name, names in pods.items()}

    def _follow(self) -> None:
        """An API server with much to do ends the watch of whom it finds slow; the next goes on where that one was."""
        while not self._done.is_set():
            watch = f"{self._url}?watch=1&resourceVersion={self._version}&timeoutSeconds=600"
            with subprocess.Popen([*self._kubectl, watch], stdout=subprocess.PIPE, text=True) as self._process:
                for line in self._process.stdout or ():
                    if not line.endswith("\n"):
                        break  # cut off; it comes again
                    self._note(json.loads(line))

    def _note(self, told: Object) -> None:
        pod = told["object"]
        if told["type"] == "ERROR":
            self._refused = str(pod)
            self._done.set()
            return
        metadata = pod["metadata"]
        labels = metadata.get("labels", {})
        event = Event(
            version=int(metadata["resourceVersion"]),
            pod=metadata["name"],
            workspace=labels.get(meta.LABEL_NAME, ""),
            uid=labels.get(meta.LABEL_UID, ""),
            lives=told["type"] != "DELETED" and may_execute(pod),
        )
        self._events.append(event)
        self._live[event.uid] = event.after(self.live(event.uid))
        self._most[event.uid] = max(self._most[event.uid], len(self._live[event.uid]))
        self._version = event.version

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join()


def may_execute(pod: Object) -> bool:
    """Let go of, not over, and not seen gone: a pod that is being deleted executes until its object goes."""
    return not pod["spec"].get("schedulingGates") and pod["status"].get("phase") not in ("Succeeded", "Failed")
