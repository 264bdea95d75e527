"""A simulated backend: one place with the instances of several clusters, classes and people in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tests.model.backend import REFUSED
from tests.model.virtual import START, VirtualLoop
from tests.model.world import GRACE, moment

from workspace_operator.api.states import LIVE, Reading
from workspace_operator.backends.protocol import Instance, ProvisionRequest, StopRequest, WorkspaceRef

Broken = Callable[[str], None]  # called with a sentence about a promise


class Origin(StrEnum):
    """Who made an instance run. The promises about doubles hold for the operator's own doing."""

    OPERATOR = "operator"
    HAND = "hand"
    LATE = "late"  # a request that the backend carried out long after it was given up


@dataclass(frozen=True)
class Unit:
    """One instance, as it really is; replaced, never changed."""

    ref: WorkspaceRef | None  # None: it carries no labels of ours
    incarnation: int
    reading: Reading
    id: str
    parameters: str = ""
    origin: Origin = Origin.OPERATOR
    since: float = 0.0  # when it was told to stop
    released: bool = False  # goes altogether at the end of its stop

    def shown(self) -> Instance:
        """As the backend shows it."""
        assert self.ref is not None
        halting = self.reading is Reading.HALTING
        since = moment(int(self.since - START)) if halting else None
        address = "127.0.0.1:8080" if self.reading is Reading.RUNNING else None
        return Instance(
            self.ref, self.incarnation, self.reading, self.id, self.parameters, address=address, halting_since=since
        )


@dataclass
class Cloud:
    """The truth. ``boot`` and ``ends`` are seconds; one that does not end by itself is killed by a second stop."""

    loop: VirtualLoop
    broken: Broken
    boot: float = 0.0
    ends: float | None = 0.0
    units: dict[str, Unit] = field(default_factory=dict)
    data: set[str] = field(default_factory=set)  # UIDs that have a volume
    released: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    frozen: tuple[float, list[Unit]] | None = None  # until when listings show what
    watchers: list[tuple[str, Callable[[str], None]]] = field(default_factory=list)
    _made: int = 0

    def of(self, ref: WorkspaceRef) -> list[Unit]:
        """The instances that carry these labels."""
        return [u for u in self.units.values() if u.ref is not None and _same(u.ref, ref)]

    def owned(self, cluster: str, class_name: str) -> list[Unit]:
        """What a listing shows."""
        units = list(self.units.values())
        if self.frozen is not None and self.loop.now < self.frozen[0]:
            units = self.frozen[1]
        return [u for u in units if u.ref is not None and (u.ref.cluster, u.ref.class_name) == (cluster, class_name)]

    def live(self, uid: str, *origins: Origin) -> Iterator[Unit]:
        """Live instances of a workspace, of any of these origins."""
        for unit in self.units.values():
            if unit.ref is not None and unit.ref.uid == uid and unit.reading in LIVE and unit.origin in origins:
                yield unit

    def freeze(self, seconds: float) -> None:
        """For so long, listings show what there is now."""
        self.frozen = self.loop.now + seconds, list(self.units.values())

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def provision(self, request: ProvisionRequest, origin: Origin = Origin.OPERATOR) -> Instance:
        """Create, start, unfreeze or find one incarnation."""
        ref, number = request.ref, request.incarnation
        unit = next((u for u in self.of(ref) if u.incarnation == number), None)
        if unit is None:
            if number in self.released[ref.uid] and origin is Origin.OPERATOR:
                self.broken(f"incarnation {number} of {ref.uid} is provisioned again after its release (I-08)")
            unit = self.put(Unit(ref, number, Reading.HALTED, self.new_id(), request.parameters, origin))
        elif unit.reading in (Reading.HALTING, Reading.FAILED):
            raise REFUSED
        if request.template.mount_path is not None and origin is Origin.OPERATOR:
            self.data.add(ref.uid)
        if unit.reading in (Reading.HALTED, Reading.FROZEN):
            boots = self.boot > 0 and unit.reading is Reading.HALTED
            unit = self.put(replace(unit, reading=Reading.STARTING if boots else Reading.RUNNING, origin=origin))
            if boots:
                self.loop.after(self.boot, self._change, unit, Reading.RUNNING)
        if len(list(self.live(ref.uid, Origin.OPERATOR))) > 1:
            self.broken(f"two live instances of {ref.uid} (I-06)")
        return unit.shown()

    def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        """As asked; a repeated one kills once the grace period is over."""
        for unit in self.of(request.ref):
            if request.only_before is None or unit.incarnation < request.only_before:
                self._stop(unit, request)
        return tuple(unit.shown() for unit in self.of(request.ref))

    def _stop(self, unit: Unit, request: StopRequest) -> None:
        if unit.reading is Reading.HALTING:
            unit = self.put(replace(unit, released=unit.released or request.release))
            if self.loop.now >= unit.since + GRACE:
                self._ended(unit)
        elif unit.reading not in LIVE:
            if request.release:
                self._release(unit)
        elif request.freeze and not request.release and unit.reading is not Reading.STARTING:
            self.put(replace(unit, reading=Reading.FROZEN))
        else:
            at_once = self.ends == 0 or unit.reading is Reading.FROZEN
            since = float(int(self.loop.now))
            unit = self.put(replace(unit, reading=Reading.HALTING, since=since, released=request.release))
            if at_once:
                self._ended(unit)
            elif self.ends is not None:
                self.loop.after(self.ends, self._ended, unit)

    # -- what happens by itself, or by hand ----------------------------------------------------------------------------

    def put(self, unit: Unit) -> Unit:
        """Make an instance, or change it."""
        self.units[unit.id] = unit
        self._tell(unit)
        return unit

    def remove(self, unit: Unit) -> None:
        """It is gone, whoever did it."""
        if self.units.pop(unit.id, None) is not None:
            self._tell(unit)

    def new_id(self) -> str:
        self._made += 1
        return f"i-{self._made}"

    def _change(self, before: Unit, reading: Reading) -> None:
        now = self.units.get(before.id)
        if now is not None and now.reading is before.reading:
            self.put(replace(now, reading=reading))

    def _ended(self, before: Unit) -> None:
        now = self.units.get(before.id)
        if now is None or now.reading is not Reading.HALTING:
            return
        if now.released:
            self._release(now)
        else:
            self.put(replace(now, reading=Reading.HALTED))

    def _release(self, unit: Unit) -> None:
        assert unit.ref is not None
        self.released[unit.ref.uid].add(unit.incarnation)
        self.remove(unit)

    def _tell(self, unit: Unit) -> None:
        for class_name, wake in list(self.watchers):
            if unit.ref is not None and unit.ref.class_name == class_name:
                wake(unit.ref.uid)


def _same(one: WorkspaceRef, other: WorkspaceRef) -> bool:
    return (one.cluster, one.class_name, one.uid) == (other.cluster, other.class_name, other.uid)
