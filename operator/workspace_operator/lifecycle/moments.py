"""Moments in time as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def parse(text: str) -> datetime:
    """RFC 3339 text as an aware datetime. Raises ValueError when it is none."""
    return datetime.fromisoformat(text)


def text(moment: datetime) -> str:
    """An aware datetime as RFC 3339 in UTC, in whole seconds as ``metav1.Time`` has them."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
