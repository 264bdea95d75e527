"""Starting one process: its command, environment, port and the hand-over of the lock. Imported by this package only."""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from workspace_operator.api.reasons import Reason
from workspace_operator.api.workspaceclass import ImageAlias, ProcessBackend
from workspace_operator.backends.process import system
from workspace_operator.backends.process.home import Home, Record, Room
from workspace_operator.backends.protocol import ProvisionRequest, Template
from workspace_operator.errors import BackendError, BadRequest, OperatorError, QuotaExceeded

ADDRESS = "127.0.0.1"
_INHERITED = ("PATH", "HOME", "LANG")  # all that a workspace sees of the operator's own environment
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EXHAUSTED = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT}
_START_SECONDS = 2.0  # the shell takes 2 ms; beyond this the instance reads Starting until its pid is seen
_PORT_RESERVED = 60.0  # seconds in which a port that was handed out is not handed out again

# The child writes its own pid, so no crash of ours can lose it; exec keeps pid and start time. Standard input is a pipe
# until the program's own redirection closes it, and that tells us that the pid is written. A shell, for its speed.
_SCRIPT = """
read -r stat < "/proc/$$/stat" || exit 75
nth() { start=${20}; }
set -f
nth ${stat##*) }
printf '%s %s %s\\n' "$$" "$start" "$2" > "$1" || exit 75
shift 2
exec "$@" < /dev/null
"""


class Starter:
    """Turns requests into processes for one class. Its methods run in worker threads."""

    def __init__(self, config: ProcessBackend) -> None:
        self._config = config
        self._images = {image.name: image for image in config.images}
        self._ports: dict[int, float] = {}
        self._ports_lock = threading.Lock()

    def resolve(self, template: Template) -> tuple[ImageAlias, tuple[str, ...]]:
        """The alias and the full command of a template; BadRequest says what to write instead."""
        alias = self._images.get(template.image)
        if alias is None:
            known = ", ".join(sorted(self._images))
            raise BadRequest(
                Reason.IMAGE_NOT_FOUND, f"The class knows no image {template.image!r}; write one of: {known}."
            )
        if template.command is not None and not self._config.allow_command:
            raise BadRequest(
                Reason.COMMAND_NOT_ALLOWED,
                "The class does not allow spec.command; leave it out, or set spec.process.allowCommand on the class.",
            )
        return alias, (*(template.command or alias.command), *(template.args or ()))

    def start(self, request: ProvisionRequest, room: Room, lock: int, port: int | None) -> None:
        """Spawn under the lock and wait for the moment until the child has written its pid.

        The caller prepared the room and closes ``lock`` afterwards; the child holds its own copy of it.
        """
        alias, command = self.resolve(request.template)
        environment = self._environment(request, alias, room, port)
        find_program(command[0], environment["PATH"])
        directory = _working_directory(request.template, room)
        system.name_holder(lock, room.incarnation)
        shell = ["/bin/sh", "-c", _SCRIPT, "sh", f"{room.path}/pid", f"{system.boot_id()} {port or 0}"]
        begun, written = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(begun, "rb"):
            try:
                child = _spawn(
                    [*shell, *command], environment, directory, f"{room.path}/output.log", stdin=written, lock=lock
                )
            except OSError as error:
                raise _explain(error) from error
            finally:
                os.close(written)
            _await_start(begun, child, room)

    def choose_port(self, wanted: int | None, template: Template) -> int | None:
        """A port of this machine for an agent: the one it had if that is free, else any that is."""
        if template.port is None:
            return None
        with self._ports_lock:
            now = time.monotonic()
            self._ports = {port: until for port, until in self._ports.items() if until > now}
            port = _free_port(wanted) if wanted else None
            while port is None or (port != wanted and port in self._ports):
                port = _free_port(0)
            self._ports[port] = now + _PORT_RESERVED
            return port

    @staticmethod
    def _environment(request: ProvisionRequest, alias: ImageAlias, room: Room, port: int | None) -> dict[str, str]:
        environment = {"PATH": _DEFAULT_PATH}
        environment |= {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {variable.name: variable.value for variable in alias.env}
        environment |= request.environment
        for name, value in environment.items():
            if "\0" in value:
                raise BadRequest(
                    Reason.PROVISION_FAILED, f"The value of {name} holds a NUL character; no variable can."
                )
        for name in ("WORKSPACE_PORT", "WORKSPACE_DATA"):  # what the workspace has, not what it asked for
            environment.pop(name, None)
        if port is not None:
            environment |= {"WORKSPACE_BIND_ADDRESS": ADDRESS, "WORKSPACE_PORT": str(port)}
        if request.template.mount_path is not None:
            environment["WORKSPACE_DATA"] = str(room.home.data)
        return environment | {"WORKSPACE_IDENTITY": str(room.identity), system.MARKER: room.path}


def find_program(program: str, path: str) -> str:
    """Where a program is, or BadRequest with its name."""
    found = shutil.which(program, path=path)
    if found is None:
        raise BadRequest(
            Reason.PROVISION_FAILED,
            f"The program {program!r} does not exist on the operator's machine; install it or correct the class.",
        )
    return found


def _working_directory(template: Template, room: Room) -> str:
    if template.mount_path is not None:
        return str(room.home.data)
    scratch = Path(room.path, "work")
    scratch.mkdir(mode=0o700, exist_ok=True)
    return str(scratch)


def _spawn(
    command: list[str], environment: Mapping[str, str], directory: str, log: str, *, stdin: int, lock: int
) -> int:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            cwd=directory,
            stdin=stdin,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C at the operator's terminal is not meant for workspaces
            pass_fds=(lock,),
        )
    finally:
        os.close(output)
    # It is reaped through its pid, also by a driver that did not start it: this object must neither wait nor complain.
    child.returncode = 0
    return child.pid


def _await_start(begun: int, child: int, room: Room) -> None:
    """Wait until the child runs the program, or is about to in a slow moment; say so when it could not."""
    waiting = select.poll()  # not select(): an operator has more than 1,024 open files
    waiting.register(begun, select.POLLIN)
    if not waiting.poll(_START_SECONDS * 1000):
        return
    mark = room.mark()
    if mark is not None and mark.pid == child:
        return
    system.wait_until(lambda: system.exit_status(os.P_PID, child) is not None, 0.5)
    raise BackendError(
        Reason.PROVISION_FAILED, f"The process could not write its pid into {room.path}; is the disk full?"
    )


def _free_port(wanted: int) -> int | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, wanted))
        except OSError as error:
            if wanted:
                return None
            raise _explain(error) from error
        port: int = probe.getsockname()[1]
        return port


def _explain(error: OSError) -> OperatorError:
    if error.errno == errno.E2BIG:
        return BadRequest(
            Reason.PROVISION_FAILED, "The command and environment are too large for a process; shorten them."
        )
    what = os.strerror(error.errno or 0)
    if error.errno in _EXHAUSTED:
        return QuotaExceeded(
            Reason.PROVISION_FAILED, f"The operator's machine has no room for another process: {what}."
        )
    return BackendError(Reason.PROVISION_FAILED, f"The operator's machine could not start the process: {what}.")


def explain_disk(error: OSError, directory: str) -> OperatorError:
    """An error of the state directory as one of ours; its text is the kernel's and holds no secret."""
    what = os.strerror(error.errno or 0)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return QuotaExceeded(Reason.PROVISION_FAILED, f"There is no space left in {directory}: {what}.")
    return BackendError(Reason.PROVISION_FAILED, f"The directory {directory} cannot be used: {what}.")


def prepare(request: ProvisionRequest, home: Home, starter: Starter) -> tuple[Room, int | None]:
    """Everything that must be on disk before the spawn; only under the lock. A crash after any line reads Halted."""
    room = home.room(request.incarnation)
    previous = room.record()
    port = starter.choose_port(previous.port if previous else None, request.template)
    if request.template.mount_path is not None:
        home.prepare_data(request.ref)
    room.create(Record(request.ref, request.parameters, port))
    room.reset()
    room.write_identity(request.files, exactly=True)
    return room, port
