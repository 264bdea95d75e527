"""Create, attach, detach, delete volumes.

AWS source: EBS User Guide, "Attach an Amazon EBS volume to an instance", "Volume lifecycle"; API Reference,
CreateVolume (ClientToken, Size), AttachVolume, DetachVolume, DeleteVolume; "Error codes": VolumeInUse, IncorrectState,
InvalidVolume.ZoneMismatch, InvalidVolume.NotFound, IncorrectInstanceState.
"""

from __future__ import annotations

import asyncio
import time

from . import errors, xml
from .errors import AwsError
from .machines import ROOT_DEVICE, Machine, Volume
from .query import Request
from .show import show_attachment
from .tokens import Memory
from .world import World

#: Least and most GiB by type.
_SIZES = {"gp2": (1, 16384), "gp3": (1, 65536), "st1": (125, 16384), "sc1": (125, 16384)}


async def create_volume(world: World, request: Request) -> bytes:
    zone = request.get("AvailabilityZone")
    _check_size(request.get("VolumeType", "gp2"), int(request.get("Size", "1")))
    memory = Memory() if world.faults.forget_tokens else world.tokens.recall(request)
    async with memory.lock:
        memory.bind(request)
        if not memory.ids:
            memory.ids = [(await _create(world, request, zone)).id]
    volume = world.require_volume(request.region, memory.ids[0])
    fields = {
        "volumeId": volume.id,
        "size": str(volume.size),
        "availabilityZone": volume.zone,
        "status": volume.state,
        "createTime": xml.timestamp(time.time()),
        "volumeType": request.get("VolumeType", "gp2"),
        "encrypted": str(volume.encrypted).lower(),
    }
    tags = xml.Element("volume")
    xml.tag_set(tags, volume.tags)
    return xml.answer("CreateVolume", [*(xml.leaf(name, text) for name, text in fields.items()), *tags])


def _check_size(kind: str, size: int) -> None:
    least, most = _SIZES[kind]
    if not least <= size <= most:
        raise errors.bad_value(f"A {kind} volume of {size} GiB is not possible; it has {least} to {most} GiB")


async def _create(world: World, request: Request, zone: str) -> Volume:
    asked = {k: v for k, v in request.params.items() if k not in ("Action", "Version")}
    root = await world.moto.ec2(request.region, "CreateVolume", asked)
    volume = Volume(
        id=root.findtext("volumeId", ""),
        number=next(world.numbers),
        region=request.region,
        zone=zone,
        encrypted=request.flag("Encrypted"),
        size=int(request.get("Size", "1")),
        tags=request.tags_for("volume"),
        client_token=request.get("ClientToken"),
        visible_at=time.time() + world.faults.volume_delay,
    )
    world.volumes[volume.id] = volume
    _later(world.faults.creating_volume, volume, "state", "creating", "available")
    return volume


def _later(seconds: float, volume: Volume, name: str, before: str, after: str) -> None:
    def arrive() -> None:
        if getattr(volume, name) == before:
            setattr(volume, name, after)

    asyncio.get_running_loop().call_later(seconds, arrive)


async def attach_volume(world: World, request: Request) -> bytes:
    volume = world.require_volume(request.region, request.get("VolumeId"))
    machine = world.require(request.region, [request.get("InstanceId")])[0]
    _check_attach(world, volume, machine, request.get("Device"))
    world.attach(volume, machine, request.get("Device"), "attaching")  # taken, before anything is awaited
    names = {name: request.get(name) for name in ("VolumeId", "InstanceId", "Device")}
    try:
        await world.moto.ec2(request.region, "AttachVolume", names)
    except AwsError:
        world.release(volume)
        raise
    _later(world.faults.attaching, volume, "attachment", "attaching", "attached")
    return xml.answer("AttachVolume", list(show_attachment(volume)))


def _check_attach(world: World, volume: Volume, machine: Machine, device: str) -> None:
    if volume.zone != machine.zone:
        raise AwsError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance '{machine.id}'",
        )
    if volume.instance_id:
        raise AwsError("VolumeInUse", f"{volume.id} is already attached to an instance")
    if volume.state != "available":
        raise AwsError("IncorrectState", f"{volume.id} is not 'available'.")
    if machine.state not in ("running", "stopped"):
        raise AwsError("IncorrectState", f"Instance '{machine.id}' is not 'running'.")
    if any(other.device == device for other in machine.disks.values()):
        raise errors.bad_value(f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use")


async def detach_volume(world: World, request: Request) -> bytes:
    volume = world.require_volume(request.region, request.get("VolumeId"))
    asked = request.get("InstanceId") or volume.instance_id
    if not volume.instance_id or asked != volume.instance_id or volume.attachment == "detaching":
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the '{volume.state}' state.")
    machine = world.machines[volume.instance_id]
    if volume.device == ROOT_DEVICE and machine.state != "stopped":
        raise AwsError(
            "OperationNotPermitted", f"Unable to detach root volume '{volume.id}' from instance '{machine.id}'"
        )
    volume.attachment = "detaching"
    names = {"VolumeId": volume.id, "InstanceId": volume.instance_id, "Device": volume.device}
    answer = xml.answer("DetachVolume", list(show_attachment(volume)))
    await world.moto.ec2(request.region, "DetachVolume", names)
    asyncio.get_running_loop().call_later(world.faults.detaching, _detached, world, volume)
    return answer


def _detached(world: World, volume: Volume) -> None:
    if volume.attachment == "detaching":
        world.release(volume)


async def delete_volume(world: World, request: Request) -> bytes:
    volume = world.require_volume(request.region, request.get("VolumeId"))
    if volume.instance_id:
        raise AwsError("VolumeInUse", f"Volume {volume.id} is currently attached to {volume.instance_id}")
    if volume.state != "available":
        raise AwsError("IncorrectState", f"The volume '{volume.id}' is '{volume.state}'.")
    volume.state = "deleting"
    await world.moto.ec2(request.region, "DeleteVolume", {"VolumeId": volume.id})
    world.volumes.pop(volume.id, None)
    return xml.answer("DeleteVolume", [xml.leaf("return", "true")])
