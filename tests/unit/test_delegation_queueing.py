"""Whose turn it is at one target, against a slow and obvious line, and in runs that hypothesis makes up."""

from __future__ import annotations

from collections import Counter, deque
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import NOW

from workspace_operator.lifecycle.delegation.queueing import Line, Waiting


def waiting(key: str, source: str = "a", priority: int = 0, age: int = 0) -> Waiting:
    return Waiting(key, source, priority, NOW - timedelta(seconds=age))


def line(*all_of_them: Waiting) -> Line:
    made = Line()
    for one in all_of_them:
        made.join(one)
    return made


@pytest.mark.parametrize(
    ("joined", "order"),
    [
        pytest.param([], "", id="01 nobody"),
        pytest.param([waiting("x", age=1), waiting("y", age=2)], "yx", id="02 the oldest"),
        pytest.param([waiting("y"), waiting("x")], "xy", id="03 of one age: by key"),
        pytest.param([waiting("x", age=9), waiting("y", priority=1)], "yx", id="04 priority before age"),
        pytest.param(
            [waiting("x", age=9), waiting("y", age=8), waiting("z", "b")], "xzy", id="05 sources in turn before age"
        ),
        pytest.param(
            [waiting("x", priority=2), waiting("y", age=9), waiting("z", "b")],
            "xzy",
            id="06 what a source has of a higher priority counts",
        ),
    ],
)
def test_the_order(joined: list[Waiting], order: str) -> None:
    assert "".join(line(*joined).turn(10)) == order


def test_the_source_with_fewer_flying_goes_first() -> None:
    made = line(waiting("x", "a", age=9), waiting("y", "b"))
    made.fly("elsewhere", "a")
    assert made.turn(2) == ("y",)


def test_the_source_whose_last_task_ended_longest_ago_goes_first() -> None:
    made = line(waiting("x", "a", age=9), waiting("y", "b"), waiting("z", "new"))
    for key, source in (("1", "b"), ("2", "a")):
        made.fly(key, source)
        made.leave(key)
    assert made.turn(3) == ("z", "y", "x")


def test_what_is_over_or_held_back_stands_in_nobodys_way() -> None:
    made = line(waiting("x", age=9), waiting("y"))
    made.leave("x")
    made.leave("never seen")
    assert made.turn(1) == ("y",)
    made.fly("y", "a")
    assert not made.may_go("x", 2) and (made.flying, made.waiting) == (1, 0)
    made.leave("y")
    assert made.empty


def test_a_claim_takes_a_place_even_where_there_is_none() -> None:
    """After a restart the claims are read from the objects, and the capacity may have been lowered."""
    made = line(waiting("x"))
    for key in ("1", "2", "3"):
        made.fly(key, "a")
    assert made.turn(2) == () and not made.may_go("x", 3)
    assert made.may_go("x", 4)


def test_one_that_comes_back_waits_again() -> None:
    made = line(waiting("x"))
    made.fly("x", "a")
    made.join(waiting("x"))
    assert (made.flying, made.waiting, made.turn(1)) == (0, 1, ("x",))


# -- against the rule, written down plainly ----------------------------------------------------------------------------


class Plain:
    """The same line without any structure: each place goes to the least of all that wait."""

    def __init__(self) -> None:
        self.waiting: dict[str, Waiting] = {}
        self.flying: dict[str, str] = {}
        self.ended: dict[str, int] = {}
        self.endings = 0

    def join(self, one: Waiting) -> None:
        self.leave(one.key)
        self.waiting[one.key] = one

    def fly(self, key: str, source: str) -> None:
        if self.flying.get(key) != source:
            self._land(key)
            self.waiting.pop(key, None)
            self.flying[key] = source

    def leave(self, key: str) -> None:
        self._land(key)
        self.waiting.pop(key, None)
        if not self.waiting and not self.flying:
            self.ended.clear()

    def _land(self, key: str) -> None:
        if key in self.flying:
            self.endings += 1
            self.ended[self.flying.pop(key)] = self.endings

    def turn(self, capacity: int) -> tuple[str, ...]:
        flying, left, chosen = Counter(self.flying.values()), dict(self.waiting), list[str]()
        while left and len(self.flying) + len(chosen) < capacity:
            first = min(
                left.values(),
                key=lambda one: (-one.priority, flying[one.source], self.ended.get(one.source, 0), one.since, one.key),
            )
            flying[first.source] += 1
            chosen.append(first.key)
            del left[first.key]
        return tuple(chosen)


_KEYS, _SOURCES = st.sampled_from("stuvwxyz"), st.sampled_from("abc")
_WAITING = st.builds(waiting, _KEYS, _SOURCES, st.integers(-1, 1), st.integers(0, 3))
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), _WAITING),
        st.tuples(st.just("fly"), _KEYS, _SOURCES),
        st.tuples(st.just("leave"), _KEYS),
    ),
    max_size=40,
)


@given(_STEPS)
def test_it_answers_as_the_plain_rule_does_and_every_step_can_be_repeated(steps: list[tuple[str, ...]]) -> None:
    made, plain = Line(), Plain()
    for name, *arguments in steps:
        getattr(plain, name)(*arguments)
        for _ in range(2):
            getattr(made, name)(*arguments)
        assert (made.flying, made.waiting) == (len(plain.flying), len(plain.waiting))
        assert made.empty == (not plain.flying and not plain.waiting)
        for capacity in range(9):
            turn = made.turn(capacity)
            assert turn == plain.turn(capacity)
            assert {key for key in "stuvwxyz" if made.may_go(key, capacity)} == set(turn)


# -- whole runs --------------------------------------------------------------------------------------------------------

_CROWD = st.lists(st.tuples(_SOURCES, st.integers(-1, 1), st.integers(0, 3)), max_size=30).map(
    lambda rows: [waiting(f"{number:02}", *row) for number, row in enumerate(rows)]
)


@given(_CROWD, st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_crowd_before_a_busy_target_is_served_to_the_last_one(
    crowd: list[Waiting], capacity: int, random: Random
) -> None:
    """I-60: whatever the order in which passes ask and tasks end, there are never more than the target takes, no place
    stays empty while somebody waits, and everyone goes exactly once.
    """
    made, went = line(*crowd), list[str]()
    flying: set[str] = set()
    while not made.empty:
        going = len(went)
        for one in random.sample(crowd, len(crowd)):
            if made.may_go(one.key, capacity):
                made.fly(one.key, one.source)
                flying.add(one.key)
                went.append(one.key)
                assert made.flying == len(flying) <= capacity
        assert len(went) > going or flying
        assert len(flying) == capacity or made.waiting == 0
        for key in random.sample(sorted(flying), random.randint(1, len(flying))):
            made.leave(key)
            flying.remove(key)
    assert sorted(went) == [one.key for one in crowd]


@given(_CROWD, st.integers(0, 4), st.integers(0, 6), st.randoms(use_true_random=False))
def test_those_whose_turn_it_is_may_go_in_any_order(
    crowd: list[Waiting], busy: int, capacity: int, random: Random
) -> None:
    """So it is enough to wake them once: no pass that goes ahead turns another one away."""
    made = line(*crowd)
    for number in range(busy):
        made.fly(f"busy-{number}", "abc"[number % 3])
    turn = set(made.turn(capacity))
    by_key = {one.key: one for one in crowd}
    for key in random.sample(sorted(turn), len(turn)):
        assert made.may_go(key, capacity)
        made.fly(key, by_key[key].source)
        turn.remove(key)
        assert set(made.turn(capacity)) == turn


@given(st.integers(1, 25), st.integers(1, 6), st.randoms(use_true_random=False))
def test_ten_sources_with_the_same_load_keep_pace(capacity: int, each: int, random: Random) -> None:
    """Whoever came first, and with tasks of one length: no source is ever more than one ahead of another."""
    crowd = [waiting(f"{source}-{number}", f"s{source}") for source in range(10) for number in range(each)]
    crowd = [waiting(one.key, one.source, age=random.randint(0, 100)) for one in crowd]
    made, by_key = line(*crowd), {one.key: one for one in crowd}
    went: Counter[str] = Counter({one.source: 0 for one in crowd})
    flying: deque[str] = deque()
    while not made.empty:
        for key in made.turn(capacity):
            made.fly(key, by_key[key].source)
            flying.append(key)
            went[by_key[key].source] += 1
            assert max(went.values()) - min(went.values()) <= 1
        made.leave(flying.popleft())
    assert set(went.values()) == {each}
