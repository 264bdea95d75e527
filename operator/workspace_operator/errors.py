"""The one family of errors: each carries the class of its failure and a sentence a person can act on.

Every room may import this module; it imports none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureClass(StrEnum):
    """Who has to act. Used as a metric label and in ``status.failures.class``."""

    BAD_REQUEST = "BadRequest"  # the user: the manifest asks for something impossible
    BACKEND = "Backend"  # nobody yet: the backend failed or is away; it is tried again
    QUOTA = "Quota"  # the platform team: a limit or a capacity is exhausted
    INTERNAL = "Internal"  # us: a bug, or an answer that nobody foresaw


@dataclass(frozen=True)
class Failure:
    """One failure as a value. It cannot be built without a message (incident I-81)."""

    failure_class: FailureClass
    reason: str
    message: str

    def __post_init__(self) -> None:
        if not self.reason or not self.message.strip():
            raise ValueError("a Failure needs a CamelCase reason and a sentence that says what to do")


class OperatorError(Exception):
    """Base of all errors that the operator raises on purpose.

    ``reason`` is a CamelCase constant of :mod:`workspace_operator.api.reasons`; ``message`` is shown to users, so it
    never contains a secret or a raw upstream body (incident I-53): such detail goes to ``__cause__`` and debug logs.
    """

    failure_class: FailureClass = FailureClass.INTERNAL

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(self.failure_class, reason, message)


class BadRequest(OperatorError):
    """The wish cannot be met as written; trying again without an edit is pointless."""

    failure_class = FailureClass.BAD_REQUEST


class BackendError(OperatorError):
    """The backend refused or failed and said so; its effect is known to be absent or will be seen by observing."""

    failure_class = FailureClass.BACKEND


class BackendUnreachable(BackendError):
    """No answer, or an ambiguous one. It is never a reading: nothing is concluded about the instance (I-40)."""


class QuotaExceeded(OperatorError):
    """A limit of the class, the engine or the cloud account is reached."""

    failure_class = FailureClass.QUOTA
