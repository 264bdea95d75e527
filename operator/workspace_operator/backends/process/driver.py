"""The verbs of the process backend: ProcessDriver keeps the contract of protocol.py. Imported by this package only."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability
from workspace_operator.api.workspaceclass import ProcessBackend, WorkspaceClassSpec
from workspace_operator.backends.process import system
from workspace_operator.backends.process.follow import Follower
from workspace_operator.backends.process.home import Home, remove
from workspace_operator.backends.process.look import Looker, Seen, homes
from workspace_operator.backends.process.start import Starter, explain_disk, find_program, prepare
from workspace_operator.backends.protocol import (
    Backend,
    Instance,
    Progress,
    ProvisionRequest,
    Reading,
    ResolveSecret,
    StopRequest,
    Wake,
    WorkspaceRef,
    replace,
)
from workspace_operator.errors import BackendError, BackendUnreachable, BadRequest

T = TypeVar("T")

_DEADLINE = 30.0  # seconds for any verb: only a disk that hangs takes this long (I-45)
_THREADS = 8
_SIGNAL_EFFECT = 0.05  # seconds in which the kernel stops, continues or kills a process, unless it is swapped out


def create(class_name: str, spec: WorkspaceClassSpec, cluster: str, resolve_secret: ResolveSecret) -> Backend:
    """Make the driver of one class, without I/O. It needs no secrets."""
    del resolve_secret
    if spec.process is None:
        raise BadRequest(Reason.MISCONFIGURED, "The class has no block spec.process.")
    return ProcessDriver(class_name, spec.process, cluster)


class ProcessDriver:
    """Workspaces as processes under one directory. Disk and kernel work runs in threads of its own."""

    capabilities = frozenset(
        {
            *(Capability.HALT, Capability.FREEZE, Capability.DELIVER),
            *(Capability.LOGS, Capability.VOLUMES, Capability.EVENTS),
        }
    )

    def __init__(self, class_name: str, config: ProcessBackend, cluster: str) -> None:
        self._class_name = class_name
        self._config = config
        self._cluster = cluster
        self._starter = Starter(config)
        self._looker = Looker(class_name, cluster)
        self._follower = Follower()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"process-{class_name}")
        self._closed = threading.Event()

    # -- looking

    async def check(self) -> str:
        """See protocol."""
        return await self._run(self._check)

    async def list_owned(self) -> tuple[Instance, ...]:
        """See protocol."""
        seen = await self._run(self._list)
        self._follower.follow(seen)
        return tuple(one.instance for one in seen)

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        """See protocol."""
        seen = await self._run(lambda: self._look(ref))
        self._follower.follow(seen)
        return tuple(one.instance for one in seen)

    async def logs(self, ref: WorkspaceRef, tail: int) -> str:
        """See protocol."""
        return await self._run(lambda: self._logs(ref, tail))

    async def watch(self, wake: Wake) -> None:
        """See protocol. The listing at its begin finds the processes that earlier operators started."""
        self._follower.begin(wake)
        try:
            await self.list_owned()
            await asyncio.Event().wait()
        finally:
            self._follower.end()

    # -- verbs

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        """See protocol."""
        seen = await self._run(lambda: self._provision(request))
        self._follower.follow([seen])
        return seen.instance

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        """See protocol."""
        seen = await self._run(lambda: self._stop(request))
        return tuple(one.instance for one in seen)

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        """See protocol."""
        return await replace(self, request, grace)

    async def deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        """See protocol."""
        await self._run(lambda: self._deliver(ref, incarnation, files))

    async def delete_data(self, ref: WorkspaceRef) -> bool:
        """See protocol."""
        return await self._run(lambda: self._delete_data(ref))

    async def close(self) -> None:
        """See protocol. The processes run on; whoever comes next finds them."""
        self._closed.set()
        self._follower.end()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- the same, in a thread

    async def _run(self, work: Callable[[], T]) -> T:
        """Do the work in a thread, with a deadline; whatever the disk says becomes an error of ours."""
        if self._closed.is_set():
            raise BackendUnreachable(Reason.BACKEND_UNREACHABLE, "The connection to this backend was closed.")
        try:
            async with asyncio.timeout(_DEADLINE):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise BackendUnreachable(
                Reason.BACKEND_UNREACHABLE, f"The disk of {self._config.directory} does not answer."
            ) from error
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise self._unreachable() from error
        except OSError as error:
            raise explain_disk(error, self._config.directory) from error

    def _unreachable(self) -> BackendUnreachable:
        return BackendUnreachable(
            Reason.BACKEND_UNREACHABLE,
            f"The directory {self._config.directory} of the class is missing or cannot be read; is its disk mounted?",
        )

    def _check(self) -> str:
        directory = Path(self._config.directory)
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()  # it has no name, so that a crash leaves nothing
        except OSError as error:
            what = os.strerror(error.errno or 0)
            raise BadRequest(
                Reason.MISCONFIGURED,
                f"spec.process.directory: {directory} cannot be created and written ({what}); choose another.",
            ) from error
        for image in self._config.images:
            path = next((v.value for v in image.env if v.name == "PATH"), os.environ.get("PATH", os.defpath))
            try:
                find_program(image.command[0], path)
            except BadRequest as error:
                raise BadRequest(Reason.MISCONFIGURED, f"spec.process.images[{image.name}].command: {error}") from error
        return f"processes under {directory}, {len(self._config.images)} images"

    def _home(self, ref: WorkspaceRef) -> Home:
        if ref.cluster != self._cluster:
            raise BackendError(
                Reason.INTERNAL_ERROR, f"Workspace {ref.namespace}/{ref.name} belongs to another cluster."
            )
        return Home(self._config.directory, self._cluster, ref.uid)

    def _list(self) -> list[Seen]:
        return self._settle_ended(
            [
                seen
                for home in homes(self._config.directory, self._cluster)
                for seen in self._looker.look(home, only_class=self._class_name)
            ]
        )

    def _look(self, ref: WorkspaceRef) -> list[Seen]:
        home = self._home(ref)
        Path(self._config.directory).stat()  # a missing root is not an absent workspace
        found = self._settle_ended(self._looker.look(home))
        if not found:
            self._sweep(home)
        return found

    def _sweep(self, home: Home) -> None:
        """A crash within a release leaves crumbs that show no instance, so no verb comes by here again."""
        if not Path(home.path).is_dir():
            return
        with _locked(home) as lock:
            if lock is not None and not home.rooms():
                home.sweep()
                home.vanish_if_empty()

    def _settle_ended(self, found: list[Seen]) -> list[Seen]:
        """Clear up after those that ended since the last look, also by themselves or while no operator was there."""
        ended = [seen for seen in found if seen.unsettled]
        if ended:
            carriers = self._looker.census.take()
            for seen in ended:
                self._settle(seen, carriers.get(seen.room.path, []), release=False, patience=0.0)
        return found

    def _logs(self, ref: WorkspaceRef, tail: int) -> str:
        home = self._home(ref)
        Path(self._config.directory).stat()  # a missing root is not a workspace that wrote nothing
        rooms = home.rooms()
        return rooms[-1].tail(tail) if rooms else ""

    # provision

    def _provision(self, request: ProvisionRequest) -> Seen:
        self._starter.resolve(request.template)
        home = self._home(request.ref)
        home.prepare()
        mine = self._refuse_second(request, self._looker.look(home))
        if mine is None or mine.instance.reading is Reading.HALTED:
            self._start(request, home)
        elif mine.instance.reading is Reading.FROZEN:
            self._signal_everything(mine, signal.SIGCONT)
            system.wait_until(lambda: _state(mine) != "T", _SIGNAL_EFFECT)
        elif mine.instance.reading is Reading.FAILED:
            raise BackendError(Reason.INSTANCE_FAILED, f"{mine.instance.message} Release it to start anew.")
        else:
            return mine
        found = self._refuse_second(request, self._looker.look(home))
        if found is None:
            raise BackendError(Reason.PROVISION_FAILED, "The instance was released while it was being started.")
        return found

    @staticmethod
    def _refuse_second(request: ProvisionRequest, seen: list[Seen]) -> Seen | None:
        """The requested incarnation if it exists; an error if another one is live."""
        for one in seen:
            if one.live and one.instance.incarnation != request.incarnation:
                ref = request.ref
                raise BackendError(
                    Reason.PROVISION_FAILED,
                    f"Incarnation {one.instance.incarnation} of {ref.namespace}/{ref.name} is still live; "
                    f"incarnation {request.incarnation} starts once it is stopped.",
                )
        return next((one for one in seen if one.instance.incarnation == request.incarnation), None)

    def _start(self, request: ProvisionRequest, home: Home) -> None:
        """Start under the lock; if another operator holds it, its process is the instance and is adopted."""
        with _locked(home) as lock:
            if lock is None or any(system.alive(room.mark()) for room in home.rooms()):
                return
            self._looker.bury(home.room(request.incarnation))  # what was told to stop is not what starts now
            room, port = prepare(request, home, self._starter)
            self._starter.start(request, room, lock, port)

    # stop

    def _stop(self, request: StopRequest) -> list[Seen]:
        home = self._home(request.ref)
        Path(self._config.directory).stat()
        below = request.only_before
        for seen in self._looker.look(home):
            if below is None or seen.instance.incarnation < below:
                self._stop_one(seen, request)
        return self._looker.look(home)

    def _stop_one(self, seen: Seen, request: StopRequest) -> None:
        if seen.live and request.freeze and not request.release:
            self._freeze(seen)
            return
        if seen.live and not self._end(seen, request.grace):
            return
        self._settle(seen, self._looker.census.of(seen.room.path), release=request.release, patience=0.1)

    def _freeze(self, seen: Seen) -> None:
        if seen.instance.reading is Reading.RUNNING:
            signalled = self._signal_everything(seen, signal.SIGSTOP)
            system.wait_until(lambda: all(system.halted(pid) for pid in signalled), _SIGNAL_EFFECT)

    def _end(self, seen: Seen, grace: timedelta) -> bool:
        """Ask a live instance to end, or kill it when its grace is over; whether it is seen dead already."""
        key = (seen.room.path, seen.mark)
        now = datetime.now(UTC)
        since = self._looker.halting.setdefault(key, now)
        if now - since >= grace:
            self._signal_everything(seen, signal.SIGKILL)
            return system.wait_until(lambda: _state(seen) is None, _SIGNAL_EFFECT)
        if since is now and seen.mark is not None and system.alive(seen.mark):
            system.signal_group(seen.mark, signal.SIGTERM)
            system.signal_group(seen.mark, signal.SIGCONT)  # a frozen one has to wake up to end
        return False

    def _settle(self, seen: Seen, escaped: list[int], *, release: bool, patience: float) -> None:
        """The main process is dead: kill what escaped from its group, drop the identity, and release if asked.

        Under the lock: so nothing of it runs, and no other operator starts it meanwhile.
        """
        with _locked(seen.room.home, patience) as lock:
            if lock is None or system.alive(seen.room.mark()):
                return
            if escaped:  # found by a census before the lock, so none of them is a new start
                system.signal_all(escaped, signal.SIGKILL)
                system.wait_until(lambda: not any(map(system.runs, escaped)), _SIGNAL_EFFECT)
            shutil.rmtree(seen.room.identity, ignore_errors=True)  # left over after a crash, it is tried again
            self._looker.bury(seen.room)
            if release:
                remove(Path(seen.room.path))
                seen.room.home.sweep()
                seen.room.home.vanish_if_empty()

    def _signal_everything(self, seen: Seen, number: signal.Signals) -> list[int]:
        """Signal the group and whoever left it but still carries the instance's marker; all that were found."""
        if seen.mark is not None and system.alive(seen.mark):
            system.signal_group(seen.mark, number)
        found = self._looker.census.of(seen.room.path)
        system.signal_all(found, number)
        return found

    # identity and data

    def _deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        room = self._home(ref).room(incarnation)
        if not system.alive(room.mark()):
            raise BackendError(
                Reason.IDENTITY_FAILED, f"Incarnation {incarnation} of {ref.namespace}/{ref.name} does not run."
            )
        room.write_identity(files, exactly=False)

    def _delete_data(self, ref: WorkspaceRef) -> bool:
        home = self._home(ref)
        Path(self._config.directory).stat()
        if not Path(home.path).is_dir():
            return True
        if any(seen.live for seen in self._looker.look(home)):
            return False
        with _locked(home) as lock:
            if lock is None or any(system.alive(room.mark()) for room in home.rooms()):
                return False
            gone = home.remove_data()
            home.vanish_if_empty()
            return gone


def _state(seen: Seen) -> str | None:
    found = system.alive(seen.mark)
    return found.state if found else None


@contextmanager
def _locked(home: Home, patience: float = 0.1) -> Iterator[int | None]:
    """The workspace's lock, or None while another holds it. A child that inherits it keeps it beyond this block."""
    lock = system.take_lock(home.lock, patience)
    try:
        yield lock
    finally:
        if lock is not None:
            os.close(lock)
