"""The effective state, walk by walk, and the fingerprint of what an instance is made from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import DesiredState, EffectiveReason
from workspace_operator.lifecycle.effective import MAX_DEPTH, Node, effective
from workspace_operator.lifecycle.parameters import fingerprint

R, P, S = DesiredState.RUNNING, DesiredState.PAUSED, DesiredState.STOPPED


def family(*wishes: DesiredState) -> dict[str, Node]:
    """A chain, the child first: "0" has parent "1" and so on."""
    last = len(wishes) - 1
    return {str(i): Node(str(i), wished, str(i + 1) if i < last else None) for i, wished in enumerate(wishes)}


@pytest.mark.parametrize(
    ("wishes", "state", "reason"),
    [
        pytest.param((R,), R, EffectiveReason.USER, id="01 alone"),
        pytest.param((R, P), P, EffectiveReason.PARENT, id="02 the parent is paused"),
        pytest.param((R, R, R, P), P, EffectiveReason.PARENT, id="03 a great-grandparent is paused"),
        pytest.param((P, R), P, EffectiveReason.USER, id="04 the parent's resume does not resume a paused child"),
        pytest.param((P, P), P, EffectiveReason.USER, id="05 both: its own wish"),
        pytest.param((P, S, P), S, EffectiveReason.PARENT, id="06 the lowest of all"),
        pytest.param((S, P), S, EffectiveReason.USER, id="07 lower than the parent"),
    ],
)
def test_the_lowest_wish_of_all_ancestors_counts(
    wishes: tuple[DesiredState, ...], state: DesiredState, reason: EffectiveReason
) -> None:
    """I-12 (03), I-29 (04)."""
    nodes = family(*wishes)
    outcome = effective(nodes["0"], nodes.get)
    assert (outcome.state, outcome.reason, outcome.problem) == (state, reason, None)


@given(st.lists(st.sampled_from([R, P, S]), min_size=1, max_size=MAX_DEPTH))
def test_it_is_never_above_any_ancestor(wishes: list[DesiredState]) -> None:
    """I-12."""
    nodes = family(*wishes)
    assert effective(nodes["0"], nodes.get).state.rank == max(wished.rank for wished in wishes)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        pytest.param({"0": Node("0", R, "gone")}, Reason.PARENT_NOT_FOUND, id="01 no such parent"),
        pytest.param({"0": Node("0", R, "1"), "1": Node("1", R, "gone")}, Reason.PARENT_NOT_FOUND, id="02 further up"),
        pytest.param({"0": Node("0", R, "1"), "1": Node("1", R, "0")}, Reason.PARENT_CYCLE, id="03 in a circle"),
        pytest.param({"0": Node("0", R, "0")}, Reason.PARENT_CYCLE, id="04 its own parent"),
        pytest.param(family(*[R] * (MAX_DEPTH + 2)), Reason.PARENT_TOO_DEEP, id="05 too many"),
    ],
)
def test_what_cannot_be_looked_up_starts_nothing_and_says_what_to_do(nodes: dict[str, Node], reason: Reason) -> None:
    problem = effective(nodes["0"], nodes.get).problem
    assert problem is not None and problem.reason == reason
    assert problem.message.startswith("Not started: ")


def test_as_many_ancestors_as_are_allowed_are_walked() -> None:
    nodes = family(*[R] * MAX_DEPTH, P)
    assert effective(nodes["0"], nodes.get).state is P


def test_the_fingerprint_does_not_depend_on_the_order_of_keys_and_fits_a_label() -> None:
    one, other = fingerprint({"a": 1, "b": [2]}, "t"), fingerprint({"b": [2], "a": 1}, "t")
    assert one == other
    assert len(one.text) <= 63


@given(st.text(max_size=20), st.text(max_size=20))
def test_template_and_token_are_told_apart(template: str, token: str) -> None:
    """I-24, I-84: which of the two changed decides whether a restart is asked for or merely pending."""
    made = fingerprint({"image": template}, token)
    assert made.same_template(made.text) and made.same_token(made.text)
    assert not made.same_token(fingerprint({"image": template}, token + "x").text)
    assert not made.same_template(fingerprint({"image": template + "x"}, token).text)
