"""What the engine shows of a container, read as an Instance. Used inside backends/docker only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from workspace_operator.api import meta
from workspace_operator.backends import labels
from workspace_operator.backends.docker import shape
from workspace_operator.backends.docker.engine import Client
from workspace_operator.backends.protocol import Instance, Reading, WorkspaceRef

_READINGS = {
    "created": Reading.HALTED,  # never started, e.g. after a crash between create and start
    "running": Reading.RUNNING,
    "paused": Reading.FROZEN,
    "restarting": Reading.STARTING,
    "removing": Reading.HALTING,
    "exited": Reading.HALTED,
    "dead": Reading.FAILED,  # the engine failed to remove it
}
_EXIT_CODE = re.compile(r"Exited \((-?\d+)\)")
# What the init process inside the container answers for a command that it cannot run.
_EXITS = {
    126: "Ended with status 126: the command is probably not executable in the image.",
    127: "Ended with status 127: the command probably does not exist in the image.",
}
_EVERY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True)
class Seen:
    """One container: its Instance, and the engine's word for its state."""

    instance: Instance
    state: str

    @property
    def id(self) -> str:
        """The engine's id."""
        return self.instance.id


class Reader:
    """Lists containers of ours; ``halting`` tells since when a container is being stopped by us."""

    def __init__(self, host: str, halting: Mapping[str, datetime]) -> None:
        self._host = host
        self._halting = halting

    def list(self, client: Client, **values: str) -> tuple[Seen, ...]:
        """One call, whatever the number of containers. The engine answers whole or not at all."""
        rows = client.containers(all=True, filters=shape.label_filter(**values))
        return tuple(sorted((self._seen(row) for row in rows), key=lambda seen: seen.instance.incarnation))

    def of(self, client: Client, ref: WorkspaceRef) -> tuple[Seen, ...]:
        """The containers of one workspace, oldest incarnation first."""
        return self.list(client, cluster=ref.cluster, uid=ref.uid)

    def examined(self, client: Client, seen: Seen) -> Instance:
        """A listed instance with what only an inspection shows: why and how it ended."""
        state = client.inspect_container(seen.id)["State"]
        instance = seen.instance
        if instance.reading not in (Reading.HALTED, Reading.FAILED):
            return instance
        if seen.state == "exited":
            instance = replace(instance, exit_code=int(state["ExitCode"]))
        if state.get("OOMKilled"):
            return replace(instance, message="Killed for using more memory than its limit.")
        if state.get("Error"):
            return replace(instance, message="The engine could not start it; its log has the details.")
        return replace(instance, message=_EXITS.get(instance.exit_code or 0, ""))

    def _seen(self, row: Mapping[str, Any]) -> Seen:
        found: Mapping[str, str] = row.get("Labels") or {}
        state = str(row["State"])
        reading = _READINGS.get(state, Reading.STARTING)
        since = self._halting.get(row["Id"]) if reading is Reading.RUNNING else None
        if since is not None:
            reading = Reading.HALTING
        code = _EXIT_CODE.match(row.get("Status") or "")
        instance = Instance(
            ref=labels.owner(found),
            incarnation=labels.incarnation(found),
            reading=reading,
            id=row["Id"],
            parameters=found.get(meta.LABEL_PARAMETERS, ""),
            address=self._address(row.get("Ports") or ()),
            image_digest=row.get("ImageID") or None,
            exit_code=int(code[1]) if code else None,
            halting_since=since,
        )
        return Seen(instance, state)

    def _address(self, ports: Any) -> str | None:
        """Where the one published port is reached from the operator's machine."""
        for port in ports:
            if port.get("PublicPort"):
                host = port.get("IP") or ""
                if host in _EVERY_ADDRESS:
                    host = (urlsplit(self._host).hostname or "") if self._host.startswith("tcp:") else "127.0.0.1"
                return f"[{host}]:{port['PublicPort']}" if ":" in host else f"{host}:{port['PublicPort']}"
        return None
