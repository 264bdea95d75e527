"""All that the API server tells of a namespace's pods over a time, in its own order: were there ever two at once?"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.fleet import Fleet, Object

from workspace_operator.api import meta


class PodHistory:
    """One watch, and the events that it has brought. The operator's own readings are not asked."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def events(self) -> list[tuple[str, Object]]:
        lines = [json.loads(line) for line in self._file.read_text().splitlines() if line.endswith("}")]
        assert "ERROR" not in {line["type"] for line in lines}, lines[-1]
        return [(line["type"], line["object"]) for line in lines]

    def reaches(self, pods: list[Object]) -> bool:
        """Whether it has come to the newest of these."""
        newest = max(version_of(pod) for pod in pods)
        return any(version_of(pod) >= newest for _, pod in self.events())

    def doubles(self) -> list[str]:
        """Moments at which a workspace, by its UID, had two pods that may have executed."""
        live: dict[str, set[str]] = {}
        found = []
        for kind, pod in self.events():
            uid = pod["metadata"].get("labels", {}).get(meta.LABEL_UID, "")
            of_one = live.setdefault(uid, set())
            if kind != "DELETED" and may_execute(pod):
                of_one.add(pod["metadata"]["name"])
            else:
                of_one.discard(pod["metadata"]["name"])
            if len(of_one) > 1:
                found.append(f"{pod['metadata']['resourceVersion']}: {sorted(of_one)}")
        return found

    def lives(self) -> dict[str, int]:
        """How many pods each workspace had over the time, by its name."""
        names: dict[str, set[str]] = {}
        for _, pod in self.events():
            owner = pod["metadata"].get("labels", {}).get(meta.LABEL_NAME, "")
            names.setdefault(owner, set()).add(pod["metadata"]["name"])
        return {name: len(pods) for name, pods in names.items()}


def version_of(pod: Object) -> int:
    return int(pod["metadata"]["resourceVersion"])


def may_execute(pod: Object) -> bool:
    """Let go of, not over, and not seen gone: a pod that is being deleted executes until its object goes."""
    return not pod["spec"].get("schedulingGates") and pod["status"].get("phase") not in ("Succeeded", "Failed")


@contextmanager
def pod_history(fleet: Fleet, file: Path) -> Iterator[PodHistory]:
    """Record from this moment on, with nothing missed: the watch begins at the version of a listing."""
    url = f"/api/v1/namespaces/{fleet.namespace}/pods"
    start = json.loads(fleet.kubectl("get", "--raw", f"{url}?limit=1"))["metadata"]["resourceVersion"]
    kubectl = [str(fleet.cluster._kubectl_binary()), f"--kubeconfig={fleet.cluster.kubeconfig}"]
    watch = f"{url}?watch=1&resourceVersion={start}&timeoutSeconds=3600"
    with file.open("w") as out, subprocess.Popen([*kubectl, "get", "--raw", watch], stdout=out) as process:
        try:
            yield PodHistory(file)
        finally:
            process.terminate()
