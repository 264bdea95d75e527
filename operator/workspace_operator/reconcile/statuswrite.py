"""Writing status: conditional on the version read, only what changed, and a failed write is a failed pass (I-28)."""

from __future__ import annotations

from typing import Any

from workspace_operator.api.base import Model
from workspace_operator.kube.client import KubeClient, Object


def difference(before: Any, after: Any) -> Any:
    """The merge patch (RFC 7386) that turns ``before`` into ``after``; ``{}`` when they are equal."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    patch = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif before[key] != value:
            patch[key] = difference(before[key], value)
    return patch


def wire(status: Model) -> dict[str, Any]:
    """A status as it is stored: no nulls, no empty lists or maps."""
    dumped = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: value for key, value in dumped.items() if value not in ([], {})}


async def write_status(
    client: KubeClient, url: str, resource_version: str, before: Model, after: Model
) -> Object | None:
    """Write what changed; None when nothing did. Raises KubeError (Conflict when the object moved on)."""
    patch = difference(wire(before), wire(after))
    if not patch:
        return None
    body = {"metadata": {"resourceVersion": resource_version}, "status": patch}
    return await client.merge(url, body)
