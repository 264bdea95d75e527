"""One workspace's directory: its layout, atomic writes and removals. Imported by this package only."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workspace_operator.api import meta
from workspace_operator.api.reasons import Reason
from workspace_operator.backends import labels
from workspace_operator.backends.process.system import Mark, read
from workspace_operator.backends.protocol import WorkspaceRef
from workspace_operator.errors import BackendError

_PREFIX = "incarnation-"
_GONE = ".gone-"  # renamed out of sight and being removed; a crash leaves it to the next removal
_NEW = ".new-"  # being written; a crash leaves it to the next removal
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_TAIL_LIMIT = 4 << 20  # bytes of a log that are looked at for its last lines


def safe(component: str) -> str:
    """A UID or cluster id as a path component; anything that could leave the directory is refused."""
    if not _SAFE.fullmatch(component):
        raise BackendError(Reason.PROVISION_FAILED, f"{component!r} cannot be a directory name.")
    return component


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f"{_NEW}{uuid.uuid4().hex}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove(path: Path) -> None:
    """Remove a directory: out of sight in one step, then its content, which may take a while."""
    gone = path.with_name(f"{_GONE}{uuid.uuid4().hex}")
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


@dataclass(frozen=True)
class Record:
    """What ``instance.json`` says: the intent of one incarnation, written before its first spawn."""

    ref: WorkspaceRef
    parameters: str
    port: int | None

    def dump(self, incarnation: int) -> bytes:
        """The file's content; no secret is part of it."""
        content = {"labels": labels.of_instance(self.ref, incarnation, self.parameters), "port": self.port}
        return json.dumps(content, indent=1).encode()

    @classmethod
    def load(cls, raw: bytes) -> Record:
        """Read the file's content; raises ValueError, KeyError or TypeError when it is corrupt."""
        content = json.loads(raw)
        port = content["port"]
        return cls(
            read_labels(content["labels"]),
            str(content["labels"][meta.LABEL_PARAMETERS]),
            None if port is None else int(port),
        )


def read_labels(found: Mapping[str, str]) -> WorkspaceRef:
    """The owner that labels name; raises KeyError when one is missing, TypeError for what is no labels."""
    if not isinstance(found, Mapping):
        raise TypeError("labels are a mapping")
    if missing := labels.OWNER - found.keys():
        raise KeyError(sorted(missing)[0])
    return labels.owner(found)


class Room:
    """The directory of one incarnation."""

    def __init__(self, home: Home, incarnation: int) -> None:
        self.home = home
        self.incarnation = incarnation
        self.path = f"{home.path}/{_PREFIX}{incarnation}"

    def record(self) -> Record | None:
        """The intent; None when it cannot be read, which must not hide the other instances."""
        try:
            return Record.load(read(f"{self.path}/instance.json") or b"")
        except (ValueError, KeyError, TypeError, OSError):
            return None

    def exists(self) -> bool:
        """Whether the incarnation was prepared and not released."""
        return Path(self.path).is_dir()

    def create(self, record: Record) -> None:
        """Make the directory appear with its intent in it, in one step; keep the one that exists."""
        if self.exists():
            write_atomically(Path(self.path, "instance.json"), record.dump(self.incarnation))
            return
        new = Path(self.home.path, f"{_NEW}{uuid.uuid4().hex}")
        new.mkdir(mode=0o700)
        (new / "instance.json").write_bytes(record.dump(self.incarnation))
        new.rename(self.path)

    def mark(self) -> Mark | None:
        """The main process that ran last, if one was started."""
        return Mark.load(f"{self.path}/pid")

    def started(self) -> bool:
        """Whether a process was spawned that got as far as to write its pid."""
        return Path(self.path, "pid").exists()

    def exit_code(self, mark: Mark) -> int | None:
        """How the marked process ended, when an operator saw it."""
        fields = (read(f"{self.path}/exit") or b"").split()
        if len(fields) != 3 or fields[1:] != [str(mark.pid).encode(), str(mark.start).encode()]:
            return None
        return int(fields[0])

    def save_exit(self, mark: Mark, code: int) -> None:
        """Keep an exit code together with the process it belongs to."""
        write_exit(self.path, mark, code)

    def reset(self) -> None:
        """Forget the previous process; only under the lock, that is, when nothing runs."""
        for name in ("pid", "exit"):
            Path(self.path, name).unlink(missing_ok=True)

    @property
    def identity(self) -> Path:
        """The directory of the identity files."""
        return Path(self.path, "identity")

    def write_identity(self, files: Mapping[str, bytes], *, exactly: bool) -> None:
        """Write identity files, readable for nobody else, each in one step; ``exactly``: and no others remain."""
        directory = self.identity
        directory.mkdir(mode=0o700, exist_ok=True)
        for name, content in files.items():
            if Path(name).name != name or name.startswith("."):
                raise BackendError(Reason.IDENTITY_FAILED, f"{name!r} cannot be the name of an identity file.")
            write_atomically(directory / name, content)
        if exactly:
            for entry in directory.iterdir():
                if entry.name not in files:
                    entry.unlink(missing_ok=True)

    def tail(self, lines: int) -> str:
        """The last lines of the output, without reading all of it."""
        try:
            with Path(self.path, "output.log").open("rb") as file:
                return _tail(file.fileno(), lines)
        except FileNotFoundError:
            return ""


def write_exit(room_path: str, mark: Mark, code: int) -> None:
    """Keep an exit code; nothing to keep it for once the incarnation is released."""
    if Path(room_path).is_dir():
        write_atomically(Path(room_path, "exit"), f"{code} {mark.pid} {mark.start}\n".encode())


def _tail(fd: int, lines: int) -> str:
    if lines <= 0:
        return ""
    at = os.fstat(fd).st_size
    least = max(0, at - _TAIL_LIMIT)
    found = b""
    while at > least and found.count(b"\n") <= lines:
        step = min(65536, at - least)
        at -= step
        found = os.pread(fd, step, at) + found
    return b"".join(found.splitlines(keepends=True)[-lines:]).decode(errors="replace")


class Home:
    """The directory of one workspace, whatever its incarnations."""

    def __init__(self, root: str, cluster: str, uid: str) -> None:
        self.uid = uid
        self.cluster = cluster
        self.path = f"{root}/{safe(cluster)}/{safe(uid)}"
        self.lock = f"{self.path}/lock"

    @property
    def data(self) -> Path:
        """The volume."""
        return Path(self.path, "data")

    def rooms(self) -> list[Room]:
        """The incarnations, oldest first."""
        try:
            names = [entry.name for entry in os.scandir(self.path)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        numbers = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
        return [Room(self, number) for number in sorted(int(text) for text in numbers if text.isdigit())]

    def room(self, incarnation: int) -> Room:
        """One incarnation, existing or not."""
        return Room(self, incarnation)

    def prepare(self) -> None:
        """Make the workspace's directory; for the operator's user alone."""
        Path(self.path).mkdir(mode=0o700, parents=True, exist_ok=True)

    def prepare_data(self, ref: WorkspaceRef) -> None:
        """Make the volume, labelled before it exists (I-13)."""
        if not self.data.is_dir():
            write_atomically(
                Path(self.path, "data.json"), json.dumps(labels.of(ref, labels.ROLE_DATA), indent=1).encode()
            )
            self.data.mkdir(mode=0o700, exist_ok=True)

    def data_owner(self) -> WorkspaceRef | None:
        """The owner of the volume as its labels say, None when there is none or it cannot be read."""
        try:
            return read_labels(json.loads(read(f"{self.path}/data.json") or b""))
        except (ValueError, KeyError, TypeError, OSError):
            return None

    def remove_data(self) -> bool:
        """Remove the volume and its labels; True once they are seen gone, also by an earlier, interrupted removal."""
        remove(self.data)
        self.sweep()
        if self.data.exists() or any(Path(self.path).glob(f"{_GONE}*")):
            return False
        Path(self.path, "data.json").unlink(missing_ok=True)
        return True

    def sweep(self) -> None:
        """Finish what a crash interrupted. Only under the lock, so that nothing is being written."""
        for pattern in (f"{_GONE}*", f"{_NEW}*"):
            for entry in Path(self.path).glob(pattern):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)

    def holder(self) -> int | None:
        """The incarnation that took the lock last."""
        text = (read(self.lock) or b"").strip()
        return int(text) if text.isdigit() else None

    def vanish_if_empty(self) -> None:
        """Remove the directory once neither data nor an incarnation is in it. Only under the lock."""
        if not self.data.exists() and not self.rooms():
            Path(self.lock).unlink(missing_ok=True)
            try:
                Path(self.path).rmdir()
            except OSError:  # somebody else's file is in it: not ours to remove
                return
