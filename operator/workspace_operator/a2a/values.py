"""What is sent to an agent and what it tells of a task, in our own frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class TaskState(StrEnum):
    """What an agent says of a task."""

    WORKING = "Working"  # submitted or working
    INPUT_REQUIRED = "InputRequired"  # it waits for input or for authentication
    COMPLETED = "Completed"
    FAILED = "Failed"
    REJECTED = "Rejected"  # not taken now; it may be offered again later
    CANCELED = "Canceled"

    @property
    def over(self) -> bool:
        return self not in (TaskState.WORKING, TaskState.INPUT_REQUIRED)


@dataclass(frozen=True)
class Answer:
    """What a task came to: all text of its artifacts (or of the agent's message), joined by blank lines."""

    data: bytes  # valid UTF-8
    media_type: str = "text/plain"


@dataclass(frozen=True)
class TaskView:
    """A task as its agent described it."""

    id: str  # empty: the agent answered with a plain message and keeps no task
    context_id: str
    state: TaskState
    message: str = ""  # the agent's own words: its question, why it failed; at most 1024 characters
    answer: Answer | None = None


@dataclass(frozen=True)
class OutgoingPart:
    """Exactly one of the three is set."""

    text: str | None = None
    data: Mapping[str, Any] | None = None
    url: str | None = None
    media_type: str | None = None


@dataclass(frozen=True)
class Outgoing:
    """One message to an agent. Its id is the same in every sending, so that a receiver can tell doubles."""

    message_id: str
    context_id: str
    parts: tuple[OutgoingPart, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
