"""The values that the plan decides on: the wish, what was seen, and what is recorded in status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import DesiredState, EffectiveReason, Reading
from workspace_operator.errors import Failure
from workspace_operator.lifecycle.parameters import Parameters


class Goal(StrEnum):
    """Where a workspace should get to: the effective state, or gone."""

    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"
    DELETED = "Deleted"


class Sight(StrEnum):
    """What is known of the compute: a reading of the current incarnation, or one of two special cases."""

    ABSENT = Reading.ABSENT.value
    STARTING = Reading.STARTING.value
    RUNNING = Reading.RUNNING.value
    FROZEN = Reading.FROZEN.value
    HALTING = Reading.HALTING.value
    HALTED = Reading.HALTED.value
    FAILED = Reading.FAILED.value
    OUTDATED = "Outdated"  # an older incarnation is still there, in any reading
    UNKNOWN = "Unknown"  # the backend could not be asked


@dataclass(frozen=True)
class Serving:
    """Whether the agent answers. ``answers`` is None while that is not known."""

    answers: bool | None
    reason: Reason
    message: str


@dataclass(frozen=True)
class Seen:
    """One observation of a workspace's compute and agent."""

    sight: Sight
    serving: Serving
    problem: Failure | None = None  # why the sight is Unknown
    incarnation: int = 0  # the newest incarnation seen, or 0
    parameters: str = ""  # of that incarnation, from its labels
    id: str | None = None
    address: str | None = None
    node: str | None = None
    image_digest: str | None = None
    exit_code: int | None = None
    message: str = ""
    why: Reason | None = None  # what the backend says more precisely than the table can
    halting_since: datetime | None = None
    data_gone: bool = False  # the data volume was seen gone
    ran: bool = False  # this process has seen it running since the start was decided

    @property
    def may_compute(self) -> bool:
        """Whether compute may be executing, as far as anyone knows."""
        return self.sight not in (Sight.ABSENT, Sight.HALTED, Sight.FAILED)


@dataclass(frozen=True)
class Wish:
    """What is asked of one workspace, after ancestors and class were taken into account."""

    goal: Goal
    effective_state: DesiredState
    effective_reason: EffectiveReason
    generation: int
    parameters: Parameters
    created: datetime | None = None
    class_name: str | None = None
    backend: str | None = None  # None: there is no usable class
    restart_token: str | None = None
    automatic_update: bool = False
    provision_timeout: timedelta = timedelta(minutes=5)
    grace: timedelta = timedelta(seconds=10)
    freeze: bool = False
    halts: bool = True  # what is stopped stays, and is started again as the same instance
    wants_credentials: bool = False
    renews_credentials: bool = False  # and the backend can deliver a fresh token to a running instance
    has_references: bool = False
    delete_data: bool = False
    blocked: Failure | None = None  # why it must not be started now
    pause_after: timedelta | None = None  # of idleness
