"""What this process remembers of its launches, because EC2's listings come later than its answers.

"Eventual consistency" (EC2 Developer Guide): an instance that was just made may not be listed for a while, and one
whose answer was lost may exist without anybody knowing its id. Until a listing shows it, a launch is listed from here,
reading Starting, so that nobody takes the workspace for absent: no second launch, no finalizer removed. Used inside
backends/ec2 only.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from workspace_operator.api import meta
from workspace_operator.backends.ec2 import shape
from workspace_operator.backends.ec2.readings import Seen
from workspace_operator.backends.ec2.shape import Place
from workspace_operator.backends.protocol import Instance, ProvisionRequest, Reading

NOT_LISTED: Final = "EC2 was asked for it and does not show it yet."
UNKNOWN_FOR: Final = 60.0  # seconds after the last unanswered request until it counts as without effect
KNOWN_FOR: Final = 300.0  # seconds an answered launch may stay unlisted; AWS says to reckon with minutes
SEEN_FOR: Final = 30.0  # the same once it was listed
DRY_FOR: Final = 180.0  # seconds a place without capacity is not tried first (karpenter: three minutes)
_FORGET: Final = 3600.0


@dataclass
class Launch:
    """One RunInstances, word for word, so that asking again is the same request."""

    request: ProvisionRequest = field(repr=False)
    place: Place
    asked: dict[str, Any] = field(repr=False)
    sent_at: float | None = None  # None: nothing has left for EC2
    doubtful: bool = False  # it may have had an effect that nobody has seen
    id: str | None = None

    @property
    def token(self) -> str:
        """The client token."""
        return str(self.asked["ClientToken"])

    def send(self) -> None:
        """It leaves for EC2 now; from here on it may have had its effect."""
        self.sent_at = time.monotonic()

    def seen(self) -> Seen:
        """As it is listed until EC2 lists it."""
        tags = shape.instance_tags(self.request)
        instance = Instance(
            ref=self.request.ref,
            incarnation=self.request.incarnation,
            reading=Reading.STARTING,
            id=self.id or self.token,
            parameters=tags[meta.LABEL_PARAMETERS],
            node=self.place.zone,
            message=NOT_LISTED,
        )
        return Seen(instance, "", zone=self.place.zone, token=self.token, wants_data=shape.TAG_DATA in tags)


class Ledger:
    """The launches of one class. It belongs to the process, not to a driver: an edited class keeps it."""

    def __init__(self) -> None:
        self.born = time.monotonic()
        self._launches: dict[tuple[str, int], Launch] = {}
        self._started: dict[str, float] = {}  # instance → when it was told to start
        self._dry: dict[tuple[str, str], float] = {}
        self._bound: dict[str, float] = {}  # client token → when it was refused for capacity
        self._puzzled: dict[tuple[str, int], float] = {}
        self.volumes: dict[str, tuple[str, str, float]] = {}  # uid → volume, zone, when it was made

    def unsettled(self, window: float) -> float:
        """Seconds for which a listing may still lack what a process before this one made."""
        return window - (time.monotonic() - self.born)

    # -- launches

    def open(self, uid: str, incarnation: int) -> Launch | None:
        """The launch of an incarnation, if its outcome is not known."""
        launch = self._launches.get((uid, incarnation))
        return launch if launch is not None and launch.id is None else None

    def begin(self, launch: Launch) -> None:
        """About to be sent."""
        self._launches[launch.request.ref.uid, launch.request.incarnation] = launch

    def drop(self, launch: Launch) -> None:
        """Refused, or seen: nothing is open about it."""
        self._launches.pop((launch.request.ref.uid, launch.request.incarnation), None)

    def unlisted(self, listed: Collection[Seen], uids: Collection[str] | None = None) -> list[Seen]:
        """The launches (of these workspaces) that a listing should show and does not.

        One that was listed is remembered a little longer all the same: the next listing may come from a part of EC2
        that does not know it yet.
        """
        shown = {seen.token: seen for seen in listed if seen.token} | {seen.id: seen for seen in listed}
        missing = []
        for launch in list(self._launches.values()):
            if uids is not None and launch.request.ref.uid not in uids:
                continue
            found = shown.get(launch.id or launch.token) or shown.get(launch.token)
            if found is not None:
                launch.id = found.id
            if _expired(launch, seen=found is not None) or (found is not None and not found.exists):
                self.drop(launch)
            elif launch.sent_at is not None and found is None:
                missing.append(launch.seen())
        return missing

    # -- starts

    def started(self, instance: str) -> None:
        """StartInstances was answered; listings may show it stopped for a while."""
        now = time.monotonic()
        self._started = {key: at for key, at in self._started.items() if now - at < _FORGET}
        self._started[instance] = now

    def stopped(self, instances: Iterable[str]) -> None:
        """Told to stop: that it is shown stopped is true again."""
        for instance in instances:
            self._started.pop(instance, None)

    def is_starting(self, instance: str, window: float) -> bool:
        """Whether "stopped" is a listing's lag."""
        at = self._started.get(instance)
        return at is not None and time.monotonic() - at < window

    # -- places and tokens

    def dry(self, launch: Launch) -> None:
        """EC2 has no capacity there: the token has made nothing, and is bound to the parameters of that request."""
        now = time.monotonic()
        self._dry[launch.place.subnet, launch.place.machine_type] = now
        self._bound = {key: at for key, at in self._bound.items() if now - at < _FORGET} | {launch.token: now}

    def is_bound(self, launch: Launch) -> bool:
        """Whether this process knows that the token has made nothing."""
        return launch.token in self._bound

    def in_order(self, places: Iterable[Place]) -> list[Place]:
        """The class's order, with those last that were without capacity a short while ago."""
        now = time.monotonic()
        return sorted(places, key=lambda p: now - self._dry.get((p.subnet, p.machine_type), -DRY_FOR) < DRY_FOR)

    def puzzled_for(self, uid: str, incarnation: int) -> float:
        """Seconds since EC2 first knew a token whose instance it does not show."""
        now = time.monotonic()
        self._puzzled = {key: at for key, at in self._puzzled.items() if now - at < _FORGET}
        return now - self._puzzled.setdefault((uid, incarnation), now)


def _expired(launch: Launch, *, seen: bool) -> bool:
    if launch.sent_at is None:
        return False
    keep = SEEN_FOR if seen else UNKNOWN_FOR if launch.id is None else KNOWN_FOR
    return time.monotonic() - launch.sent_at > keep
