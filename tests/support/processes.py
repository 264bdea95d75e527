"""The process backend as a person on the machine sees it: its directories and /proc."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.support.fleet import Fleet


@dataclass(frozen=True)
class Room:
    """The directory of the newest incarnation of a workspace of the process backend."""

    path: Path

    @property
    def pid(self) -> int:
        return int((self.path / "pid").read_text().split()[0])

    @property
    def token(self) -> str:
        return (self.path / "identity" / "token").read_text()


def room_of(fleet: Fleet, name: str) -> Room:
    """Where a workspace's instance lives."""
    workspace = fleet.get(name)
    class_ = json.loads(fleet.kubectl("get", "workspaceclass", workspace["status"]["className"], "-o", "json"))
    directory = Path(class_["spec"]["process"]["directory"])
    incarnation = workspace["status"]["incarnation"]
    (found,) = directory.glob(f"*/{workspace['metadata']['uid']}/incarnation-{incarnation}")
    return Room(found)


def state_of(pid: int) -> str | None:
    """The kernel's letter for a process (T: stopped), or None when it is gone or only waits to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else state
