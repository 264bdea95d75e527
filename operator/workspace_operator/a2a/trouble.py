"""What went wrong with a request to an agent, before it is known what was asked; ``errors`` says what that means."""

from __future__ import annotations

from enum import StrEnum

import httpcore
import httpx
from a2a.utils import errors as sdk

# Proven not to have been worked on (RFC 9110, 15.4.2-15.4.9, 15.5.9, 15.6.4; RFC 6585, 4; RFC 8470, 5.2).
_NOT_NOW = frozenset({301, 302, 307, 308, 408, 421, 425, 429, 503})
# The path comes from the card, which may have been of an earlier agent at the same address.
_WRONG_PATH = frozenset({404, 405, 410})


class Kind(StrEnum):
    """Also the outcome in metrics."""

    UNREACHED = "unreached"  # no byte of the request's body was written
    NOT_NOW = "not_now"  # the agent says that it did not work on it
    MISSING = "missing"  # the agent has no such path, method or version
    UNSUPPORTED = "unsupported"  # the agent does not offer this operation
    REFUSED = "refused"  # the agent says no
    NO_TASK = "no_task"
    NOT_CANCELABLE = "not_cancelable"
    LOST = "lost"  # the request was written, and no complete answer came, or one that tells nothing
    UNUSABLE = "unusable"  # a complete answer that is not usable A2A


class Trouble(Exception):
    """One failed request: what is known, and a sentence of ours (I-53)."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


def of_status(status: int) -> Trouble:
    """The trouble behind an HTTP status other than 200."""
    sentence = f"The agent answered with the HTTP status {status}."
    if status in _WRONG_PATH:
        return Trouble(Kind.MISSING, sentence)
    if status in _NOT_NOW:
        return Trouble(Kind.NOT_NOW, sentence)
    if status == 501:
        return Trouble(Kind.UNSUPPORTED, sentence)
    if 400 <= status < 500:
        return Trouble(Kind.REFUSED, sentence)
    return Trouble(Kind.LOST, sentence)


# JSON-RPC errors of the A2A specification, section 5.4, and of JSON-RPC 2.0, section 5.1.
_ERRORS: dict[type[sdk.A2AError], tuple[Kind, str]] = {
    sdk.TaskNotFoundError: (Kind.NO_TASK, "The agent does not know the task."),
    sdk.TaskNotCancelableError: (Kind.NOT_CANCELABLE, "The agent answers that the task cannot be cancelled."),
    sdk.UnsupportedOperationError: (Kind.UNSUPPORTED, "The agent does not support this operation."),
    sdk.PushNotificationNotSupportedError: (Kind.UNSUPPORTED, "The agent does not support push notifications."),
    sdk.ContentTypeNotSupportedError: (Kind.REFUSED, "The agent does not take content of this type."),
    sdk.ExtensionSupportRequiredError: (Kind.REFUSED, "The agent demands an A2A extension."),
    sdk.ExtendedAgentCardNotConfiguredError: (Kind.REFUSED, "The agent demands an extended card."),
    sdk.InvalidParamsError: (Kind.REFUSED, "The agent does not accept the parameters."),
    sdk.InvalidRequestError: (Kind.REFUSED, "The agent does not accept the request."),
    sdk.JSONParseError: (Kind.REFUSED, "The agent could not read the request."),
    sdk.MethodNotFoundError: (Kind.MISSING, "The agent does not know the method."),
    sdk.VersionNotSupportedError: (Kind.MISSING, "The agent does not speak the A2A version of its card."),
    # The last two say that something failed while working on it.
    sdk.InternalError: (Kind.LOST, "The agent reports an internal error."),
    sdk.InvalidAgentResponseError: (Kind.LOST, "The agent reports an invalid answer of its own."),
}
KNOWN_CODES = tuple(sdk.JSON_RPC_ERROR_CODE_MAP[error] for error in _ERRORS)


def of(error: Exception, *, written: bool) -> Trouble:
    """The trouble behind an exception of a request; ``written`` says whether its body may have been sent.

    Raises the exception itself when it is none of the request: a bug of ours.
    """
    if isinstance(error, Trouble):
        return error
    if isinstance(error, sdk.A2AError) and type(error) in _ERRORS:
        return Trouble(*_ERRORS[type(error)])
    if isinstance(error, NotImplementedError):
        return Trouble(Kind.UNSUPPORTED, "The agent's version of A2A has no such operation.")
    if isinstance(error, TimeoutError | httpcore.TimeoutException):
        if written:
            return Trouble(Kind.LOST, "The agent did not answer in time.")
        return Trouble(Kind.UNREACHED, "The agent could not be reached in time.")
    if isinstance(error, httpcore.NetworkError | httpcore.ProtocolError):
        if written:
            return Trouble(Kind.LOST, "The connection to the agent broke before its answer.")
        return Trouble(Kind.UNREACHED, "The agent does not accept connections.")
    if isinstance(error, httpx.InvalidURL):
        return Trouble(Kind.UNREACHED, "The agent's address is not usable.")
    if not written:
        raise error
    return Trouble(Kind.UNUSABLE, "The agent's answer is not valid A2A.")
