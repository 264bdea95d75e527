"""The newest known version of every object, and the few relations between them.

Objects are kept as compact JSON: a few kilobytes less each than as dictionaries, and pydantic reads JSON faster.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from workspace_operator.api.meta import is_default_class
from workspace_operator.api.states import DesiredState, Phase
from workspace_operator.api.workspace import Workspace
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.lifecycle.effective import Node

_DELETED_KEPT = 10_000  # deletions, so that a listing under way does not bring them back


def key_of(namespace: str, name: str) -> str:
    """The queue key of a workspace."""
    return f"{namespace}/{name}"


@dataclass(frozen=True, slots=True)
class Receiver:
    """What delegations need to know of a workspace."""

    endpoint: str | None = None
    serves: bool = False  # its agent answers, and it is meant to run
    effective: str | None = None
    reason: str | None = None  # who decided that
    capacity: int = 1
    deleting: bool = False
    idles: bool = False  # it pauses when it has nothing to do


@dataclass(frozen=True, slots=True)
class Entry:
    """One workspace as last seen."""

    raw: bytes
    uid: str
    version: int
    generation: int
    received: float  # monotonic time at which this generation was first seen
    name: str
    namespace: str
    desired: DesiredState
    parent: str | None
    class_name: str | None
    placed_in: str | None  # the class in which it has an instance on record
    phase: str | None
    created: str
    receiver: Receiver

    def parse(self) -> Workspace:
        """Raises pydantic.ValidationError when the stored object does not fit the schema."""
        return Workspace.model_validate_json(self.raw)


class Store:
    """Fed by watches, listings and the answers of our own writes; an older version never replaces a newer one.

    Versions are compared by name, whatever the UID: a listing that began before a workspace was made anew shows its
    predecessor, and one that began before a deletion shows what is gone.
    """

    def __init__(self, receiver_changed: Callable[[str], None] = lambda _: None) -> None:
        """``receiver_changed`` is told the key of a workspace whenever delegations should know."""
        self._receiver_changed = receiver_changed
        self._workspaces: dict[str, Entry] = {}
        self._keys: dict[str, str] = {}
        self._children: dict[tuple[str, str], set[str]] = {}
        self._deleted: dict[str, int] = {}  # uid → version of its deletion, the latest last
        self.classes: dict[str, WorkspaceClass] = {}

    # -- workspaces ----------------------------------------------------------------------------------------------------

    def put(self, body: dict[str, Any]) -> bool:
        """Remember an object; False when a newer version of it or of a namesake is known already, or its deletion."""
        metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        key = key_of(metadata["namespace"], metadata["name"])
        version, known = int(metadata["resourceVersion"]), self._workspaces.get(key)
        if version <= max(known.version if known is not None else 0, self._deleted.get(metadata["uid"], 0)):
            return False
        if known is not None:
            self._unlink(key, known)
        generation = int(metadata.get("generation", 1))
        same = known is not None and known.uid == metadata["uid"] and known.generation == generation
        slim = {**body, "metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}
        entry = self._workspaces[key] = Entry(
            raw=json.dumps(slim, separators=(",", ":")).encode(),
            uid=metadata["uid"],
            version=version,
            generation=generation,
            received=known.received if same and known is not None else time.monotonic(),
            name=metadata["name"],
            namespace=metadata["namespace"],
            desired=DesiredState(spec.get("desiredState") or DesiredState.RUNNING),
            parent=(spec.get("parentRef") or {}).get("name"),
            class_name=spec.get("className"),
            placed_in=status.get("className") if status.get("instance") else None,
            phase=status.get("phase"),
            created=metadata.get("creationTimestamp", ""),
            receiver=_receiver(metadata, spec, status),
        )
        self._keys[entry.uid] = key
        if entry.parent:
            self._children.setdefault((entry.namespace, entry.parent), set()).add(key)
        if known is None or (known.uid, known.parent, known.receiver) != (entry.uid, entry.parent, entry.receiver):
            self._receiver_changed(key)
        return True

    def drop(self, key: str, uid: str, deleted_at: int | None = None) -> bool:
        """Forget an object; a namesake with another UID stays.

        ``deleted_at`` is the version with which its deletion was told. Without one (it was not found), it may come
        back: an API server that starts does not find what it serves a moment later.
        """
        self._note_deletion(uid, deleted_at)
        known = self._workspaces.get(key)
        if known is None or known.uid != uid:
            return False
        self._unlink(key, known)
        del self._workspaces[key]
        self._receiver_changed(key)
        return True

    def get(self, key: str) -> Entry | None:
        return self._workspaces.get(key)

    def key_by_uid(self, uid: str) -> str | None:
        return self._keys.get(uid)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        yield from list(self._workspaces.items())

    def __len__(self) -> int:
        return len(self._workspaces)

    def descendants(self, namespace: str, name: str) -> set[str]:
        """Keys of all workspaces below one, at any depth; cycles end."""
        found: set[str] = set()
        ahead = [name]
        while ahead:
            for key in self._children.get((namespace, ahead.pop()), ()):
                if key not in found:
                    found.add(key)
                    ahead.append(self._workspaces[key].name)
        return found

    def node(self, namespace: str, name: str) -> Node | None:
        """What the effective state needs to know of a workspace."""
        entry = self._workspaces.get(key_of(namespace, name))
        return Node(entry.name, entry.desired, entry.parent) if entry is not None else None

    def _note_deletion(self, uid: str, version: int | None) -> None:
        if version is not None:
            self._deleted[uid] = version
            if len(self._deleted) > _DELETED_KEPT:
                del self._deleted[next(iter(self._deleted))]

    def _unlink(self, key: str, entry: Entry) -> None:
        self._keys.pop(entry.uid, None)
        if entry.parent:
            siblings = self._children.get((entry.namespace, entry.parent))
            if siblings is not None:
                siblings.discard(key)
                if not siblings:
                    del self._children[entry.namespace, entry.parent]

    # -- classes -------------------------------------------------------------------------------------------------------

    def put_class(self, seen: WorkspaceClass) -> bool:
        """As ``put``."""
        metadata = seen.metadata
        version, known = int(metadata.resource_version), self.classes.get(metadata.name)
        newest = int(known.metadata.resource_version) if known is not None else 0
        if version <= max(newest, self._deleted.get(metadata.uid, 0)):
            return False
        self.classes[metadata.name] = seen
        return True

    def drop_class(self, name: str, uid: str, deleted_at: int | None = None) -> bool:
        """As ``drop``: the deletion of one may be told after its successor was seen."""
        self._note_deletion(uid, deleted_at)
        known = self.classes.get(name)
        if known is None or known.metadata.uid != uid:
            return False
        del self.classes[name]
        return True

    def class_for(self, named: str | None, recorded: str | None) -> WorkspaceClass | None:
        """The class of a workspace: the one it names, else the one it was started in, else the default."""
        name = named or recorded
        if name is not None:
            return self.classes.get(name)
        defaults = sorted(
            (c for c in self.classes.values() if is_default_class(c.metadata.annotations)),
            key=lambda c: (c.metadata.creation_timestamp, c.metadata.name),
        )
        return defaults[-1] if defaults else None  # the newest wins, as with StorageClasses

    def keys_of_class(self, name: str) -> list[str]:
        """Workspaces that use a class, or may use it because they name none."""
        return [key for key, entry in self._workspaces.items() if entry.class_name in (name, None)]

    def users_of_class(self, name: str) -> Iterator[str]:
        """Workspaces that have an instance in a class: without the class nobody could stop it."""
        return (key for key, entry in self.entries() if entry.placed_in == name)

    def phases_of_class(self, name: str, is_default: bool) -> dict[str, int]:
        """Number of workspaces by phase."""
        counts: dict[str, int] = {}
        for entry in self._workspaces.values():
            if entry.class_name == name or (entry.class_name is None and is_default):
                counts[entry.phase or "Pending"] = counts.get(entry.phase or "Pending", 0) + 1
        return dict(sorted(counts.items()))


def _receiver(metadata: dict[str, Any], spec: dict[str, Any], status: dict[str, Any]) -> Receiver:
    available = any(c["type"] == "Available" and c["status"] == "True" for c in status.get("conditions") or ())
    return Receiver(
        endpoint=status.get("endpoint"),
        serves=available and status.get("phase") == Phase.RUNNING and status.get("endpoint") is not None,
        effective=status.get("effectiveState"),
        reason=status.get("effectiveReason"),
        capacity=int((spec.get("agent") or {}).get("maxConcurrentTasks") or 1),
        deleting=metadata.get("deletionTimestamp") is not None,
        idles=bool(spec.get("idle") or status.get("idle")),
    )
