"""RunInstances: what EC2 checks before it launches, and what it remembers afterwards."""

from __future__ import annotations

import base64
import binascii
import time

from . import errors, xml
from .machines import ROOT_DEVICE, Machine, Volume, vcpus
from .query import Request
from .show import show_instance
from .tokens import Memory
from .various import check_tags
from .world import World
from .xml import Element

USER_DATA_LIMIT = 16384


async def run_instances(world: World, request: Request) -> bytes:
    """Checks in EC2's order: parameters, token, quota, capacity; then moto launches, and the token remembers."""
    _check_user_data(request)
    subnet, zone = await _place(world, request)
    memory = Memory() if world.faults.forget_tokens else world.tokens.recall(request, zone)
    async with memory.lock:
        if memory.ids:
            memory.bind(request)
            return _again(world, memory)
        await _check_parameters(world, request)
        _check_limits(world, request)
        memory.bind(request)
        check_capacity(world, request.get("InstanceType", "m1.small"), zone, subnet)
        try:
            machines = await _launch(world, request)
        except errors.AwsError:
            memory.digest = ""  # refused as invalid: the token is as good as new
            raise
        memory.ids = [machine.id for machine in machines]
    return render(world, "RunInstances", machines)


def _again(world: World, memory: Memory) -> bytes:
    machines = [world.machines[each] for each in memory.ids]
    if any(machine.state in ("shutting-down", "terminated") for machine in machines):
        raise errors.token_of_terminated()
    return render(world, "RunInstances", machines)


def render(world: World, action: str, machines: list[Machine]) -> bytes:
    items = [show_instance(world, machine) for machine in machines]
    head = [xml.leaf("reservationId", machines[0].reservation), xml.leaf("ownerId", "123456789012")]
    return xml.answer(action, [*head, Element("groupSet"), xml.branch("instancesSet", items)])


def _check_user_data(request: Request) -> None:
    """16 KB before encoding. AWS source: EC2 UG, "Run commands at launch with user data input"."""
    try:
        raw = base64.b64decode(request.get("UserData"), validate=True)
    except binascii.Error:
        raise errors.AwsError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if len(raw) > USER_DATA_LIMIT:
        raise errors.bad_value(f"User data is limited to {USER_DATA_LIMIT} bytes")


async def _place(world: World, request: Request) -> tuple[str, str]:
    """Subnet and zone that the request names, either empty. AWS source: API Reference, RunInstances, SubnetId."""
    subnet = request.get("SubnetId") or request.get("NetworkInterface.1.SubnetId")
    if not subnet:
        return "", request.get("Placement.AvailabilityZone")
    if world.subnets.get(subnet, ("",))[0] != request.region:
        await world.learn_subnets(request.region)
    region, zone = world.subnets.get(subnet, ("", ""))
    if region != request.region:
        raise errors.AwsError("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")
    return subnet, zone


async def _check_parameters(world: World, request: Request) -> None:
    """Images belong to a region; moto offers its list in each, and takes any group for one that exists.

    AWS source: API Reference, "Error codes": InvalidAMIID.NotFound, InvalidGroup.NotFound.
    """
    image = request.get("ImageId")
    if image in world.moto.images.values() and request.region != world.moto.region:
        raise errors.AwsError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
    for resource in ("instance", "volume", "network-interface"):
        check_tags(request.tags_for(resource))
    groups = [*request.listed("SecurityGroupId"), *request.listed("NetworkInterface.1.SecurityGroupId")]
    for each in groups:
        await world.require_group(request.region, each)


def _check_limits(world: World, request: Request) -> None:
    wanted = int(request.get("MaxCount", "1"))
    running = [m for m in world.machines.values() if m.alive and m.region == request.region]
    limit = world.faults.vcpu_limit
    more = vcpus(request.get("InstanceType", "m1.small")) * wanted
    if limit is not None and sum(machine.vcpus for machine in running) + more > limit:
        raise errors.vcpu_limit(limit)
    limit = world.faults.instance_limit
    if limit is not None and len(running) + wanted > limit:
        raise errors.instance_limit(max(0, limit - len(running)))


def check_capacity(world: World, instance_type: str, zone: str, subnet: str) -> None:
    if world.faults.no_capacity & {instance_type, zone, subnet}:
        raise errors.no_capacity(instance_type, zone or "any")


async def _launch(world: World, request: Request) -> list[Machine]:
    asked = {k: v for k, v in request.params.items() if k not in ("Action", "Version")}
    try:
        root = await world.moto.ec2(request.region, "RunInstances", {**asked, **_root_disk(request)})
    except errors.AwsError as error:
        raise _as_ec2_says(error) from None
    world.launches.append(asked)
    reservation = root.findtext("reservationId", "")
    machines = [_admit(world, request, reservation, item) for item in root.iterfind("instancesSet/item")]
    await _tag_interfaces(world, request, machines)
    return machines


def _root_disk(request: Request) -> dict[str, str]:
    """Every instance has a root volume, from the image's own mapping; moto forgets it when others are asked for.

    AWS source: EC2 UG, "Block device mappings for volumes on Amazon EC2 instances", and for what becomes of it
    "Preserve data when an instance is terminated".
    """
    mappings = request.structures("BlockDeviceMapping")
    if any(each.get("DeviceName") == ROOT_DEVICE for each in mappings):
        return {}
    name = f"BlockDeviceMapping.{len(mappings) + 1}"
    return {f"{name}.DeviceName": ROOT_DEVICE, f"{name}.Ebs.VolumeSize": "8", f"{name}.Ebs.DeleteOnTermination": "true"}


def _as_ec2_says(error: errors.AwsError) -> errors.AwsError:
    """Where moto's code is not EC2's. API Reference, "Error codes"."""
    if error.code == "NoSuchEntity":
        return errors.bad_value(f"{error.message}. Invalid IAM Instance Profile name")
    if error.code == "InvalidInstanceType.NotFound":
        return errors.bad_value(error.message.replace("The instance type", "Invalid value for InstanceType:"))
    return error


def _admit(world: World, request: Request, reservation: str, item: Element) -> Machine:
    now, faults = time.time(), world.faults
    number = next(world.numbers)
    machine = Machine(
        id=item.findtext("instanceId", ""),
        number=number,
        region=request.region,
        zone=item.findtext("placement/availabilityZone", ""),
        subnet=item.findtext("subnetId", ""),
        instance_type=item.findtext("instanceType", ""),
        image=item.findtext("imageId", ""),
        client_token=request.get("ClientToken"),
        reservation=reservation,
        tags=request.tags_for("instance"),
        params=request.summary(),
        user_data=base64.b64decode(request.get("UserData")).decode("utf-8", "replace"),
        hibernatable=request.flag("HibernationOptions.Configured"),
        ends_on_shutdown=request.get("InstanceInitiatedShutdownBehavior") == "terminate",
        protected=request.flag("DisableApiTermination"),
        address=world.guests.address(len(world.machines)) or item.findtext("privateIpAddress", ""),
        visible_at=now + faults.describe_delay,
        commandable_at=now + faults.command_delay,
        item=item,
    )
    world.machines[machine.id] = machine
    _admit_volumes(world, request, machine)
    world.enter(machine, "pending")
    return machine


def _admit_volumes(world: World, request: Request, machine: Machine) -> None:
    for mapping in machine.item.iterfind("blockDeviceMapping/item"):
        volume = Volume(
            id=mapping.findtext("ebs/volumeId", ""),
            number=next(world.numbers),
            region=machine.region,
            zone=machine.zone,
            delete_on_termination=mapping.findtext("ebs/deleteOnTermination") == "true",
            tags=request.tags_for("volume"),
            visible_at=time.time() + max(world.faults.volume_delay, world.faults.describe_delay),
        )
        device = mapping.findtext("deviceName", "")
        asked = next((m for m in request.structures("BlockDeviceMapping") if m.get("DeviceName") == device), {})
        if device == ROOT_DEVICE and "Ebs.DeleteOnTermination" not in asked:
            volume.delete_on_termination = True  # EC2's default for the root; moto's is False
        volume.encrypted = asked.get("Ebs.Encrypted", "").lower() == "true"
        volume.size = int(asked.get("Ebs.VolumeSize", "8"))
        world.volumes[volume.id] = volume
        world.attach(volume, machine, device, "attached")


async def _tag_interfaces(world: World, request: Request, machines: list[Machine]) -> None:
    """moto takes no tags for interfaces from RunInstances; it does from CreateTags."""
    tags = request.tags_for("network-interface")
    ids = [each.text or "" for machine in machines for each in machine.item.iterfind(".//networkInterfaceId")]
    if tags and ids:
        await world.moto.ec2(request.region, "CreateTags", tag_params(ids, tags))


def tag_params(ids: list[str], tags: dict[str, str]) -> dict[str, str]:
    params = {f"ResourceId.{n}": each for n, each in enumerate(ids, 1)}
    for number, (key, value) in enumerate(tags.items(), 1):
        params |= {f"Tag.{number}.Key": key, f"Tag.{number}.Value": value}
    return params
