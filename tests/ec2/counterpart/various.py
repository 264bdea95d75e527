"""Tags, console output, and attributes that moto keeps but does not show anew."""

from __future__ import annotations

import base64
import time

from . import errors, xml
from .machines import Taggable
from .query import Request
from .world import World

CONSOLE_LIMIT = 65536


async def create_tags(world: World, request: Request) -> bytes:
    """AWS source: API Reference, CreateTags; EC2 UG, "Tag restrictions": 50 tags, keys up to 128 characters."""
    tags = {each.get("Key", ""): each.get("Value", "") for each in request.structures("Tag")}
    check_tags(tags)
    resources = _resources(world, request)
    await world.moto.ec2(request.region, "CreateTags", request.params)
    for each in resources:
        each.retag({**each.tags, **tags}, world.faults.tag_delay)
    return xml.answer("CreateTags", [xml.leaf("return", "true")])


async def delete_tags(world: World, request: Request) -> bytes:
    resources = _resources(world, request)
    gone = {each["Key"] for each in request.structures("Tag")}
    await world.moto.ec2(request.region, "DeleteTags", request.params)
    for each in resources:
        kept = {key: value for key, value in each.tags.items() if gone and key not in gone}
        each.retag(kept, world.faults.tag_delay)
    return xml.answer("DeleteTags", [xml.leaf("return", "true")])


def check_tags(tags: dict[str, str]) -> None:
    if len(tags) > 50:
        raise errors.AwsError("TagLimitExceeded", "Maximum number of tags exceeded.")
    for key, value in tags.items():
        if key.lower().startswith("aws:"):
            raise errors.bad_value(f"Tag keys starting with 'aws:' are reserved for internal use: {key}")
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise errors.bad_value(f"Tag key or value exceeds the maximum length: {key}")


def _resources(world: World, request: Request) -> list[Taggable]:
    """Of the kinds that are kept here; the others are moto's own business."""
    found: list[Taggable] = []
    for identifier in request.listed("ResourceId"):
        if identifier.startswith("i-"):
            found += world.require(request.region, [identifier])
        elif identifier.startswith("vol-"):
            found.append(world.require_volume(request.region, identifier))
    return found


async def get_console_output(world: World, request: Request) -> bytes:
    """Base64 of the last 64 KB; nothing before the first boot. AWS source: API Reference, GetConsoleOutput."""
    machine = world.require(request.region, [request.get("InstanceId")])[0]
    output = base64.b64encode(machine.console.encode()[-CONSOLE_LIMIT:]).decode() if machine.ever_ran else ""
    fields = {"instanceId": machine.id, "timestamp": xml.timestamp(time.time()), "output": output}
    return xml.answer("GetConsoleOutput", [xml.leaf(name, text) for name, text in fields.items()])


async def modify_instance_attribute(world: World, request: Request) -> bytes:
    """User data and type only of a stopped instance. AWS source: API Reference, ModifyInstanceAttribute."""
    machine = world.require(request.region, [request.get("InstanceId")])[0]
    if any(name.startswith(("UserData", "InstanceType")) for name in request.params) and machine.state != "stopped":
        raise errors.AwsError("IncorrectInstanceState", f"The instance '{machine.id}' is not in the 'stopped' state.")
    if data := request.get("UserData.Value"):
        machine.user_data = base64.b64decode(data).decode("utf-8", "replace")
    elif protection := request.get("DisableApiTermination.Value"):
        machine.protected = protection == "true"
    else:
        await world.moto.ec2(request.region, "ModifyInstanceAttribute", request.params)
        await refresh(world, request)
    return xml.answer(request.action, [xml.leaf("return", "true")])


async def refresh(world: World, request: Request) -> None:
    """After a call that is moto's: describe anew what it may have changed."""
    machine = world.machines.get(request.get("InstanceId"))
    if machine is not None:
        root = await world.moto.ec2(request.region, "DescribeInstances", {"InstanceId.1": machine.id})
        machine.item = next(root.iterfind("reservationSet/item/instancesSet/item"), machine.item)
        machine.instance_type = machine.item.findtext("instanceType", machine.instance_type)
    volume = world.volumes.get(request.get("VolumeId"))
    if volume is not None:
        volume.item = None
