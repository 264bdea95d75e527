"""Notice of a process's end the moment it happens, for children and adopted ones alike. Imported by this package only.

Through pidfds in the event loop rather than asyncio's child watcher, which takes a thread per process and knows only
processes that this very operator started.
"""

from __future__ import annotations

import asyncio
import os
import resource
from dataclasses import dataclass

from workspace_operator.backends.process import system
from workspace_operator.backends.process.home import write_exit
from workspace_operator.backends.process.look import Seen
from workspace_operator.backends.protocol import Wake

_SPARE_FILES = 512  # descriptors left to the rest of the operator; who is not followed is found by the next listing


@dataclass(frozen=True)
class _Followed:
    uid: str
    room_path: str
    mark: system.Mark
    pidfd: int


class Follower:
    """Follows main processes while a watch runs; does nothing otherwise. Belongs to one event loop."""

    def __init__(self) -> None:
        self._wake: Wake | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._followed: dict[system.Mark, _Followed] = {}

    def begin(self, wake: Wake) -> None:
        """From now on call ``wake`` when a followed process ends."""
        self.end()
        self._wake = wake
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        """Let go of all processes; they run on."""
        for followed in list(self._followed.values()):
            self._drop(followed)
        self._wake = None
        self._loop = None

    def follow(self, seen: list[Seen]) -> None:
        """Follow the main processes among these, once each."""
        if self._loop is None:
            return
        for one in seen:
            if one.live and one.mark is not None and one.mark not in self._followed:
                self._follow(one, one.mark, self._loop)

    def _follow(self, seen: Seen, mark: system.Mark, loop: asyncio.AbstractEventLoop) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and len(self._followed) >= max(soft - _SPARE_FILES, soft // 2):
            return
        try:
            pidfd = os.pidfd_open(mark.pid)
        except OSError:  # it ended meanwhile, or there are no descriptors left
            pidfd = -1
        if pidfd >= 0 and system.alive(mark) is None:
            os.close(pidfd)
            pidfd = -1
        if pidfd < 0:
            if self._wake is not None:
                loop.call_soon(self._wake, seen.room.home.uid)
            return
        followed = _Followed(seen.room.home.uid, seen.room.path, mark, pidfd)
        self._followed[mark] = followed
        loop.add_reader(pidfd, self._ended, followed)

    def _ended(self, followed: _Followed) -> None:
        code = system.exit_status(os.P_PIDFD, followed.pidfd)
        self._drop(followed)
        if code is not None:  # None: an adopted process, only its parent learns how it ended
            write_exit(followed.room_path, followed.mark, code)
        if self._wake is not None:
            self._wake(followed.uid)

    def _drop(self, followed: _Followed) -> None:
        self._followed.pop(followed.mark, None)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(followed.pidfd)
        os.close(followed.pidfd)
