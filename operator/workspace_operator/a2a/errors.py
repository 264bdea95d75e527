"""How talking to an agent fails. What is known of the message's fate is in the type (I-61)."""

from __future__ import annotations

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import BackendError, BackendUnreachable, BadRequest, OperatorError


class NotDelivered(BackendError):
    """The message provably did not arrive: no connection, no usable card, or an answer that says so."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.DELIVERY_FAILED, message)


class Unanswered(BackendUnreachable):
    """No answer, or one that tells nothing: whether the request had an effect is unknown."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.DELIVERY_UNKNOWN, message)


class Refused(BadRequest):
    """The agent has answered that it does not accept this, now or later."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.DELIVERY_REFUSED, message)


class UnusableAnswer(BackendError):
    """The agent has answered about its task with something that cannot be used: too large, not valid A2A."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.ANSWER_UNUSABLE, message)


class TaskNotFound(OperatorError):
    """The agent answers that it does not know the task."""

    def __init__(self) -> None:
        super().__init__(Reason.TASK_LOST, "The agent no longer knows the task.")


class CannotAsk(OperatorError):
    """The agent answers that it cannot list tasks: whether it has one cannot be found out."""

    def __init__(self) -> None:
        super().__init__(Reason.DELIVERY_UNKNOWN, "The agent cannot be asked for the task.")
