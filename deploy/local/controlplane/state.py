"""Remembers in a file which processes and ports a directory has, so that another process can end them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from controlplane.components import Ports
from controlplane.processes import Process


@dataclass
class State:
    """What runs for one cluster directory."""

    bind_address: str
    detached: bool
    ports: Ports | None = None
    processes: dict[str, Process] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        staging = path.with_suffix(".new")
        staging.write_text(json.dumps(asdict(self), indent=2) + "\n")
        staging.replace(path)

    @classmethod
    def load(cls, path: Path) -> State | None:
        if not path.exists():
            return None
        content = json.loads(path.read_text())
        return cls(
            bind_address=content["bind_address"],
            detached=content["detached"],
            ports=None if content["ports"] is None else Ports(**content["ports"]),
            processes={name: Process(**values) for name, values in content["processes"].items()},
        )

    def alive(self, component: str) -> bool:
        process = self.processes.get(component)
        return process is not None and process.alive
