"""Reading what one workspace's directory and the kernel show together. Imported by this package only.

Looking also buries: an ended child is reaped, its exit code kept, and what it left behind is killed. That is what the
end of a container does, and it must not depend on which operator happened to be alive at that moment.
"""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from datetime import datetime

from workspace_operator.backends.process import system
from workspace_operator.backends.process.home import Home, Record, Room
from workspace_operator.backends.process.start import ADDRESS
from workspace_operator.backends.process.system import Mark
from workspace_operator.backends.protocol import LIVE, Instance, Reading, WorkspaceRef

_CORRUPT = "instance.json cannot be read; what the workspace is was taken from its directory."
_LEFTOVERS = "The main process ended; what it left running is being killed."
_ESCAPED = "The main process ended, but a process that it started still holds the instance's lock."


@dataclass(frozen=True)
class Seen:
    """An instance together with the main process behind it."""

    room: Room
    mark: Mark | None
    instance: Instance

    @property
    def live(self) -> bool:
        """Whether something of the instance may execute."""
        return self.instance.reading in LIVE

    @property
    def unsettled(self) -> bool:
        """Whether it ended, and nobody has yet cleared up after it."""
        return not self.live and self.room.identity.is_dir()


class Looker:
    """Looks for one class; remembers which processes were told to stop, and when."""

    def __init__(self, class_name: str, cluster: str) -> None:
        self._class_name = class_name
        self._cluster = cluster
        self._node = socket.gethostname()
        self.census = system.Census()
        self.halting: dict[tuple[str, Mark | None], datetime] = {}  # by room and process; in memory only, on purpose

    def look(self, home: Home, only_class: str | None = None) -> list[Seen]:
        """All incarnations of one workspace, oldest first; with ``only_class`` none that belongs to another."""
        rooms = [(room, room.record()) for room in home.rooms()]
        if only_class is not None:
            rooms = [(room, record) for room, record in rooms if self._ref(room, record).class_name == only_class]
        found = [(room, record, room.mark()) for room, record in rooms]
        if not found:
            return []
        states = [system.alive(mark) for _, _, mark in found]
        # The lock is asked only when no main process is there to speak for it.
        holder = None if any(states) or not system.lock_held(home.lock) else self._holder(home, found)
        return [
            self._seen(room, record, mark, state, room.incarnation == holder)
            for (room, record, mark), state in zip(found, states, strict=True)
        ]

    @staticmethod
    def _holder(home: Home, found: list[tuple[Room, Record | None, Mark | None]]) -> int | None:
        """The incarnation whose lock it is; an unreadable name counts for the newest, so that it never reads idle."""
        named = home.holder()
        if named == system.OPERATOR:
            return None
        known = [room.incarnation for room, _, _ in found]
        return named if named in known else known[-1]

    def _seen(
        self, room: Room, record: Record | None, mark: Mark | None, state: system.Stat | None, holds: bool
    ) -> Seen:
        if holds and state is None:  # the pid may have been written since the first look
            mark = room.mark()
            state = system.alive(mark)
        reading, message = self._reading(room, mark, state, holds)
        if record is None:
            reading = Reading.FAILED if reading is Reading.HALTED else reading
            message = message or _CORRUPT
        code = None
        if reading in (Reading.HALTED, Reading.FAILED):
            code = self.bury(room, mark)
        port = mark.port if state is not None and mark is not None else None
        instance = Instance(
            ref=self._ref(room, record),
            incarnation=room.incarnation,
            reading=reading,
            id=f"{room.home.uid}/{room.incarnation}",
            parameters=record.parameters if record else "",
            address=f"{ADDRESS}:{port}" if port else None,
            node=self._node,
            exit_code=code,
            message=message,
            halting_since=self.halting.get((room.path, mark)),
        )
        return Seen(room, mark, instance)

    def _reading(self, room: Room, mark: Mark | None, state: system.Stat | None, holds: bool) -> tuple[Reading, str]:
        if state is not None:
            if (room.path, mark) in self.halting:
                return Reading.HALTING, ""
            return (Reading.FROZEN if state.state == "T" else Reading.RUNNING), ""
        if holds and mark is None:
            return (Reading.HALTING if (room.path, None) in self.halting else Reading.STARTING), ""
        if holds or system.group_remains(mark):
            return self._leftovers(room, holds)
        return Reading.HALTED, ""

    def _leftovers(self, room: Room, holds: bool) -> tuple[Reading, str]:
        """The main process is gone and something of it is not: kill what is surely ours, and show the rest."""
        left = self.census.of(room.path)
        if not left:  # a lock held by a stranger to us, or a group whose number means others by now
            return (Reading.HALTING, _ESCAPED) if holds else (Reading.HALTED, "")
        system.signal_all(left, signal.SIGKILL)
        return Reading.HALTING, _LEFTOVERS

    def bury(self, room: Room, mark: Mark | None = None) -> int | None:
        """Reap an ended process that is our child, and tell its exit code if any operator ever saw it."""
        mark = mark or room.mark()
        self.halting.pop((room.path, None), None)
        if mark is None:
            return None
        self.halting.pop((room.path, mark), None)
        code = system.reap(mark)
        if code is not None:
            room.save_exit(mark, code)
            return code
        return room.exit_code(mark)

    def _ref(self, room: Room, record: Record | None) -> WorkspaceRef:
        if record is not None:
            return record.ref
        owner = room.home.data_owner()
        return owner or WorkspaceRef(self._cluster, room.home.uid, "", "", self._class_name)


def homes(root: str, cluster: str) -> list[Home]:
    """Every workspace of a cluster that has a directory. Raises OSError when the root itself is not there.

    A missing root is no empty listing: the disk may be unmounted (I-40). A missing cluster just never had a workspace.
    """
    os.stat(root)  # noqa: PTH116 - a listing is no place for pathlib
    try:
        entries = os.scandir(f"{root}/{cluster}")
    except FileNotFoundError:
        return []
    with entries:
        return [Home(root, cluster, entry.name) for entry in entries if not entry.name.startswith(".")]
