"""Kubernetes quantities and durations as numbers, parsed by the kubernetes library."""

from __future__ import annotations

from datetime import timedelta

from kubernetes.utils.duration import parse_duration
from kubernetes.utils.quantity import parse_quantity

Quantity = str | int | float

DURATION_PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"  # GEP-2257, the form that kubectl and the Gateway API accept


def cpu(value: Quantity) -> float:
    """CPUs in cores: ``"250m"`` is 0.25. Raises ValueError when it is no quantity."""
    return float(parse_quantity(str(value)))


def size(value: Quantity) -> int:
    """Bytes: ``"1Gi"`` is 1073741824. Raises ValueError when it is no quantity."""
    return int(parse_quantity(str(value)))


def duration(value: str) -> timedelta:
    """A duration such as ``"90s"`` or ``"1h30m"``. Raises ValueError when it is none."""
    parsed: timedelta = parse_duration(value)
    return parsed
