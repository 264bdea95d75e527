"""Who may delegate to whom: a table, and random families against the rules written down plainly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workspace_operator.api.reasons import Reason
from workspace_operator.lifecycle.delegation.permission import Member, Name, Outcome, Rule, Verdict, permission
from workspace_operator.lifecycle.effective import MAX_DEPTH

Tree = Mapping[str, str | None]

FAMILY: Tree = {
    "eve": None,
    "adam": None,
    **{"child": "eve", "brother": "eve", "cousin's parent": "adam"},
    **{"grandchild": "child", "nephew": "brother", "cousin": "cousin's parent"},
    **{"orphan": "gone", "orphan's sibling": "gone", "orphan's child": "orphan"},
    **{"ring 1": "ring 2", "ring 2": "ring 3", "ring 3": "ring 1", "own parent": "own parent"},
}


def chain(length: int) -> Tree:
    """ "0" is the root and "1" its child, down to ``length`` levels below it."""
    return {str(level): str(level - 1) if level else None for level in range(length + 1)}


def ask(tree: Tree, sender: str, receiver: str) -> Verdict:
    def lookup(namespace: str, name: str) -> Member | None:
        return Member(namespace, name, tree[name]) if name in tree else None

    return permission(lookup("n", sender), lookup("n", receiver), (Name("n", sender), Name("n", receiver)), lookup)


@pytest.mark.parametrize(
    ("sender", "receiver", "expected"),
    [
        pytest.param("eve", "adam", Rule.ROOTS, id="01 roots"),
        pytest.param("child", "brother", Rule.SIBLINGS, id="02 siblings"),
        pytest.param("child", "eve", Rule.ANCESTOR, id="03 the parent"),
        pytest.param("grandchild", "eve", Rule.ANCESTOR, id="04 a grandparent"),
        pytest.param("eve", "grandchild", Rule.DESCENDANT, id="05 a grandchild"),
        pytest.param("orphan", "orphan's child", Rule.DESCENDANT, id="06 what is above both does not matter"),
        pytest.param("child", "child", Reason.NOT_PERMITTED, id="07 itself"),
        pytest.param("child", "nephew", Reason.NOT_PERMITTED, id="08 a nephew"),
        pytest.param("nephew", "child", Reason.NOT_PERMITTED, id="09 an uncle"),
        pytest.param("grandchild", "nephew", Reason.NOT_PERMITTED, id="10 cousins"),
        pytest.param("eve", "cousin", Reason.NOT_PERMITTED, id="11 of another root"),
        pytest.param("nobody", "eve", Reason.SOURCE_NOT_FOUND, id="12 no sender"),
        pytest.param("eve", "nobody", Reason.TARGET_NOT_FOUND, id="13 no receiver"),
        pytest.param("orphan", "orphan's sibling", Reason.PARENT_NOT_FOUND, id="14 siblings of a parent that is not"),
        pytest.param("orphan's child", "eve", Reason.PARENT_NOT_FOUND, id="15 perhaps a descendant"),
        pytest.param("eve", "ring 1", Reason.PARENT_CYCLE, id="16 in a circle"),
        pytest.param("own parent", "eve", Reason.PARENT_CYCLE, id="17 its own parent"),
    ],
)
def test_within_a_namespace(sender: str, receiver: str, expected: Rule | Reason) -> None:
    verdict = ask(FAMILY, sender, receiver)
    if isinstance(expected, Rule):
        assert verdict == Verdict(Outcome.ALLOWED, rule=expected)
        return
    assert verdict.outcome is (Outcome.DENIED if expected is Reason.NOT_PERMITTED else Outcome.UNKNOWN)
    assert verdict.failure is not None and verdict.failure.reason == expected
    assert repr(sender) in verdict.failure.message and repr(receiver) in verdict.failure.message


@pytest.mark.parametrize("down", [False, True])
def test_the_deepest_ancestor_that_counts(down: bool) -> None:
    names = ("0", str(MAX_DEPTH)) if down else (str(MAX_DEPTH), "0")
    assert ask(chain(MAX_DEPTH), *names).rule is (Rule.DESCENDANT if down else Rule.ANCESTOR)
    names = ("0", str(MAX_DEPTH + 1)) if down else (str(MAX_DEPTH + 1), "0")
    verdict = ask(chain(MAX_DEPTH + 1), *names)
    assert verdict.outcome is Outcome.DENIED
    assert verdict.failure is not None and verdict.failure.reason == Reason.PARENT_TOO_DEEP


def test_a_denial_names_the_rule_and_what_to_change() -> None:
    failure = ask(FAMILY, "grandchild", "nephew").failure
    assert failure is not None and failure.message == (
        "Workspace 'grandchild' may not delegate to 'nephew': within a namespace siblings may, roots among each other, "
        "and an ancestor and its descendant up to 32 levels apart; give both the same spec.parentRef, or make one an "
        "ancestor of the other."
    )


# -- across namespaces -------------------------------------------------------------------------------------------------


def across(sender: Mapping[str, Any], receiver: Mapping[str, Any]) -> Verdict:
    both = Name("here", "a"), Name("there", "b")
    one = Member(*both[0], **{"parent": None, "to_namespaces": ("there",), **sender})
    other = Member(*both[1], **{"parent": None, "from_namespaces": ("he*",), **receiver})
    return permission(one, other, both, lambda namespace, name: None)


UNREADABLE = {"class_known": False}


@pytest.mark.parametrize(
    ("sender", "receiver", "outcome", "said"),
    [
        pytest.param({}, {}, Outcome.ALLOWED, "", id="01 both sides name the other"),
        pytest.param({"to_namespaces": ("*",)}, {}, Outcome.ALLOWED, "", id="02 a pattern"),
        pytest.param({"to_namespaces": ()}, {}, Outcome.DENIED, "class of 'a'.*toNamespaces.*'there'", id="03 sender"),
        pytest.param({"to_namespaces": ("the",)}, {}, Outcome.DENIED, "toNamespaces", id="04 only a part of the name"),
        pytest.param(
            {}, {"from_namespaces": ()}, Outcome.DENIED, "class of 'b'.*fromNamespaces.*'here'", id="05 target"
        ),
        pytest.param({"from_namespaces": ("*",), "to_namespaces": ()}, {}, Outcome.DENIED, "to", id="06 the wrong way"),
        pytest.param({"parent": "p"}, {}, Outcome.DENIED, "only roots.*'p'", id="07 a child"),
        pytest.param({}, {"parent": "p"}, Outcome.DENIED, "only roots.*'p'", id="08 to a child"),
        pytest.param(UNREADABLE, {}, Outcome.UNKNOWN, "'a' in namespace 'here' cannot be read", id="09 no class"),
        pytest.param({}, UNREADABLE, Outcome.UNKNOWN, "'b' in namespace 'there' cannot be read", id="10 nor there"),
        pytest.param(UNREADABLE, {"from_namespaces": ()}, Outcome.DENIED, "class of 'b'", id="11 denied either way"),
    ],
)
def test_across_namespaces(sender: Mapping[str, Any], receiver: Mapping[str, Any], outcome: Outcome, said: str) -> None:
    verdict = across(sender, receiver)
    assert verdict.outcome is outcome
    if outcome is Outcome.ALLOWED:
        assert verdict.rule is Rule.ACROSS
        return
    assert verdict.failure is not None
    reason = Reason.NOT_PERMITTED if outcome is Outcome.DENIED else Reason.CLASS_NOT_FOUND
    assert verdict.failure.reason == reason
    assert "'here/a'" in verdict.failure.message and "'there/b'" in verdict.failure.message
    assert re.search(said, verdict.failure.message)


# -- against the rules, written down plainly ---------------------------------------------------------------------------


def plainly(tree: Tree, sender: str, receiver: str) -> Outcome:
    """By the set of ancestors; a way up that has no end in sight is not an answer."""

    def way_up(name: str) -> tuple[list[str], str]:
        way: list[str] = []
        while (parent := tree[name]) is not None:
            if len(way) == MAX_DEPTH:
                return way, "deep"
            if parent in way:
                return way, "circle"
            way.append(parent)
            if parent not in tree:
                return way, "gone"
            name = parent
        return way, "root"

    if sender == receiver:
        return Outcome.DENIED
    if sender not in tree or receiver not in tree:
        return Outcome.UNKNOWN
    (above_sender, end), (above_receiver, other_end) = way_up(sender), way_up(receiver)
    siblings = tree[sender] == tree[receiver] and (tree[sender] is None or tree[sender] in tree)
    if siblings or receiver in above_sender or sender in above_receiver:
        return Outcome.ALLOWED
    return Outcome.UNKNOWN if {"gone", "circle"} & {end, other_end} else Outcome.DENIED


_NAMES = st.sampled_from("abcdefgh")
_FORESTS = st.dictionaries(_NAMES, st.one_of(st.none(), _NAMES))


@given(_FORESTS, _NAMES, _NAMES)
def test_any_family_is_judged_as_by_the_plain_rules(tree: Tree, sender: str, receiver: str) -> None:
    verdict = ask(tree, sender, receiver)
    assert verdict.outcome is plainly(tree, sender, receiver)
    assert (verdict.failure is None) == (verdict.rule is not None) == (verdict.outcome is Outcome.ALLOWED)


@given(st.integers(0, 2 * MAX_DEPTH), st.integers(0, 2 * MAX_DEPTH), st.booleans())
def test_so_is_any_depth(sender: int, receiver: int, ring: bool) -> None:
    tree = {**chain(2 * MAX_DEPTH), **({"0": str(MAX_DEPTH + 4)} if ring else {})}
    verdict = ask(tree, str(sender), str(receiver))
    assert verdict.outcome is plainly(tree, str(sender), str(receiver))
