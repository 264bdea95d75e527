"""Disks: where they may hang, for how long, and what becomes of them."""

from __future__ import annotations

from typing import Any

from tests.ec2.counterpart import Counterpart, Volume
from tests.ec2.kit import HELD, ZONE, described, launch, reach, refused, running, tagged, until

ENCRYPTED = {"Encrypted": True, "VolumeType": "gp3"}


def data(ec2: Counterpart, zone: str = ZONE, **more: Any) -> str:
    """The id of a volume that is available."""
    made = ec2.client("ec2").create_volume(AvailabilityZone=zone, Size=1, **more)["VolumeId"]
    until(lambda: volume(ec2, made).state == "available")
    return str(made)


def volume(ec2: Counterpart, identifier: str) -> Volume:
    return next(each for each in ec2.volumes() if each.id == identifier)


def shown(ec2: Counterpart, identifier: str) -> dict[str, Any]:
    return dict(ec2.client("ec2").describe_volumes(VolumeIds=[identifier])["Volumes"][0])


def test_a_volume_is_created_attached_detached_and_deleted_in_time(ec2: Counterpart) -> None:
    ec2.faults.creating_volume = 1.0
    client, instance = ec2.client("ec2"), running(ec2)
    made = client.create_volume(AvailabilityZone=ZONE, Size=3, **ENCRYPTED, TagSpecifications=tagged("volume", a="b"))
    disk = made["VolumeId"]
    assert (made["State"], made["Encrypted"], made["Size"]) == ("creating", True, 3)
    with refused("IncorrectState", words="not 'available'"):
        client.attach_volume(VolumeId=disk, InstanceId=instance, Device="/dev/sdf")
    until(lambda: shown(ec2, disk)["State"] == "available")
    attached = client.attach_volume(VolumeId=disk, InstanceId=instance, Device="/dev/sdf")
    assert attached["State"] == "attaching"
    until(lambda: shown(ec2, disk)["Attachments"][0]["State"] == "attached")
    now = shown(ec2, disk)
    assert (now["State"], now["Attachments"][0]["InstanceId"]) == ("in-use", instance)
    assert now["Attachments"][0]["DeleteOnTermination"] is False
    assert [m["DeviceName"] for m in described(ec2, instance)["BlockDeviceMappings"]] == ["/dev/xvda", "/dev/sdf"]
    with refused("VolumeInUse"):
        client.delete_volume(VolumeId=disk)
    assert client.detach_volume(VolumeId=disk)["State"] == "detaching"
    until(lambda: shown(ec2, disk)["State"] == "available")
    assert len(described(ec2, instance)["BlockDeviceMappings"]) == 1
    client.delete_volume(VolumeId=disk)
    with refused("InvalidVolume.NotFound"):
        client.describe_volumes(VolumeIds=[disk])


def test_a_volume_hangs_in_its_own_zone_on_one_instance(ec2: Counterpart) -> None:
    """moto attaches across zones and twice."""
    client, first, second = ec2.client("ec2"), running(ec2), running(ec2)
    elsewhere, disk = data(ec2, "eu-central-1b"), data(ec2)
    with refused("InvalidVolume.ZoneMismatch", words="not in the same availability zone"):
        client.attach_volume(VolumeId=elsewhere, InstanceId=first, Device="/dev/sdf")
    client.attach_volume(VolumeId=disk, InstanceId=first, Device="/dev/sdf")
    with refused("VolumeInUse", words="already attached"):
        client.attach_volume(VolumeId=disk, InstanceId=second, Device="/dev/sdf")
    with refused("InvalidParameterValue", words="already in use"):
        client.attach_volume(VolumeId=data(ec2), InstanceId=first, Device="/dev/sdf")


def test_nothing_is_attached_to_what_is_pending_or_ending(ec2: Counterpart) -> None:
    ec2.faults.pending = ec2.faults.shutting_down = HELD
    client, disk, instance = ec2.client("ec2"), data(ec2), launch(ec2)
    with refused("IncorrectState", words="not 'running'"):
        client.attach_volume(VolumeId=disk, InstanceId=instance, Device="/dev/sdf")
    ec2.terminate(instance)
    with refused("IncorrectState"):
        client.attach_volume(VolumeId=disk, InstanceId=instance, Device="/dev/sdf")


def test_a_data_volume_is_free_only_when_its_instance_is_terminated(ec2: Counterpart) -> None:
    """Data survives; until the end of the shutdown it cannot move on."""
    ec2.faults.shutting_down = HELD
    client, first, second, disk = ec2.client("ec2"), running(ec2), running(ec2), data(ec2)
    client.attach_volume(VolumeId=disk, InstanceId=first, Device="/dev/sdf")
    root = next(each for each in ec2.instance(first).disks if each != disk)
    client.terminate_instances(InstanceIds=[first])
    with refused("VolumeInUse"):
        client.attach_volume(VolumeId=disk, InstanceId=second, Device="/dev/sdf")
    ec2.advance(first)
    reach(ec2, first, "terminated")
    assert shown(ec2, disk)["State"] == "available"
    with refused("InvalidVolume.NotFound"):
        shown(ec2, root)
    client.attach_volume(VolumeId=disk, InstanceId=second, Device="/dev/sdf")


def test_volumes_of_a_launch_keep_encryption_tags_and_their_fate(ec2: Counterpart) -> None:
    mappings = [
        {"DeviceName": "/dev/xvda", "Ebs": {**ENCRYPTED, "VolumeSize": 9, "DeleteOnTermination": True}},
        {"DeviceName": "/dev/sdf", "Ebs": {**ENCRYPTED, "VolumeSize": 4, "DeleteOnTermination": False}},
    ]
    instance = running(ec2, BlockDeviceMappings=mappings, TagSpecifications=tagged("instance", "volume", owner="me"))
    found = ec2.client("ec2").describe_volumes(Filters=[{"Name": "tag:owner", "Values": ["me"]}])["Volumes"]
    kept = {each["Size"]: (each["Encrypted"], each["Attachments"][0]["DeleteOnTermination"]) for each in found}
    assert kept == {9: (True, True), 4: (True, False)}
    ec2.terminate(instance)
    reach(ec2, instance, "terminated")
    left = ec2.client("ec2").describe_volumes(Filters=[{"Name": "status", "Values": ["available"]}])["Volumes"]
    assert [each["Size"] for each in left] == [4]
    assert len(ec2.volumes()) == 1


def test_the_type_of_a_volume_bounds_its_size(ec2: Counterpart) -> None:
    """moto makes them as small and as large as one likes."""
    client = ec2.client("ec2")
    for kind, size in (("st1", 124), ("sc1", 1), ("gp2", 16385), ("gp3", 65537)):
        with refused("InvalidParameterValue", words=f"A {kind} volume of {size} GiB"):
            client.create_volume(AvailabilityZone=ZONE, Size=size, VolumeType=kind)
    for kind, size in (("st1", 125), ("gp2", 16384), ("gp3", 65536)):
        assert client.create_volume(AvailabilityZone=ZONE, Size=size, VolumeType=kind)["Size"] == size


def test_the_root_stays_while_its_instance_runs(ec2: Counterpart) -> None:
    instance = running(ec2)
    with refused("OperationNotPermitted"):
        ec2.client("ec2").detach_volume(VolumeId=next(iter(ec2.instance(instance).disks)))


def test_what_is_not_attached_cannot_be_detached(ec2: Counterpart) -> None:
    with refused("IncorrectState"):
        ec2.client("ec2").detach_volume(VolumeId=data(ec2))
