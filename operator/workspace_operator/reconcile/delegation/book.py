"""The newest known version of every delegation, and the line before each target."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workspace_operator.api.delegation import Delegation
from workspace_operator.api.meta import CLAIM_FINALIZER
from workspace_operator.api.quantity import duration
from workspace_operator.api.states import TERMINAL, DelegationPhase
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.delegation.queueing import Line, Waiting
from workspace_operator.reconcile.activity import NOTHING, Activity, is_in_flight, wakes
from workspace_operator.reconcile.store import key_of

_NO_PLACE = (DelegationPhase.INPUT_REQUIRED, DelegationPhase.STUCK)  # in flight, and not keeping the agent busy
_DELETED_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One delegation as last seen."""

    raw: bytes
    uid: str
    version: int
    namespace: str
    name: str
    source: str  # key of the workspace that delegates
    target: str  # key of the workspace that is to do it
    priority: int
    created: datetime
    deadline: datetime
    phase: DelegationPhase | None
    in_flight: bool
    claimed: bool
    wakes: bool
    finished: datetime | None  # when it was over, if the agent had it
    delete_at: datetime | None  # when it is over: until then it is kept

    @property
    def over(self) -> bool:
        return self.phase in TERMINAL

    def parse(self) -> Delegation:
        """Raises pydantic.ValidationError when the stored object does not fit the schema."""
        return Delegation.model_validate_json(self.raw)


class Book:
    """Fed by the watch, by listings and by the answers of our own writes; an older version never replaces a newer."""

    def __init__(self, changed: Callable[[Entry | None, Entry], None] = lambda _, __: None) -> None:
        """``changed`` is told each new version, with the one before."""
        self._changed = changed
        self._entries: dict[str, Entry] = {}
        self._by_target: dict[str, set[str]] = {}
        self._by_source: dict[str, set[str]] = {}
        self._lines: dict[str, Line] = {}
        self._deleted: dict[str, int] = {}

    def put(self, body: dict[str, Any]) -> bool:
        """Remember an object; False when a newer version is known. Raises pydantic.ValidationError."""
        metadata = body["metadata"]
        key = key_of(metadata["namespace"], metadata["name"])
        version, known = int(metadata["resourceVersion"]), self._entries.get(key)
        if version <= max(known.version if known is not None else 0, self._deleted.get(metadata["uid"], 0)):
            return False
        slim = {**body, "metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}
        entry = _entry(json.dumps(slim, separators=(",", ":")).encode(), version)
        if known is not None:
            self._unlink(key, known)
            if known.uid != entry.uid:
                self.leave(key, known.target)
        self._entries[key] = entry
        self._by_target.setdefault(entry.target, set()).add(key)
        self._by_source.setdefault(entry.source, set()).add(key)
        if entry.over:
            self.leave(key, entry.target)
        elif known is None and entry.in_flight and entry.phase not in _NO_PLACE:
            self.line(entry.target).fly(key, entry.source)  # another process has claimed it; it keeps its place
        self._changed(known, entry)
        return True

    def drop(self, key: str, uid: str, deleted_at: int | None = None) -> Entry | None:
        """Forget an object and its place; a namesake with another UID stays. The entry that was dropped."""
        if deleted_at is not None:
            self._deleted[uid] = deleted_at
            if len(self._deleted) > _DELETED_KEPT:
                del self._deleted[next(iter(self._deleted))]
        known = self._entries.get(key)
        if known is None or known.uid != uid:
            return None
        self._unlink(key, known)
        del self._entries[key]
        self.leave(key, known.target)
        return known

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        yield from list(self._entries.items())

    def __len__(self) -> int:
        return len(self._entries)

    def to(self, target: str) -> list[tuple[str, Entry]]:
        """Delegations to a workspace."""
        return [(key, self._entries[key]) for key in self._by_target.get(target, ())]

    def by(self, source: str) -> list[tuple[str, Entry]]:
        """Delegations from a workspace."""
        return [(key, self._entries[key]) for key in self._by_source.get(source, ())]

    def activity(self, target: str) -> Activity:
        """What delegations ask of a workspace."""
        keys = self._by_target.get(target)
        if not keys:
            return NOTHING
        entries = [self._entries[key] for key in keys]
        last = max((entry.finished for entry in entries if entry.finished is not None), default=None)
        return Activity(sum(e.in_flight for e in entries), sum(e.wakes for e in entries), last)

    # -- places ----------------------------------------------------------------------------------------------------

    def line(self, target: str) -> Line:
        """The line before one target."""
        return self._lines.setdefault(target, Line())

    def join(self, key: str, entry: Entry, capacity: int) -> bool:
        """Stand in line; whether it may go now."""
        line = self.line(entry.target)
        line.join(Waiting(key, entry.source, entry.priority, entry.created))
        return line.may_go(key, capacity)

    def leave(self, key: str, target: str) -> None:
        """Neither waits nor occupies a place any more."""
        line = self._lines.get(target)
        if line is not None:
            line.leave(key)
            if line.empty:
                del self._lines[target]

    def next(self, target: str, capacity: int) -> tuple[str, ...]:
        """Who may go now."""
        line = self._lines.get(target)
        return line.turn(capacity) if line is not None else ()

    def _unlink(self, key: str, entry: Entry) -> None:
        for index, of in ((self._by_target, entry.target), (self._by_source, entry.source)):
            keys = index.get(of)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del index[of]


def _entry(raw: bytes, version: int) -> Entry:
    seen = Delegation.model_validate_json(raw)
    metadata, spec, status = seen.metadata, seen.spec, seen.status
    created = moments.parse(metadata.creation_timestamp)
    finished = moments.parse(status.finish_time) if status.finish_time else None
    return Entry(
        raw=raw,
        uid=metadata.uid,
        version=version,
        namespace=metadata.namespace,
        name=metadata.name,
        source=key_of(metadata.namespace, spec.from_.name),
        target=key_of(spec.to.namespace or metadata.namespace, spec.to.name),
        priority=spec.priority,
        created=created,
        deadline=created + duration(spec.deadline),
        phase=status.phase,
        in_flight=is_in_flight(seen),
        claimed=CLAIM_FINALIZER in metadata.finalizers,
        wakes=wakes(seen),
        finished=finished if status.start_time else None,
        delete_at=finished + duration(spec.ttl_after_finished) if finished is not None else None,
    )
