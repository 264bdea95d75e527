"""The region behind the API: who is in which state, and the clock that moves them on. Runs on one event loop."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from . import errors
from .errors import AwsError
from .faults import Faults
from .guests import Guests
from .machines import GUEST_STOP, USER_STOP, Change, Machine, Volume
from .moto import Moto
from .tokens import Tokens
from .xml import timestamp

REAP_TOGETHER = 100


class World:
    """State, transitions and look-ups; the handlers of actions decide which transitions are allowed."""

    def __init__(self, moto: Moto, faults: Faults, guests: Guests) -> None:
        self.moto, self.faults, self.guests = moto, faults, guests
        self.machines: dict[str, Machine] = {}
        self.volumes: dict[str, Volume] = {}
        self.tokens = Tokens()
        self.history: list[Change] = []
        self.launches: list[dict[str, str]] = []
        self.subnets: dict[str, tuple[str, str]] = {}
        self.groups: set[tuple[str, str]] = set()
        self.numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._dying: asyncio.Queue[Machine] = asyncio.Queue()
        self._reaper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._reaper = asyncio.create_task(self._reap())
        await self.learn_subnets(self.moto.region)

    async def learn_subnets(self, region: str) -> None:
        root = await self.moto.ec2(region, "DescribeSubnets", {})
        for each in root.iterfind("subnetSet/item"):
            self.subnets[each.findtext("subnetId", "")] = (region, each.findtext("availabilityZone", ""))

    async def stop(self) -> None:
        self.forget_timers()
        tasks = [*self._tasks, *([self._reaper] if self._reaper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self.guests.end_all)

    def forget_timers(self) -> None:
        for machine in self.machines.values():
            if machine.due is not None:
                machine.due.cancel()

    # Transitions.

    def enter(self, machine: Machine, state: str) -> None:
        """Be in a state now, and on the way to the next where there is one."""
        if machine.due is not None:
            machine.due.cancel()
            machine.due = None
        change = Change(next(self.numbers), time.time(), machine.id, state)
        machine.state = state
        machine.history.append(change)
        self.history.append(change)
        match state:
            case "pending":
                self._later(machine, self.faults.pending, self._boot)
            case "running":
                machine.ever_ran, machine.running_since = True, time.time()
            case "stopping":
                self._later(machine, self.faults.stopping, self._halt)
            case "shutting-down":
                self._later(machine, self.faults.shutting_down, self._dying.put_nowait)
            case "terminated":
                self._later(machine, self.faults.terminated_visible, self._vanish)

    def _later(self, machine: Machine, seconds: float, then: Callable[[Machine], None]) -> None:
        machine.then = then
        machine.due = asyncio.get_running_loop().call_later(seconds, then, machine)

    def advance(self, machine: Machine) -> None:
        """What is due later happens now."""
        if machine.due is not None and machine.then is not None:
            machine.due.cancel()
            machine.due = None
            machine.then(machine)

    def settle(self) -> None:
        """Every delay of visibility is over."""
        for machine in self.machines.values():
            machine.visible_at = machine.commandable_at = 0.0
            machine.settle()
        for volume in self.volumes.values():
            volume.visible_at = 0.0
            volume.settle()

    def _boot(self, machine: Machine) -> None:
        if rule := self.faults.hits("launch_fails", "RunInstances") if not machine.ever_ran else None:
            code = rule.code or "Server.InternalError"
            machine.reason, machine.transition = (code, f"{code}: Instance failed to launch"), code
            self.enter(machine, "shutting-down")
            return
        machine.reason, machine.transition = ("", ""), ""
        self.enter(machine, "running")
        self.background(self._start_guest(machine))

    def _halt(self, machine: Machine) -> None:
        self.background(self._after_guest(machine, "stopped"))

    def _vanish(self, machine: Machine) -> None:
        machine.gone = True

    async def _start_guest(self, machine: Machine) -> None:
        await asyncio.to_thread(self.guests.start, machine)
        machine.hibernated = False
        if machine.state != "running":  # stopped while it was being started
            await asyncio.to_thread(self.guests.end, machine)

    async def _after_guest(self, machine: Machine, state: str) -> None:
        """The machine is off only when nothing of the guest runs."""
        before = machine.state
        await asyncio.to_thread(self.guests.freeze if machine.hibernated else self.guests.end, machine)
        if machine.state == before:
            self.enter(machine, state)

    async def _reap(self) -> None:
        """Terminations in batches: moto is told, then the volumes are free, then the state says so."""
        while True:
            batch = [await self._dying.get()]
            while not self._dying.empty() and len(batch) < REAP_TOGETHER:
                batch.append(self._dying.get_nowait())
            for region in {machine.region for machine in batch}:
                await self._bury([machine for machine in batch if machine.region == region])

    async def _bury(self, machines: list[Machine]) -> None:
        await asyncio.gather(*(asyncio.to_thread(self.guests.end, machine) for machine in machines))
        await self._tell_moto(machines[0].region, [machine.id for machine in machines])
        for machine in machines:
            for volume in list(machine.disks.values()):
                self.release(volume, delete=volume.delete_on_termination)
            self.enter(machine, "terminated")

    async def _tell_moto(self, region: str, ids: list[str]) -> None:
        """One that moto refuses must not keep the others; what is shown does not depend on it."""
        try:
            await self.moto.ec2(region, "TerminateInstances", {f"InstanceId.{n}": i for n, i in enumerate(ids, 1)})
        except AwsError:
            for each in ids if len(ids) > 1 else ():
                await self._tell_moto(region, [each])

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What happens without the API being asked.

    def end(self, machine: Machine, reason: tuple[str, str] = USER_STOP) -> None:
        if machine.state not in ("shutting-down", "terminated"):
            self._explain(machine, reason)
            machine.hibernated = False
            self.enter(machine, "shutting-down")

    def halt(self, machine: Machine, reason: tuple[str, str] = USER_STOP) -> None:
        if machine.state in ("pending", "running"):
            self._explain(machine, reason)
            self.enter(machine, "stopping")

    def power_off(self, machine: Machine) -> None:
        """``shutdown -h now`` inside: what follows was chosen at launch."""
        (self.end if machine.ends_on_shutdown else self.halt)(machine, GUEST_STOP)

    def _explain(self, machine: Machine, reason: tuple[str, str]) -> None:
        machine.reason = (reason[0], f"{reason[0]}: {reason[1]}")
        when = timestamp(time.time()).replace("T", " ").replace(".000Z", " GMT")
        machine.transition = f"User initiated ({when})" if "UserInitiated" in reason[0] else reason[0]

    # Volumes.

    def attach(self, volume: Volume, machine: Machine, device: str, state: str) -> None:
        volume.state, volume.attachment, volume.attached_at = "in-use", state, time.time()
        volume.instance_id, volume.device = machine.id, device
        machine.disks[volume.id] = volume

    def release(self, volume: Volume, *, delete: bool = False) -> None:
        self.machines[volume.instance_id].disks.pop(volume.id, None)
        volume.instance_id = volume.device = volume.attachment = ""
        volume.delete_on_termination = False
        volume.state = "available"
        if delete:
            self.volumes.pop(volume.id, None)

    # Look-ups.

    def machine(self, region: str, identifier: str, *, command: bool = True) -> Machine | None:
        """The machine, if a request in that region may know of it yet."""
        found = self.machines.get(identifier)
        if found is None or found.gone or found.region != region:
            return None
        known_at = found.commandable_at if command else found.visible_at
        return found if known_at <= time.time() else None

    def require(self, region: str, ids: list[str], *, command: bool = True) -> list[Machine]:
        """All of them, or an error and no effect."""
        found = [self.machine(region, each, command=command) for each in ids]
        if missing := [each for each, machine in zip(ids, found, strict=True) if machine is None]:
            raise errors.not_found("instance", missing)
        return [machine for machine in found if machine is not None]

    async def require_group(self, region: str, identifier: str) -> None:
        """A security group that exists there, or moto's refusal, which is EC2's; asked once."""
        if (region, identifier) not in self.groups:
            await self.moto.ec2(region, "DescribeSecurityGroups", {"GroupId.1": identifier})
            self.groups.add((region, identifier))

    def require_volume(self, region: str, identifier: str) -> Volume:
        found = self.volumes.get(identifier)
        if found is None or found.region != region:
            raise errors.not_found("volume", [identifier])
        return found
