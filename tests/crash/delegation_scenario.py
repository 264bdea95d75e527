"""What becomes of a delegation, whenever the operator dies: each delivery is a new one, to agents that stay alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.support.a2a_plain import DE_DUPLICATES, LISTS_NOTHING, NO_STREAMING

from workspace_operator.lifecycle.delegation.plan import EXPIRY_PATIENCE

QUESTION = "question"  # a ConfigMap with a message, and its key
LONG_ANSWER = 9000  # bytes; the preview holds 4,096
DEADLINE = 3  # seconds
OVERSLEPT = DEADLINE + EXPIRY_PATIENCE.total_seconds() + 2  # then one that did not sleep would not wait any more


class Receiver(StrEnum):
    """The workspaces that are delegated to. Each takes one task at a time."""

    LISTING = "listing"  # works on whatever it is given, and can be asked for its tasks
    MUTE = "mute"  # the same, and cannot be asked: what may have arrived is sent again
    KEEPING = "keeping"  # cannot be asked, and works once on each message id


OPTIONS: Mapping[Receiver, tuple[str, ...]] = {
    Receiver.LISTING: (),
    Receiver.MUTE: (LISTS_NOTHING, NO_STREAMING),
    Receiver.KEEPING: (LISTS_NOTHING, DE_DUPLICATES),
}


class Wish(StrEnum):
    """What the user wants once the agent is at work, or asks."""

    STOP = "stop"
    DELETE = "delete"


Ends = tuple[tuple[str, str], ...]  # phase and reason
DONE: Ends = (("Completed", "Completed"),)
CANCELLED: Ends = (("Cancelled", "Cancelled"),)
EXPIRED: Ends = (("Failed", "DeadlineExceeded"),)


@dataclass(frozen=True)
class Delivery:
    """One delegation, and how it may end."""

    name: str
    text: str = "now"
    receiver: Receiver = Receiver.LISTING
    spec: Mapping[str, Any] = field(default_factory=dict)
    ahead: str | None = None  # what another one asks of the receiver, given right before
    wish: Wish | None = None
    ends: Ends = DONE
    always_sent: bool = True  # a death may not keep it from the agent
    answer_bytes: int = len("done")
    goes: bool = False  # the object, too
    unattended: bool = False  # given while no operator runs: one that starts finds it
    keyed: bool = False  # under an idempotency key, and so with a name that its sender is granted to read
    absence: float = 0.0  # seconds from its creation on in which nobody takes over after a death


def _deadline(name: str, absence: float = 0.0) -> Delivery:
    spec = {"deadline": f"{DEADLINE}s"}
    return Delivery(name, "seconds=600", spec=spec, ends=EXPIRED, always_sent=False, absence=absence)


DELIVERIES = (
    Delivery("deliver"),
    Delivery("deliver, unattended", unattended=True, keyed=True),
    Delivery("deliver, long", "seconds=1.5"),
    Delivery(
        "deliver, large",
        spec={"message": None, "messageFrom": {"configMapKeyRef": {"name": QUESTION, "key": QUESTION}}},
        answer_bytes=LONG_ANSWER,
    ),
    Delivery("deliver, queued", ahead="seconds=3"),
    Delivery("deliver, busy", "rejections=1"),
    Delivery("deliver, mute", receiver=Receiver.MUTE),
    Delivery(
        "deliver, at most once",
        receiver=Receiver.MUTE,
        spec={"retry": {"whenAmbiguous": "Fail"}},
        ends=(*DONE, ("Failed", "DeliveryAmbiguous")),
        always_sent=False,
    ),
    Delivery("deliver, keeping", receiver=Receiver.KEEPING),
    Delivery("cancel", "seconds=600", wish=Wish.STOP, ends=CANCELLED),
    Delivery("cancel a question", "asks=1", wish=Wish.STOP, ends=CANCELLED),
    Delivery("delete at work", "seconds=600", wish=Wish.DELETE, ends=CANCELLED, goes=True),
    _deadline("deadline"),
    _deadline("deadline, overslept", absence=OVERSLEPT),
    Delivery("time to live", spec={"ttlAfterFinished": "2s"}, goes=True),
)
