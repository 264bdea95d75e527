"""What the metrics module promises beyond names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from workspace_operator.api.states import DelegationPhase
from workspace_operator.reconcile.delegation.ledger import Ledger
from workspace_operator.telemetry import metrics


def _operations(outcome: str) -> float:
    labels = {"operation": "tested", "outcome": outcome}
    return REGISTRY.get_sample_value("workspace_operator_identity_operations_total", labels) or 0.0


def test_an_operation_on_a_token_is_counted_by_how_it_ended() -> None:
    with metrics.counted("tested"):
        assert (_operations("ok"), _operations("error")) == (0, 0)
    assert (_operations("ok"), _operations("error")) == (1, 0)
    with pytest.raises(OSError), metrics.counted("tested"):
        raise OSError
    assert (_operations("ok"), _operations("error")) == (1, 1)


def test_a_class_that_is_gone_is_forgotten_by_every_gauge_and_no_other_class_is() -> None:
    for name in ("gone", "kept"):
        metrics.FUSE_BLOWN.labels(name).set(1)
        metrics.ORPHANS.labels(name, "NoWorkspace").set(3)
        metrics.WORKSPACES.labels(name, "Failed").set(2)
    metrics.forget_class("gone")
    left = {sample.labels.get("class") for family in REGISTRY.collect() for sample in family.samples}
    assert "kept" in left
    assert "gone" not in left
    metrics.forget_class("kept")


def test_every_help_text_is_a_sentence() -> None:
    for family in REGISTRY.collect():
        if family.name.startswith("workspace_operator"):
            text = family.documentation
            assert (text[0].isupper() or text[0].isdigit()) and text.endswith("."), f"{family.name}: {text}"


def test_the_oldest_delegation_that_is_queued_is_the_one_whose_age_is_shown() -> None:
    """One that runs for days is no backlog; one that no pass has looked at yet is queued."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def shown(*entries: tuple[DelegationPhase | None, int]) -> float | None:
        found = [("k", SimpleNamespace(phase=phase, created=now - timedelta(seconds=age))) for phase, age in entries]
        desk: Any = SimpleNamespace(
            book=SimpleNamespace(entries=lambda: iter(found)), clock=SimpleNamespace(now=lambda: now)
        )
        Ledger(desk, lambda body: None, lambda key, uid: None).count()
        return REGISTRY.get_sample_value("workspace_operator_delegation_oldest_queued_seconds")

    assert shown((DelegationPhase.QUEUED, 60), (None, 90), (DelegationPhase.WORKING, 9000)) == 90
    assert shown((DelegationPhase.WORKING, 9000)) == 0
