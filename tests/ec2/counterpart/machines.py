"""What exists: instances and volumes, with the truth about them and what of it may be seen yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .xml import Element

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
ROOT_DEVICE = "/dev/xvda"  # of the images that moto is given
ALIVE = frozenset({"pending", "running", "stopping", "shutting-down"})
ENDED = frozenset({"shutting-down", "terminated"})
USER_STOP = ("Client.UserInitiatedShutdown", "User initiated shutdown")
USER_HIBERNATE = ("Client.UserInitiatedHibernate", "User initiated hibernate")
SMALL = {"nano": 2, "micro": 2, "small": 2, "medium": 2, "large": 2, "xlarge": 4, "metal": 96}
GUEST_STOP = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")


def vcpus(instance_type: str) -> int:
    """By the size in the name: large has 2, xlarge 4, nxlarge 4 n.

    AWS source: EC2 Instance Types guide, "CPU options for Amazon EC2 instances" (the usual doubling by size).
    """
    size = instance_type.rpartition(".")[2]
    if size.endswith("xlarge") and size[:-6].isdigit():
        return 4 * int(size[:-6])
    return SMALL.get(size, 2)


@dataclass(frozen=True)
class Change:
    """One state change of one instance; ``number`` orders all changes of all instances."""

    number: int
    at: float
    instance_id: str
    state: str


@dataclass
class Taggable:
    """Tags as they are, and as they may still be seen until a change has spread."""

    tags: dict[str, str] = field(default_factory=dict)
    _before: list[tuple[float, dict[str, str]]] = field(default_factory=list, repr=False)

    def retag(self, tags: dict[str, str], delay: float) -> None:
        if delay > 0:
            self._before.append((time.time() + delay, dict(self.tags)))
        self.tags = tags

    def settle(self) -> None:
        self._before.clear()

    def seen_tags(self) -> dict[str, str]:
        now = time.time()
        self._before = [(until, old) for until, old in self._before if until > now]
        return self._before[0][1] if self._before else self.tags


@dataclass
class Machine(Taggable):
    """An instance, as a person at the console sees it."""

    id: str = ""
    number: int = 0
    region: str = ""
    zone: str = ""
    subnet: str = ""
    instance_type: str = ""
    image: str = ""
    client_token: str = ""
    reservation: str = ""
    launched: float = field(default_factory=time.time)
    params: dict[str, str] = field(default_factory=dict, repr=False)
    user_data: str = field(default="", repr=False)
    state: str = ""
    history: list[Change] = field(default_factory=list, repr=False)
    reason: tuple[str, str] = ("", "")
    transition: str = ""
    ever_ran: bool = False
    running_since: float = 0.0
    hibernatable: bool = False
    hibernated: bool = False
    ends_on_shutdown: bool = False
    protected: bool = False
    address: str = ""
    console: str = ""
    visible_at: float = 0.0
    commandable_at: float = 0.0
    gone: bool = False
    disks: dict[str, Volume] = field(default_factory=dict, repr=False)
    "What hangs on it, by volume id."
    due: asyncio.TimerHandle | None = field(default=None, repr=False)
    "The timer of the next change."
    then: Callable[[Machine], None] | None = field(default=None, repr=False)
    "And the change."
    item: Element = field(default_factory=lambda: Element("item"), repr=False)
    "As moto describes it, brought up to date before each showing."

    @property
    def vcpus(self) -> int:
        return vcpus(self.instance_type)

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    def seen_state(self, lag: float) -> str:
        """The newest state that is at least ``lag`` seconds old; the first one when none is."""
        if lag <= 0:
            return self.state
        horizon = time.time() - lag
        past = [change.state for change in self.history if change.at <= horizon]
        return past[-1] if past else self.history[0].state


@dataclass
class Volume(Taggable):
    """A disk, and where it hangs."""

    id: str = ""
    number: int = 0
    region: str = ""
    zone: str = ""
    state: str = "creating"
    encrypted: bool = False
    size: int = 0
    instance_id: str = ""
    device: str = ""
    attachment: str = ""
    "attaching, attached, detaching, or empty."
    attached_at: float = 0.0
    delete_on_termination: bool = False
    client_token: str = ""
    visible_at: float = 0.0
    item: Element | None = field(default=None, repr=False)
    "As moto describes it; None until asked for."


def max_alive(machines: list[Machine], tag: str) -> dict[str, int]:
    """For each value of a tag, the most instances that were ever alive together."""
    named = {machine.id: machine.tags[tag] for machine in machines if tag in machine.tags}
    changes = sorted((c for m in machines if m.id in named for c in m.history), key=lambda change: change.number)
    alive: dict[str, set[str]] = {}
    most: dict[str, int] = {}
    for change in changes:
        value = named[change.instance_id]
        now = alive.setdefault(value, set())
        (now.add if change.state in ALIVE else now.discard)(change.instance_id)
        most[value] = max(most.get(value, 0), len(now))
    return most
