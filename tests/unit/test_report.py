"""What is put on record: intents, failures, and the status that is shown."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.kit import NOW, PARAMETERS, SERVES, at, failed, instance, record, seen, situation, wish

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Phase
from workspace_operator.api.workspace import WorkspaceStatus
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle import backoff
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.parameters import fingerprint
from workspace_operator.lifecycle.plan import Situation, plan
from workspace_operator.lifecycle.report import begun, fail, intend, report

OTHER = fingerprint({"image": "b"}, None)
HALTED = seen(Sight.HALTED)
CHANGED = wish(parameters=OTHER)

INCARNATIONS: list[tuple[str, Situation, bool, int]] = [
    ("01 the first", situation(), False, 1),
    ("02 after a release: a new one", situation(None, record(incarnation=3)), False, 4),
    ("03 halted, same template: the same goes on", situation(None, record(instance()), HALTED), False, 1),
    ("04 halted, changed template: a new one", situation(CHANGED, record(instance()), HALTED), False, 2),
    ("05 frozen: the same, whatever changed", situation(wish(parameters=OTHER), None, seen(Sight.FROZEN)), False, 1),
    ("06 restart", situation(None, record(instance()), seen(Sight.RUNNING)), True, 2),
    ("07 asked for, answer lost, not seen: the same again", situation(None, record(instance())), False, 1),
    ("08 it served and vanished: a new one", situation(None, record(instance(served=True))), False, 2),
    ("09 seen running and vanished: a new one", situation(None, record(instance()), seen(ran=True)), False, 2),
    ("10 given up and released: a new one", situation(None, record(instance(since=None))), False, 2),
    ("11 status wiped, one runs: adopted", situation(None, None, seen(Sight.RUNNING, incarnation=7)), False, 7),
    ("12 wiped, an old one halted: above it", situation(CHANGED, None, seen(Sight.HALTED, incarnation=7)), False, 8),
]  # fmt: skip


@pytest.mark.parametrize(("case", "restart", "expected"), [pytest.param(*row[1:], id=row[0]) for row in INCARNATIONS])
def test_which_incarnation_a_start_gets(case: Situation, restart: bool, expected: int) -> None:
    """I-08: a number is used again only where the same instance is meant (I-06)."""
    decided = intend(case, "process", restart)
    assert decided.incarnation == expected
    assert decided.instance is not None and decided.instance.incarnation == expected


def test_an_adopted_instance_keeps_the_parameters_it_was_made_from() -> None:
    case = situation(wish(parameters=OTHER), None, seen(Sight.RUNNING))
    decided = intend(case, "process", restart=False)
    assert decided.instance is not None and decided.instance.parameters == PARAMETERS.text


def test_a_token_counts_as_honoured_only_by_an_instance_that_carries_it() -> None:
    """I-24."""
    wished = wish(parameters=fingerprint({"image": "a"}, "t"), restart_token="t")
    assert intend(situation(wished), "process", restart=False).restart_token == "t"
    adopted = intend(situation(wished, None, seen(Sight.RUNNING)), "process", restart=False)
    assert adopted.restart_token is None


def test_failures_count_and_each_waits_twice_as_long() -> None:
    """I-26: the back-off is in status, so a crash of the operator does not shorten it."""
    status, waits = record(instance()), []
    for _ in range(4):
        status = fail(situation(None, status), Failure(FailureClass.BACKEND, "ProvisionFailed", "It failed."))
        assert status.failures is not None
        waits.append(status.failures.retry_after)
    assert status.failures is not None and status.failures.count == 4
    assert waits == [at(1), at(2), at(4), at(8)]


def test_a_failure_ends_the_start_unless_it_may_have_had_an_effect() -> None:
    problem = Failure(FailureClass.BACKEND, "ProvisionFailed", "It failed.")
    over, open_ = (fail(situation(None, record(instance())), problem, keep_start=keep) for keep in (False, True))
    assert over.instance is not None and over.instance.since is None
    assert open_.instance is not None and open_.instance.since == at(-5)


def _shown(case: Situation) -> WorkspaceStatus:
    return report(case, plan(case))


def test_confirmed_absence_clears_the_identity() -> None:
    """I-17."""
    assert _shown(situation(wish(Goal.STOPPED), record(instance()))).instance is None


def test_an_unknown_sight_changes_nothing_that_is_known_of_the_instance() -> None:
    """I-40."""
    known = instance(id="i-1", address="127.0.0.1:1", served=True)
    away = Failure(FailureClass.BACKEND, Reason.BACKEND_UNREACHABLE, "Away.")
    assert _shown(situation(None, record(known), seen(Sight.UNKNOWN, problem=away))).instance == known


def test_the_endpoint_is_only_shown_while_it_is_observed() -> None:
    """I-56: from observation, never from the agent."""
    running = seen(Sight.RUNNING, SERVES, address="127.0.0.1:9000")
    assert _shown(situation(None, record(instance()), running)).endpoint == "http://127.0.0.1:9000"
    assert _shown(situation(wish(Goal.PAUSED), record(instance()), running)).endpoint is None


def test_drift_is_shown_and_waits() -> None:
    """I-84."""
    running = seen(Sight.RUNNING, SERVES)
    assert _shown(situation(wish(parameters=OTHER), record(instance()), running)).pending_restart
    assert not _shown(situation(wish(), record(instance()), running)).pending_restart


def test_failures_are_forgotten_after_a_time_of_being_ready_and_not_before() -> None:
    """I-26: a crash loop keeps slowing."""
    case = situation(None, record(instance(served=True), failures=failed(6, -1)), seen(Sight.RUNNING, SERVES))
    shown = _shown(case)
    assert shown.failures is not None
    for elapsed, forgotten in ((31, False), (32, True)):
        later = Situation(case.wish, shown, case.seen, NOW + timedelta(seconds=elapsed))
        assert (_shown(later).failures is None) is forgotten


def test_declared_paused_and_paused_is_not_failed_any_more() -> None:
    shown = _shown(situation(wish(Goal.PAUSED), record(instance(), failures=failed()), seen(Sight.HALTED)))
    assert (shown.phase, shown.failures) == (Phase.PAUSED, None)


def test_a_second_report_of_the_same_situation_is_the_same() -> None:
    """Nothing is written when nothing changed."""
    case = situation(None, record(instance(served=True)), seen(Sight.RUNNING, SERVES))
    first = _shown(case)
    assert _shown(Situation(case.wish, first, case.seen, NOW + timedelta(seconds=60))) == first


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (10**9, 300)])
def test_the_back_off_doubles_up_to_five_minutes(failures: int, seconds: int) -> None:
    """I-26."""
    assert backoff.delay(failures) == timedelta(seconds=seconds)
    assert backoff.stable_after(failures) >= backoff.delay(failures)


def test_a_start_is_timed_from_when_the_backend_took_it() -> None:
    """I-26: neither a queue nor the end of the incarnation before uses up the provision timeout."""
    queued = record(instance(since=at(-1000)))
    taken = begun(queued, NOW).instance
    assert taken is not None and taken.since == at(0)
    paused = record(instance(since=None))
    assert begun(paused, NOW) == paused
    assert begun(record(), NOW) == record()
