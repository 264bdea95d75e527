"""What was done is not seen at once."""

from __future__ import annotations

import time

from tests.ec2.counterpart import Counterpart
from tests.ec2.kit import ZONE, described, flat, launch, reach, refused, running, tagged, tags

DELAY = 60.0  # until the test says ``ec2.settle``


def test_a_new_instance_appears_later_and_with_its_tags(ec2: Counterpart) -> None:
    ec2.faults.describe_delay = DELAY
    client, instance = ec2.client("ec2"), launch(ec2, TagSpecifications=tagged("instance", owner="me"))
    assert flat(client.describe_instances()) == []
    assert client.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"] == []
    with refused("InvalidInstanceID.NotFound", words=instance):
        client.describe_instances(InstanceIds=[instance])
    assert [machine.id for machine in ec2.instances()] == [instance], "the console sees it"
    ec2.settle()
    found = flat(client.describe_instances(Filters=[{"Name": "tag:owner", "Values": ["me"]}]))
    assert [each["InstanceId"] for each in found] == [instance]


def test_commands_may_not_know_a_new_instance(ec2: Counterpart) -> None:
    ec2.faults.command_delay = DELAY
    client, instance = ec2.client("ec2"), launch(ec2)
    for verb in (client.terminate_instances, client.stop_instances, client.start_instances):
        with refused("InvalidInstanceID.NotFound"):
            verb(InstanceIds=[instance])
    with refused("InvalidInstanceID.NotFound"):
        client.create_tags(Resources=[instance], Tags=tags(a="b"))
    ec2.settle()
    client.terminate_instances(InstanceIds=[instance])


def test_commands_know_it_before_describe_does_when_so_switched(ec2: Counterpart) -> None:
    ec2.faults.describe_delay = DELAY
    instance = launch(ec2)
    ec2.client("ec2").terminate_instances(InstanceIds=[instance])


def test_later_tags_are_seen_later(ec2: Counterpart) -> None:
    ec2.faults.tag_delay = DELAY
    client, instance = ec2.client("ec2"), launch(ec2, TagSpecifications=tagged("instance", a="1"))
    client.create_tags(Resources=[instance], Tags=tags(a="2", b="3"))
    assert described(ec2, instance)["Tags"] == tags(a="1")
    assert flat(client.describe_instances(Filters=[{"Name": "tag:b", "Values": ["3"]}])) == []
    assert ec2.instance(instance).tags == {"a": "2", "b": "3"}
    ec2.settle()
    assert described(ec2, instance)["Tags"] == tags(a="2", b="3")
    client.delete_tags(Resources=[instance], Tags=[{"Key": "a"}])
    assert len(described(ec2, instance)["Tags"]) == 2
    ec2.settle()
    assert described(ec2, instance)["Tags"] == tags(b="3")


def test_a_new_volume_and_its_later_tags_appear_later(ec2: Counterpart) -> None:
    ec2.faults.volume_delay = ec2.faults.tag_delay = DELAY
    client = ec2.client("ec2")
    made = client.create_volume(AvailabilityZone=ZONE, Size=1, TagSpecifications=tagged("volume", owner="me"))
    volume = made["VolumeId"]
    mine = [{"Name": "tag:owner", "Values": ["me"]}]
    assert client.describe_volumes(Filters=mine)["Volumes"] == []
    with refused("InvalidVolume.NotFound"):
        client.describe_volumes(VolumeIds=[volume])
    ec2.settle()
    client.create_tags(Resources=[volume], Tags=tags(b="2"))
    assert client.describe_volumes(Filters=mine)["Volumes"][0]["Tags"] == tags(owner="me")
    ec2.settle()
    assert client.describe_volumes(Filters=mine)["Volumes"][0]["Tags"] == tags(owner="me", b="2")


def test_the_state_shown_may_lag(ec2: Counterpart) -> None:
    ec2.faults.state_delay = 1.0
    client, instance = ec2.client("ec2"), running(ec2)
    time.sleep(1.0)
    client.terminate_instances(InstanceIds=[instance])
    reach(ec2, instance, "terminated")
    assert described(ec2, instance)["State"]["Name"] == "running"
    running_ones = [{"Name": "instance-state-name", "Values": ["running"]}]
    assert len(flat(client.describe_instances(Filters=running_ones))) == 1
    time.sleep(1.0)
    assert described(ec2, instance)["State"]["Name"] == "terminated"
    assert flat(client.describe_instances(Filters=running_ones)) == []


def test_delays_end_by_themselves(ec2: Counterpart) -> None:
    ec2.faults.describe_delay = ec2.faults.command_delay = ec2.faults.tag_delay = 0.5
    client, instance = ec2.client("ec2"), launch(ec2)
    time.sleep(0.5)
    client.create_tags(Resources=[instance], Tags=tags(a="b"))
    assert described(ec2, instance)["InstanceId"] == instance
    time.sleep(0.5)
    assert described(ec2, instance)["Tags"] == tags(a="b")
