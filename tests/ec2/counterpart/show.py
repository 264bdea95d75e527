"""Instances and volumes as the API shows them: moto's description, with what may be seen of the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from . import errors, xml
from .faults import matches
from .machines import CODES, ROOT_DEVICE, Machine, Taggable, Volume
from .world import World
from .xml import Element


def show_state(parent: Element, name: str, state: str) -> None:
    xml.put(parent, f"{name}/code", str(CODES[state]))
    xml.put(parent, f"{name}/name", state)


def show_instance(world: World, machine: Machine) -> Element:
    """The item of one instance, now. It is the same element each time; answers are written before the next."""
    item = machine.item
    state = machine.seen_state(world.faults.state_delay)
    show_state(item, "instanceState", state)
    xml.put(item, "clientToken", machine.client_token)
    xml.put(item, "launchTime", xml.timestamp(machine.launched))
    xml.put(item, "reason", machine.transition if state == machine.state else "")
    _show_reason(item, machine)
    if world.guests.address(0):
        xml.put(item, "privateIpAddress", machine.address)
        for each in item.iterfind(".//networkInterfaceSet//privateIpAddress"):
            each.text = machine.address
    xml.put(item, "rootDeviceName", ROOT_DEVICE)
    xml.tag_set(item, machine.seen_tags())
    _show_disks(machine, item)
    return item


def _show_reason(item: Element, machine: Machine) -> None:
    code, message = machine.reason
    reason = xml.fresh(item, "stateReason")
    if code:
        xml.put(reason, "code", code)
        xml.put(reason, "message", message)
    else:
        item.remove(reason)


def _show_disks(machine: Machine, item: Element) -> None:
    mapping = xml.fresh(item, "blockDeviceMapping")
    for volume in machine.disks.values():
        ebs = Element("ebs")
        xml.put(ebs, "volumeId", volume.id)
        xml.put(ebs, "status", volume.attachment)
        xml.put(ebs, "attachTime", xml.timestamp(volume.attached_at))
        xml.put(ebs, "deleteOnTermination", str(volume.delete_on_termination).lower())
        made = xml.item(deviceName=volume.device)
        made.append(ebs)
        mapping.append(made)


async def show_volumes(world: World, volumes: list[Volume]) -> list[Element]:
    """Their items; moto is asked once for those that it has not described yet."""
    await _learn(world, [volume for volume in volumes if volume.item is None])
    return [_show_volume(volume) for volume in volumes if volume.item is not None]


async def _learn(world: World, volumes: list[Volume]) -> None:
    for region in {volume.region for volume in volumes}:
        ids = [volume.id for volume in volumes if volume.region == region]
        asked = {"Filter.1.Name": "volume-id"} | {f"Filter.1.Value.{n}": each for n, each in enumerate(ids, 1)}
        root = await world.moto.ec2(region, "DescribeVolumes", asked)
        for item in root.iterfind("volumeSet/item"):
            if volume := world.volumes.get(item.findtext("volumeId", "")):
                volume.item = item


def _show_volume(volume: Volume) -> Element:
    item = volume.item
    assert item is not None
    xml.put(item, "status", volume.state)
    xml.tag_set(item, volume.seen_tags())
    attachments = xml.fresh(item, "attachmentSet")
    if volume.instance_id:
        attachments.append(show_attachment(volume))
    return item


def show_attachment(volume: Volume) -> Element:
    return xml.item(
        volumeId=volume.id,
        instanceId=volume.instance_id,
        device=volume.device,
        status=volume.attachment,
        attachTime=xml.timestamp(volume.attached_at),
        deleteOnTermination=str(volume.delete_on_termination).lower(),
    )


# Filters. AWS source: API Reference, DescribeInstances and DescribeVolumes, "Filter.N"; values may hold * and ?.

Reader = Callable[[Element], list[str]]


def _texts(path: str) -> Reader:
    return lambda item: [each.text or "" for each in item.iterfind(path)]


INSTANCE_FILTERS: Mapping[str, Reader] = {
    "instance-id": _texts("instanceId"),
    "instance-state-name": _texts("instanceState/name"),
    "instance-state-code": _texts("instanceState/code"),
    "client-token": _texts("clientToken"),
    "availability-zone": _texts("placement/availabilityZone"),
    "subnet-id": _texts("subnetId"),
    "vpc-id": _texts("vpcId"),
    "instance-type": _texts("instanceType"),
    "image-id": _texts("imageId"),
    "private-ip-address": _texts("privateIpAddress"),
    "block-device-mapping.volume-id": _texts("blockDeviceMapping/item/ebs/volumeId"),
    "metadata-options.http-tokens": _texts("metadataOptions/httpTokens"),
    "tag-key": _texts("tagSet/item/key"),
}
VOLUME_FILTERS: Mapping[str, Reader] = {
    "volume-id": _texts("volumeId"),
    "status": _texts("status"),
    "availability-zone": _texts("availabilityZone"),
    "attachment.instance-id": _texts("attachmentSet/item/instanceId"),
    "attachment.status": _texts("attachmentSet/item/status"),
    "encrypted": _texts("encrypted"),
    "size": _texts("size"),
    "volume-type": _texts("volumeType"),
    "tag-key": _texts("tagSet/item/key"),
}


def passes(item: Element, wanted: Mapping[str, list[str]], readers: Mapping[str, Reader]) -> bool:
    return all(any(matches(text, values) for text in read(item, name, readers)) for name, values in wanted.items())


def has_tags(thing: Taggable, wanted: Mapping[str, list[str]]) -> bool:
    """The tag filters alone, before anything is asked of moto."""
    tags = thing.seen_tags()
    named = {name[4:]: values for name, values in wanted.items() if name.startswith("tag:")}
    return all(name in tags and matches(tags[name], values) for name, values in named.items())


def read(item: Element, name: str, readers: Mapping[str, Reader]) -> list[str]:
    if name.startswith("tag:"):
        return [each.findtext("value", "") for each in item.iterfind("tagSet/item") if each.findtext("key") == name[4:]]
    if name not in readers:
        raise errors.bad_value(f"The filter '{name}' is invalid")
    return readers[name](item)


def visible(world: World, region: str) -> list[Machine]:
    now = time.time()
    return [m for m in world.machines.values() if m.region == region and not m.gone and m.visible_at <= now]
