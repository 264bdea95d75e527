"""The Describe calls: what may be seen, filtered, in pages."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from . import errors, xml
from .machines import Machine
from .query import Request
from .show import (
    INSTANCE_FILTERS,
    VOLUME_FILTERS,
    has_tags,
    passes,
    read,
    show_instance,
    show_state,
    show_volumes,
    visible,
)
from .verbs import instance_ids
from .world import World
from .xml import Element

T = TypeVar("T")


def page(world: World, request: Request, things: Sequence[T], number: Callable[[T], int]) -> tuple[list[T], str]:
    """One page and the token of the next. A token names the last thing seen, so nothing is skipped when things go.

    AWS source: API Reference, DescribeInstances: MaxResults between 5 and 1000, not together with ids; NextToken.
    """
    size = _page_size(request)
    forced = world.faults.page_size
    limit = min(size or len(things), forced or len(things))
    after = _decode(request.get("NextToken"))
    rest = [thing for thing in things if number(thing) > after]
    shown = rest[:limit]
    token = base64.b64encode(f"after:{number(shown[-1])}".encode()).decode() if len(rest) > limit else ""
    return shown, token


def _page_size(request: Request) -> int:
    text = request.get("MaxResults")
    if not text:
        return 0
    if request.listed("InstanceId"):
        raise errors.AwsError(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        )
    if not 5 <= int(text) <= 1000:
        raise errors.bad_value(
            f"Value ( {text} ) for parameter maxResults is invalid. Expecting a value from 5 to 1000."
        )
    return int(text)


def _decode(token: str) -> int:
    if not token:
        return 0
    try:
        return int(base64.b64decode(token, validate=True).decode().removeprefix("after:"))
    except ValueError:
        raise errors.AwsError("InvalidNextToken", f"The token '{token}' is invalid") from None


async def describe_instances(world: World, request: Request) -> bytes:
    wanted = request.filters()
    for name in wanted:
        read(Element("item"), name, INSTANCE_FILTERS)
    ids = instance_ids(request)
    machines = world.require(request.region, ids, command=False) if ids else visible(world, request.region)
    found = [machine for machine in machines if passes(show_instance(world, machine), wanted, INSTANCE_FILTERS)]
    shown, token = page(world, request, sorted(found, key=lambda m: m.number), lambda m: m.number)
    children = [xml.branch("reservationSet", _reservations(shown))]
    return xml.answer("DescribeInstances", [*children, *([xml.leaf("nextToken", token)] if token else [])])


def _reservations(machines: list[Machine]) -> list[Element]:
    made = []
    for reservation, members in itertools.groupby(machines, key=lambda machine: machine.reservation):
        item = xml.item(reservationId=reservation, ownerId="123456789012")
        item.append(Element("groupSet"))
        item.append(xml.branch("instancesSet", [machine.item for machine in members]))
        made.append(item)
    return made


async def describe_volumes(world: World, request: Request) -> bytes:
    wanted = request.filters()
    for name in wanted:
        read(Element("item"), name, VOLUME_FILTERS)
    now = time.time()
    seen = {v.id: v for v in world.volumes.values() if v.region == request.region and v.visible_at <= now}
    ids = request.listed("VolumeId")
    for missing in (each for each in ids if each not in seen):
        raise errors.not_found("volume", [missing])
    volumes = [seen[each] for each in ids] if ids else list(seen.values())
    items = await show_volumes(world, [volume for volume in volumes if has_tags(volume, wanted)])
    numbers = {volume.id: volume.number for volume in volumes}
    found = [item for item in items if passes(item, wanted, VOLUME_FILTERS)]
    shown, token = page(world, request, found, lambda item: numbers[item.findtext("volumeId", "")])
    children = [xml.branch("volumeSet", shown)]
    return xml.answer("DescribeVolumes", [*children, *([xml.leaf("nextToken", token)] if token else [])])


async def describe_instance_status(world: World, request: Request) -> bytes:
    """Only running instances unless IncludeAllInstances. AWS source: API Reference, DescribeInstanceStatus."""
    ids = instance_ids(request)
    machines = world.require(request.region, ids, command=False) if ids else visible(world, request.region)
    lag, states = world.faults.state_delay, request.filters().get("instance-state-name")
    if not request.flag("IncludeAllInstances"):
        machines = [machine for machine in machines if machine.seen_state(lag) == "running"]
    if states is not None:
        machines = [machine for machine in machines if machine.seen_state(lag) in states]
    shown, token = page(world, request, sorted(machines, key=lambda m: m.number), lambda m: m.number)
    children = [xml.branch("instanceStatusSet", [_status(world, machine) for machine in shown])]
    return xml.answer("DescribeInstanceStatus", [*children, *([xml.leaf("nextToken", token)] if token else [])])


def _status(world: World, machine: Machine) -> Element:
    state = machine.seen_state(world.faults.state_delay)
    made = xml.item(instanceId=machine.id, availabilityZone=machine.zone)
    show_state(made, "instanceState", state)
    if state != "running":
        instance, system, check = "not-applicable", "not-applicable", ""
    elif machine.id in world.faults.impaired:
        instance, system, check = "impaired", "ok", "failed"
    elif time.time() - machine.running_since < world.faults.initializing:
        instance, system, check = "initializing", "initializing", "initializing"
    else:
        instance, system, check = "ok", "ok", "passed"
    for name, status in (("instanceStatus", instance), ("systemStatus", system)):
        xml.put(made, f"{name}/status", status)
        if check:
            result = "passed" if status == "ok" else check
            xml.put(made, f"{name}/details/item/name", "reachability")
            xml.put(made, f"{name}/details/item/status", result)
    return made
