"""Which compute no workspace accounts for, and what a sweep may do about it. Pure: two listings in, a judgement out.

The caller lists the backend first and the API server second, uncached; so whatever was created in between is seen with
its owner. The rules are DESIGN's, "The orphan sweeper"; the incidents behind them are I-15 to I-18.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum

from workspace_operator.api.states import LIVE, DesiredState, Reading

FLOOR = 3  # orphans that a sweep may always remove, whatever their share; 1 where no workspace exists at all
MEMORY = timedelta(hours=1)  # for so long a removal counts into the share, so that a slow wipe blows the fuse too


class Kind(StrEnum):
    """Why an instance is an orphan."""

    NO_WORKSPACE = "NoWorkspace"  # a workspace of its UID does not exist
    OTHER_CLASS = "OtherClass"  # its workspace lives in another class
    SUPERSEDED = "Superseded"  # its workspace has a newer incarnation on record
    NOT_WANTED = "NotWanted"  # it runs although its workspace is paused, stopped or being deleted


#: The sweeper removes these, because no pass ever would. Superseded and unwanted ones are put right by the pass of
#: their workspace; what lives in two classes is shown to a person, because a removal by UID could take the wrong one.
UNOWNED = frozenset({Kind.NO_WORKSPACE})


@dataclass(frozen=True, slots=True)
class Owner:
    """What the API server says of one workspace."""

    uid: str
    namespace: str
    name: str
    classes: frozenset[str]  # named in spec or recorded in status; empty: it lives in the default class
    incarnation: int  # recorded, or 0
    state: DesiredState | None  # recorded effective state
    deleting: bool


@dataclass(frozen=True, slots=True)
class Compute:
    """What the backend shows of one instance."""

    id: str
    uid: str
    namespace: str
    name: str
    incarnation: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class Suspect:
    """An instance that was seen as an orphan; ``since`` is the monotonic time of the first sighting, in seconds."""

    compute: Compute
    kind: Kind
    since: float
    sightings: int = 1


@dataclass(frozen=True)
class Fuse:
    """A blown fuse. A person's release names its token and covers so many orphans."""

    token: str
    orphans: int


@dataclass(frozen=True)
class Policy:
    """The class's wishes."""

    class_name: str
    removes: bool
    grace: timedelta
    max_percent: int


@dataclass(frozen=True)
class Book:
    """What is carried from one complete sweep to the next."""

    suspects: Mapping[str, Suspect] = field(default_factory=dict)  # by instance id
    fuse: Fuse | None = None
    removals: tuple[float, ...] = ()  # monotonic times of those that no person released


@dataclass(frozen=True)
class Judgement:
    """The outcome of one sweep: what is remembered, and what may be done now."""

    book: Book
    remove: tuple[Suspect, ...]  # oldest first
    correct: tuple[Suspect, ...]

    @property
    def unowned(self) -> int:
        """Instances that have no workspace, ripe or not."""
        return sum(suspect.kind in UNOWNED for suspect in self.book.suspects.values())

    @property
    def orphans(self) -> int:
        """What a person is shown: those without a workspace, and those that a pass did not put right in time."""
        return self.unowned + len(self.correct)


def kind_of(compute: Compute, owner: Owner | None, class_name: str) -> Kind | None:
    """Why an instance is an orphan; None when its workspace accounts for it."""
    if owner is None:
        return Kind.NO_WORKSPACE
    if owner.classes and class_name not in owner.classes:
        return Kind.OTHER_CLASS
    if compute.incarnation < owner.incarnation:
        return Kind.SUPERSEDED
    live = compute.reading in LIVE
    if owner.deleting or owner.state is DesiredState.STOPPED:
        return Kind.NOT_WANTED if live else None
    if owner.state is DesiredState.PAUSED:
        return Kind.NOT_WANTED if live and compute.reading is not Reading.FROZEN else None
    return None


def judge(
    computes: Collection[Compute],
    owners: Mapping[str, Owner],
    workspaces: int,
    before: Book,
    policy: Policy,
    released: str | None,
    now: float,
    token: str,
) -> Judgement:
    """One sweep over two complete listings.

    ``owners`` holds at least the workspaces of the UIDs that ``computes`` name; ``workspaces`` is how many exist.
    ``released`` is what the person's annotation says; ``token`` names the fuse if it blows now.
    """
    suspects = {suspect.compute.id: suspect for suspect in _suspects(computes, owners, before, policy, now)}
    recent = tuple(at for at in before.removals if now - at < MEMORY.total_seconds())
    unowned = sum(suspect.kind in UNOWNED for suspect in suspects.values())
    fuse = None
    if policy.removes and unowned and _too_many(unowned + len(recent), len(computes) + len(recent), workspaces, policy):
        # A release covers what the person saw, and no more.
        fuse = before.fuse if before.fuse is not None and unowned <= before.fuse.orphans else Fuse(token, unowned)
    ripe = sorted((s for s in suspects.values() if _is_ripe(s, policy, now)), key=lambda s: s.since)
    may_remove = policy.removes and (fuse is None or fuse.token == released)
    waiting = {s.compute.uid for s in suspects.values() if not _is_ripe(s, policy, now)}
    return Judgement(
        book=Book(suspects, fuse, recent),
        # All instances of one UID go together, so all of them must be ripe.
        remove=tuple(s for s in ripe if may_remove and s.kind in UNOWNED and s.compute.uid not in waiting),
        correct=tuple(s for s in ripe if s.kind not in UNOWNED),
    )


def after_removal(book: Book, now: float) -> Book:
    """The book once one that was removed without a person's word is seen gone."""
    return replace(book, removals=(*book.removals, now))


def next_look(judgement: Judgement, policy: Policy, now: float) -> float | None:
    """When the first suspect is ripe, in seconds from now; None when none is waiting for that."""
    waits = [
        max(0.0, s.since + policy.grace.total_seconds() - now)
        for s in judgement.book.suspects.values()
        if not _is_ripe(s, policy, now)
    ]
    return min(waits, default=None)


def _suspects(
    computes: Iterable[Compute], owners: Mapping[str, Owner], before: Book, policy: Policy, now: float
) -> Iterable[Suspect]:
    for compute in computes:
        kind = kind_of(compute, owners.get(compute.uid), policy.class_name)
        if kind is None:
            continue
        known = before.suspects.get(compute.id)
        if known is not None and known.kind is kind:
            yield replace(known, compute=compute, sightings=known.sightings + 1)
        else:
            yield Suspect(compute, kind, now)


def _is_ripe(suspect: Suspect, policy: Policy, now: float) -> bool:
    return suspect.sightings >= 2 and now - suspect.since >= policy.grace.total_seconds()


def _too_many(unowned: int, existing: int, workspaces: int, policy: Policy) -> bool:
    if policy.max_percent == 100:
        return False
    floor = FLOOR if workspaces else 1
    return unowned > max(floor, existing * policy.max_percent // 100)
