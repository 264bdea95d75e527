"""The sweeper's judgement, as a pure function of two listings and what was seen before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workspace_operator.api.states import LIVE, DesiredState, Reading
from workspace_operator.lifecycle.orphans import (
    FLOOR,
    MEMORY,
    Book,
    Compute,
    Fuse,
    Judgement,
    Kind,
    Owner,
    Policy,
    after_removal,
    judge,
    kind_of,
    next_look,
)

GRACE = 60.0


def compute(uid: str = "u", incarnation: int = 1, reading: Reading = Reading.RUNNING, id: str = "") -> Compute:
    return Compute(id or f"i-{uid}-{incarnation}", uid, "n", uid, incarnation, reading)


def owner(uid: str = "u", **more: Any) -> Owner:
    values: dict[str, Any] = {"classes": frozenset({"c"}), "incarnation": 1, "state": None, "deleting": False, **more}
    return Owner(uid, "n", uid, **values)


def policy(**more: Any) -> Policy:
    values: dict[str, Any] = {"removes": True, "grace": timedelta(seconds=GRACE), "max_percent": 20, **more}
    return Policy("c", **values)


class Sweeps:
    """Sweeps in a row, each with its time."""

    def __init__(self, **more: Any) -> None:
        self.policy, self.book, self.released = policy(**more), Book(), None

    def __call__(self, now: float, *computes: Compute, owners: tuple[Owner, ...] = ()) -> Judgement:
        by_uid = {one.uid: one for one in owners}
        token = f"t{now:.0f}"
        judged = judge(computes, by_uid, len(owners), self.book, self.policy, self.released, now, token)
        self.book = judged.book
        return judged


def removed(judged: Judgement) -> set[str]:
    return {suspect.compute.id for suspect in judged.remove}


@pytest.mark.parametrize(
    ("seen", "of", "kind"),
    [
        (compute(), None, Kind.NO_WORKSPACE),
        (compute(reading=Reading.HALTED), None, Kind.NO_WORKSPACE),
        (compute(), owner(), None),
        (compute(), owner(classes=frozenset()), None),
        (compute(), owner(classes=frozenset({"other"})), Kind.OTHER_CLASS),
        (compute(incarnation=1), owner(incarnation=2), Kind.SUPERSEDED),
        (compute(incarnation=3), owner(incarnation=2), None),  # a status that was wiped; the pass adopts it
        (compute(), owner(state=DesiredState.PAUSED), Kind.NOT_WANTED),
        (compute(reading=Reading.FROZEN), owner(state=DesiredState.PAUSED), None),
        (compute(reading=Reading.HALTED), owner(state=DesiredState.PAUSED), None),
        (compute(reading=Reading.FROZEN), owner(state=DesiredState.STOPPED), Kind.NOT_WANTED),
        (compute(), owner(deleting=True), Kind.NOT_WANTED),
        (compute(reading=Reading.HALTED), owner(deleting=True), None),
    ],
)
def test_what_is_an_orphan(seen: Compute, of: Owner | None, kind: Kind | None) -> None:
    """I-18: running compute of a workspace that should not run is one too."""
    assert kind_of(seen, of, "c") is kind


def test_two_sightings_and_the_grace_period() -> None:
    sweep = Sweeps()
    assert removed(sweep(0, compute())) == set()
    assert next_look(sweep(1, compute()), sweep.policy, 1) == GRACE - 1
    assert removed(sweep(GRACE - 1, compute())) == set()
    assert removed(sweep(GRACE, compute())) == {"i-u-1"}


def test_one_late_sighting_is_not_enough() -> None:
    sweep = Sweeps(grace=timedelta(0))
    assert removed(sweep(0, compute())) == set()
    assert removed(sweep(1, compute())) == {"i-u-1"}


def test_an_owner_that_comes_back_clears_the_suspicion() -> None:
    """A restored control plane: the clock begins anew."""
    sweep = Sweeps()
    sweep(0, compute())
    sweep(30, compute(), owners=(owner(),))
    assert removed(sweep(GRACE + 1, compute())) == set()


def test_a_young_instance_of_the_same_uid_protects_the_old_one() -> None:
    """A removal is by UID, so all that carry it must be ripe."""
    sweep = Sweeps()
    others = (owner("other"),)
    sweep(0, compute(), owners=others)
    both = compute(), compute(incarnation=2)
    assert removed(sweep(GRACE, *both, owners=others)) == set()
    assert removed(sweep(2 * GRACE, *both, owners=others)) == {"i-u-1", "i-u-2"}


def test_what_has_a_workspace_is_corrected_and_never_removed() -> None:
    sweep = Sweeps(grace=timedelta(0))
    superseded = owner(incarnation=2)
    sweep(0, compute(), owners=(superseded,))
    judged = sweep(1, compute(), owners=(superseded,))
    assert removed(judged) == set()
    assert [suspect.kind for suspect in judged.correct] == [Kind.SUPERSEDED]


def test_report_mode_removes_nothing_and_blows_no_fuse() -> None:
    sweep = Sweeps(removes=False, grace=timedelta(0))
    many = [compute(f"u{n}") for n in range(50)]
    sweep(0, *many)
    judged = sweep(1, *many)
    assert (removed(judged), judged.book.fuse, judged.orphans) == (set(), None, 50)


def test_a_few_orphans_go_whatever_their_share() -> None:
    sweep = Sweeps(grace=timedelta(0))
    few = [compute(f"u{n}") for n in range(FLOOR)]
    sweep(0, *few, owners=(owner("other"),))
    assert len(removed(sweep(1, *few, owners=(owner("other"),)))) == FLOOR


def test_without_any_workspace_only_one_goes_by_itself() -> None:
    """An emptied control plane of a small fleet is no leak (I-16)."""
    sweep = Sweeps(grace=timedelta(0))
    two = compute("a"), compute("b")
    sweep(0, *two)
    judged = sweep(1, *two)
    assert removed(judged) == set() and judged.book.fuse == Fuse("t0", 2)


def fleet_of(leaked: int, kept: int) -> tuple[list[Compute], tuple[Owner, ...]]:
    computes = [compute(f"leak{n}") for n in range(leaked)] + [compute(f"kept{n}") for n in range(kept)]
    return computes, tuple(owner(f"kept{n}") for n in range(kept))


def test_the_fuse_waits_for_its_own_token() -> None:
    sweep = Sweeps(grace=timedelta(0))
    computes, owners = fleet_of(30, 70)
    sweep(0, *computes, owners=owners)
    assert removed(sweep(1, *computes, owners=owners)) == set()
    sweep.released = "another"
    assert removed(sweep(2, *computes, owners=owners)) == set()
    assert sweep.book.fuse == Fuse("t0", 30)
    sweep.released = "t0"
    assert len(removed(sweep(3, *computes, owners=owners))) == 30


def test_a_release_covers_what_the_person_saw_and_no_more() -> None:
    sweep = Sweeps(grace=timedelta(0))
    computes, owners = fleet_of(30, 70)
    sweep(0, *computes, owners=owners)
    sweep.released = "t0"
    worse, fewer = fleet_of(40, 60)
    judged = sweep(1, *worse, owners=fewer)
    assert removed(judged) == set() and judged.book.fuse == Fuse("t1", 40)


def test_a_repaired_control_plane_takes_the_fuse_back() -> None:
    sweep = Sweeps(grace=timedelta(0))
    computes, owners = fleet_of(30, 70)
    sweep(0, *computes, owners=owners)
    everyone = owners + tuple(owner(f"leak{n}") for n in range(30))
    judged = sweep(1, *computes, owners=everyone)
    assert (judged.book.fuse, judged.orphans) == (None, 0)


def test_a_slow_wipe_blows_the_fuse_too() -> None:
    """One orphan per sweep, each below the share: what went in the last hour counts with it."""
    sweep = Sweeps(grace=timedelta(0))
    computes, owners = fleet_of(0, 20)
    gone = 0
    for step in range(20):
        alive, lost = owners[step + 1 :], owners[step]
        orphan = compute(lost.uid)
        rest = [compute(one.uid) for one in alive]
        sweep(10.0 * step, orphan, *rest, owners=alive)
        if removed(sweep(10.0 * step + 1, orphan, *rest, owners=alive)):
            gone += 1
            sweep.book = after_removal(sweep.book, 10.0 * step + 2)
    assert gone == 4, "20 % of 20"
    later = 200 + MEMORY.total_seconds()
    computes, owners = fleet_of(1, 20)
    sweep(later, *computes, owners=owners)
    assert len(removed(sweep(later + 1, *computes, owners=owners))) == 1, "an hour later it is forgotten"


uids = st.sampled_from([f"u{n}" for n in range(6)])
computes_ = st.lists(
    st.builds(compute, uids, st.integers(1, 3), st.sampled_from(sorted(Reading, key=str))), max_size=8
).map(lambda found: list({one.id: one for one in found}.values()))
owners_ = st.lists(
    st.builds(
        owner,
        uids,
        incarnation=st.integers(0, 3),
        state=st.sampled_from([None, *DesiredState]),
        deleting=st.booleans(),
        classes=st.sampled_from([frozenset(), frozenset({"c"}), frozenset({"d"})]),
    ),
    max_size=6,
    unique_by=lambda one: one.uid,
).map(tuple)
rounds = st.lists(st.tuples(computes_, owners_, st.floats(0, 100)), min_size=1, max_size=8)


@given(rounds, st.integers(0, 100), st.booleans())
def test_whatever_is_listed_the_rules_hold(
    listings: list[tuple[list[Compute], tuple[Owner, ...], float]], max_percent: int, removes: bool
) -> None:
    """Nothing owned, nothing seen once, nothing young and nothing beyond the fuse is ever removed."""
    sweep = Sweeps(max_percent=max_percent, removes=removes)
    now, since = 0.0, dict[str, float]()
    for computes, owners, wait in listings:
        now += wait
        known = {one.uid for one in owners}
        orphans = {one.id for one in computes if one.uid not in known}
        judged = sweep(now, *computes, owners=owners)
        gone = removed(judged)
        assert gone <= orphans and (removes or not gone)
        assert all(id_ in since and now - since[id_] >= GRACE for id_ in gone)
        allowed = (
            len(computes) if max_percent == 100 else max(FLOOR if owners else 1, len(computes) * max_percent // 100)
        )
        assert len(gone) <= allowed
        for correct in judged.correct:
            assert correct.compute.uid in known
            assert correct.kind is not Kind.NOT_WANTED or correct.compute.reading in LIVE
        since = {id_: since.get(id_, now) for id_ in orphans}
