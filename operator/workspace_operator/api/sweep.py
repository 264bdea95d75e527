"""What a WorkspaceClass says about its orphan sweeper, and what the sweeper says back."""

from __future__ import annotations

from pydantic import Field

from workspace_operator.api.base import Model, duration_field
from workspace_operator.api.states import SweepMode


class Sweep(Model):
    """The search for compute whose workspace is gone. A leak is gone within interval + gracePeriod."""

    mode: SweepMode = Field(
        default=SweepMode.REMOVE,
        description="Remove releases orphans. Report only counts and shows them. Data volumes are never removed.",
    )
    interval: duration_field("5s", "24h") = Field(  # type: ignore[valid-type]
        default="5m", description="Time between sweeps; at most 30s in the ten minutes after the operator's start."
    )
    grace_period: duration_field("0s", "24h") = Field(  # type: ignore[valid-type]
        default="1m", description="How long an orphan must have been seen as one, in two sweeps at least."
    )
    max_percent: int = Field(
        default=20,
        ge=0,
        le=100,
        description=(
            "Fuse: when more than this share of the class's instances (and more than three) has no workspace, nothing "
            "is removed until a person agrees. 100 removes the fuse."
        ),
    )
    max_per_minute: int = Field(default=60, ge=1, le=6000, description="Removals per minute.")


class SweepFuse(Model):
    """A sweep that stopped because it would have removed too much."""

    token: str = Field(description="What the annotation workspace-operator.dev/release-fuse must say to go on.")
    orphans: int = Field(description="Orphans that a release with this token covers.")


class SweepStatus(Model):
    """What the sweeper found."""

    last_complete_time: str | None = Field(
        default=None,
        description="When backend and API server were last listed completely (RFC 3339, UTC).",
        json_schema_extra={"format": "date-time"},
    )
    orphans: int = Field(default=0, description="Instances seen that no workspace accounts for.")
    removed: int = Field(default=0, description="Orphans that were removed and then seen gone, ever since.")
    fuse: SweepFuse | None = Field(default=None, description="Present while the fuse holds removals back.")
