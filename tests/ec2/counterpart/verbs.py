"""Start, stop, reboot, terminate: which state allows what, all of a request or none of it.

AWS source: EC2 User Guide, "Amazon EC2 instance state changes"; API Reference, StartInstances, StopInstances,
RebootInstances, TerminateInstances; "Error codes": IncorrectInstanceState, InvalidInstanceID.Malformed and .NotFound,
UnsupportedHibernationConfiguration. That an instance cannot be stopped before it ran once: cloud-custodian #6014.
"""

from __future__ import annotations

import asyncio
import re
import time

from . import errors, xml
from .errors import AwsError
from .launch import check_capacity
from .machines import ENDED, USER_HIBERNATE, USER_STOP, Machine
from .query import Request
from .show import show_state
from .world import World
from .xml import Element

INSTANCE_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")


def instance_ids(request: Request) -> list[str]:
    ids = request.listed("InstanceId")
    for each in ids:
        if not INSTANCE_ID.fullmatch(each):
            raise errors.malformed(each)
    return list(dict.fromkeys(ids))


def _named(world: World, request: Request) -> list[Machine]:
    ids = instance_ids(request)
    if not ids:
        raise AwsError("MissingParameter", "The request must contain the parameter InstanceId")
    return world.require(request.region, ids)


def _changes(request: Request, before: dict[str, str], machines: list[Machine]) -> bytes:
    return xml.answer(request.action, [xml.branch("instancesSet", [_change(m, before[m.id]) for m in machines])])


def _change(machine: Machine, before: str) -> Element:
    made = xml.item(instanceId=machine.id)
    show_state(made, "currentState", machine.state)
    show_state(made, "previousState", before)
    return made


async def start_instances(world: World, request: Request) -> bytes:
    """From stopped only; running and pending ones are left as they are. Capacity is asked for again."""
    machines = _named(world, request)
    before = {machine.id: machine.state for machine in machines}
    for machine in machines:
        if machine.state in ("stopping", "shutting-down", "terminated"):
            raise errors.wrong_state(machine.id, "started")
        if machine.state == "stopped":
            check_capacity(world, machine.instance_type, machine.zone, machine.subnet)
    for machine in machines:
        if machine.state == "stopped":
            machine.launched = time.time()
            machine.reason, machine.transition = ("", ""), ""
            world.enter(machine, "pending")
    return _changes(request, before, machines)


async def stop_instances(world: World, request: Request) -> bytes:
    machines = _named(world, request)
    before = {machine.id: machine.state for machine in machines}
    hibernate = request.flag("Hibernate")
    for machine in machines:
        _check_stop(world, machine, hibernate)
    for machine in machines:
        if machine.state in ("pending", "running"):
            machine.hibernated = hibernate
            world.halt(machine, USER_HIBERNATE if hibernate else USER_STOP)
    return _changes(request, before, machines)


def _check_stop(world: World, machine: Machine, hibernate: bool) -> None:
    if machine.state == "pending" and not machine.ever_ran:
        raise errors.never_ran(machine.id)
    if machine.state in ENDED:
        raise errors.wrong_state(machine.id, "stopped")
    if not hibernate or machine.state in ("stopping", "stopped"):
        return
    if not machine.hibernatable:
        raise errors.cannot_hibernate(machine.id)
    if machine.state != "running" or time.time() - machine.running_since < world.faults.hibernate_ready:
        raise AwsError(
            "UnsupportedOperation",
            f"Instance {machine.id} is not ready to hibernate yet; retry in a few minutes",
        )


async def terminate_instances(world: World, request: Request) -> bytes:
    """From any state, again and again, until the instance is not shown any more."""
    machines = _named(world, request)
    before = {machine.id: machine.state for machine in machines}
    for machine in machines:
        if machine.protected:
            raise AwsError(
                "OperationNotPermitted",
                f"The instance '{machine.id}' may not be terminated. "
                "Modify its 'disableApiTermination' instance attribute and try again.",
            )
    for machine in machines:
        world.end(machine)
    return _changes(request, before, machines)


async def reboot_instances(world: World, request: Request) -> bytes:
    machines = _named(world, request)
    for machine in machines:
        if machine.state not in ("pending", "running"):
            raise errors.wrong_state(machine.id, "rebooted")
    for machine in machines:
        if machine.state == "running":
            machine.running_since = time.time()
            world.background(_reboot(world, machine))
    return xml.answer("RebootInstances", [xml.leaf("return", "true")])


async def _reboot(world: World, machine: Machine) -> None:
    await asyncio.to_thread(world.guests.end, machine)
    if machine.state == "running":
        await asyncio.to_thread(world.guests.start, machine)
