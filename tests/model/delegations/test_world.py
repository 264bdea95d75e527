"""All that may happen to a delegation: edits, lost answers, crashes at every call, targets that go, in every order.

Each configuration is explored breadth-first, to closure, with the real passes and errands (see ``machine``); a broken
promise is reported with the shortest way to it. From every state that is found, the world turns calm: the delegation
must come to the end that is wished, its claim must end, and its time to live must be kept.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import pytest
from tests.model.delegations.explore import TAKEN, Explorer, Found
from tests.model.delegations.scenarios import CONFIGS, starts
from tests.model.delegations.world import Config

from workspace_operator.api.delegation import DelegationStatus
from workspace_operator.lifecycle.delegation import plan, report
from workspace_operator.lifecycle.delegation.facts import Goal, Sight
from workspace_operator.lifecycle.delegation.table import TABLE, Guard, Row
from workspace_operator.reconcile.delegation import sight
from workspace_operator.reconcile.delegation.errands import Talk

LINES: list[str] = []  # for the terminal summary
pytestmark = pytest.mark.timeout(1200)  # the first test waits for all explorations


def _explore(config: Config) -> tuple[Found, Counter[Row]]:
    TAKEN.clear()
    return Explorer(config).run(*starts(config)), Counter(TAKEN)


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Found]]:
    """Every configuration explored, on as many cores as there are."""
    with multiprocessing.get_context("fork").Pool(maxtasksperchild=1) as pool:
        results = pool.map(_explore, CONFIGS, chunksize=1)
    for result, taken in results:
        TAKEN.update(taken)
        LINES.append(result.line())
    total = sum(result.states for result, _ in results), sum(result.transitions for result, _ in results)
    LINES.append(f"together {total[0]} states and {total[1]} transitions")
    yield {result.config.name: result for result, _ in results}


@pytest.mark.parametrize("name", [config.name for config in CONFIGS])
def test_every_promise_holds_in(name: str, found: dict[str, Found]) -> None:
    """I-60, I-61, I-62, I-64, I-65, I-66, I-68, I-69, I-71."""
    broken = found[name].violations.values()
    assert not broken, "\n\n".join(broken)


def test_stuck_is_found_and_none_of_its_states_is_a_dead_end(found: dict[str, Found]) -> None:
    """I-66: from each of them the calm end is the one that is wished."""
    assert sum(result.stuck for result in found.values()) > 100


def test_every_row_of_the_table_is_taken_by_something_that_may_happen(found: dict[str, Found]) -> None:
    """No row is there for nothing. Of what is over, nothing is looked at any more but the claim and the time."""
    untaken = {(row.goal, row.sight, row.guard) for row in TABLE if not TAKEN[row]}
    closed = {(goal, seen, guard) for goal, seen, guard in untaken if goal is Goal.CLOSE}
    assert {guard for goal, _, guard in closed} <= {Guard.CLAIMED, Guard.TTL_OVER, Guard.ALWAYS}
    assert {row.guard for row in TABLE if row.goal is Goal.CLOSE and TAKEN[row]} >= {guard for _, _, guard in closed}
    by_hand = {(Goal.DELIVER, Sight.UNSENT, guard) for guard in (Guard.SPENT, Guard.RESTING)}
    assert untaken - closed == by_hand, "an attempt on record without the claim: only when somebody took it off by hand"


# -- the model itself --------------------------------------------------------------------------------------------------

_UNASKED = Config("planted", knows_doubles=False, lists=False, faults=("send", "crash"), fault_budget=1)
_STOPPED = Config("planted", edits=("Stopped",), edit_budget=1)
_AT_MOST_ONCE = replace(_UNASKED, may_resend=False)
_TRUE, _FALSE = (lambda s: True), (lambda s: False)


def _uncounted(record: DelegationStatus, number: int, *, again: bool) -> DelegationStatus:
    return _sent(record, number, again=False)


def _unseen(record: DelegationStatus, talk: Talk, claimed: bool) -> Sight:
    seen = _sighted(record, talk, claimed)
    return Sight.UNDELIVERED if seen is Sight.UNSURE else seen


_sent, _sighted = report.sent, sight._sight


@pytest.mark.parametrize(
    ("config", "planted", "caught"),
    [
        (_UNASKED, mock.patch.object(report, "sent", _uncounted), "resends are on record (I-61)"),
        (replace(_UNASKED, lists=True), mock.patch.object(sight, "_sight", _unseen), "has it (I-61)"),
        (_AT_MOST_ONCE, mock.patch.dict(plan.GUARDS, {Guard.AT_MOST_ONCE: _FALSE}), "a double although"),
        (_STOPPED, mock.patch.dict(plan.GUARDS, {Guard.CANCEL_OVER: _TRUE}), "goes on at the agent (I-71)"),
        (_STOPPED, mock.patch.object(plan, "_wake_in", lambda row, s: None), "nothing will look at it again (I-68)"),
        (_STOPPED, mock.patch.object(report, "unanswered", lambda s: None), "is not on record (I-71)"),
        (_STOPPED, mock.patch.dict(plan.GUARDS, {Guard.TTL_OVER: _TRUE}), "before its time to live is over (I-69)"),
    ],
    ids=["01 resends", "02 sends without asking", "03 sends twice", "04 no cancel", "05 sleeps", "06 silent", "07 ttl"],
)
def test_the_model_catches_a_planted_bug(config: Config, planted: mock._patch, caught: str) -> None:  # type: ignore[type-arg]
    with planted:
        broken = Explorer(config).run(*starts(config)).violations
    assert any(caught in promise for promise in broken), list(broken)
