"""Whether an engine, or a volume on it, is what it should be. Used inside backends/docker only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from docker.errors import NotFound

from workspace_operator.api.reasons import Reason
from workspace_operator.api.workspaceclass import DockerBackend
from workspace_operator.backends.docker.engine import Client
from workspace_operator.backends.docker.shape import refuse_unsafe_network
from workspace_operator.errors import BadRequest


@dataclass(frozen=True)
class Found:
    """What the engine says of itself."""

    version: str
    limits: bool  # its kernel enforces memory and cpu limits


def ask(client: Client, spec: DockerBackend) -> Found:
    """Raises BadRequest naming the field of the class to fix."""
    refuse_unsafe_network(spec.network)
    info = client.info()
    runtimes = info.get("Runtimes") or {}
    if spec.runtime and spec.runtime not in runtimes:
        raise BadRequest(
            Reason.MISCONFIGURED,
            f"docker.runtime: the engine has no runtime {spec.runtime}; it has {', '.join(sorted(runtimes))}.",
        )
    try:
        client.inspect_network(spec.network)
    except NotFound as exc:
        raise BadRequest(
            Reason.MISCONFIGURED,
            f"docker.network: the engine has no network {spec.network};"
            f" create it (docker network create {spec.network}) or correct the class.",
        ) from exc
    limits = bool(info.get("MemoryLimit")) and bool(info.get("CpuCfsQuota"))
    return Found(str(info.get("ServerVersion", "of unknown version")), limits)


def is_half_made(client: Client, volume: Mapping[str, Any]) -> bool:
    """Whether an engine that was killed while it made this volume has kept the directory and lost the labels.

    Nothing was ever written there: unlabelled volumes are not used (I-11), and one that has content is somebody's.
    """
    if volume.get("Labels"):
        return False
    answer = client.get(f"{client.base_url}/v{client.api_version}/system/df", params={"type": "volume"})
    answer.raise_for_status()
    rows = {row["Name"]: row.get("UsageData") or {} for row in answer.json().get("Volumes") or ()}
    usage = rows.get(volume["Name"], {})
    return (usage.get("Size"), usage.get("RefCount")) == (0, 0)
