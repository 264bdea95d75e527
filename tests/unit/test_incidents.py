"""Every incident has a test that names it, or is listed as open."""

from __future__ import annotations

from tests.unit.incidents import OPEN, PARTLY, named, promises


def test_every_promise_is_named_by_a_test_or_listed_as_open() -> None:
    missing = [f"{row} {promise}" for row, promise in promises().items() if row not in named() and row not in OPEN]
    assert not missing


def test_the_list_of_open_rows_shrinks() -> None:
    assert not [f"{row} is open, and tested by {named()[row]}" for row in OPEN if row in named()]
    assert set(OPEN) | set(PARTLY) <= set(promises())


def test_no_test_names_an_incident_that_does_not_exist() -> None:
    assert set(named()) <= set(promises())
