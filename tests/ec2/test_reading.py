"""Pages, filters, console output, and what tests may know about launches."""

from __future__ import annotations

import base64

from tests.ec2.counterpart import Counterpart
from tests.ec2.kit import HELD, flat, launch, reach, refused, request, running, tagged, tags


def fleet(ec2: Counterpart, count: int, **pairs: str) -> None:
    asked = request(ec2, MinCount=count, MaxCount=count, TagSpecifications=tagged("instance", **pairs))
    ec2.client("ec2").run_instances(**asked)


def test_pages_have_the_size_asked_for_and_miss_nothing(ec2: Counterpart) -> None:
    fleet(ec2, 12, owner="me")
    client = ec2.client("ec2")
    pages = list(client.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(flat(page)) for page in pages] == [5, 5, 2]
    assert len({each["InstanceId"] for page in pages for each in flat(page)}) == 12
    assert ec2.count("DescribeInstances") == 3


def test_small_pages_can_be_forced(ec2: Counterpart) -> None:
    fleet(ec2, 5, owner="me")
    ec2.faults.page_size = 2
    client = ec2.client("ec2")
    pages = list(client.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}))
    assert [len(flat(page)) for page in pages] == [2, 2, 1]
    volumes = list(client.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 500}))
    assert [len(page["Volumes"]) for page in volumes] == [2, 2, 1]


def test_a_next_page_skips_nothing_when_instances_vanish(ec2: Counterpart) -> None:
    ec2.faults.page_size, ec2.faults.terminated_visible = 2, 0.0
    fleet(ec2, 5, owner="me")
    client = ec2.client("ec2")
    first = client.describe_instances(MaxResults=5)
    for each in flat(first):
        ec2.terminate(each["InstanceId"])
        reach(ec2, each["InstanceId"], "terminated")
    second = client.describe_instances(MaxResults=5, NextToken=first["NextToken"])
    assert [each["InstanceId"] for each in flat(second)] == [machine.id for machine in ec2.instances()[2:4]]


def test_page_parameters_are_checked(ec2: Counterpart) -> None:
    instance, client = launch(ec2), ec2.client("ec2")
    for size in (4, 1001):
        with refused("InvalidParameterValue", words="maxResults"):
            client.describe_instances(MaxResults=size)
    with refused("InvalidParameterCombination"):
        client.describe_instances(MaxResults=5, InstanceIds=[instance])
    with refused("InvalidNextToken"):
        client.describe_instances(MaxResults=5, NextToken="nonsense")


def test_filters_are_applied_to_what_is_seen(ec2: Counterpart) -> None:
    client, mine = ec2.client("ec2"), running(ec2, TagSpecifications=tagged("instance", owner="me", uid="a-1"))
    other = running(ec2, TagSpecifications=tagged("instance", owner="you"), SubnetId=ec2.subnets["eu-central-1b"])
    ec2.stop_by_hand(other)
    reach(ec2, other, "stopped")

    def found(**filters: list[str]) -> list[str]:
        named = [{"Name": name.replace("__", ":").replace("_", "-"), "Values": v} for name, v in filters.items()]
        return [each["InstanceId"] for each in flat(client.describe_instances(Filters=named))]

    assert found(tag__owner=["me"]) == [mine]
    assert found(tag__owner=["me", "you"]) == [mine, other]
    assert found(tag__uid=["a-*"]) == [mine]
    assert found(tag_key=["owner"], instance_state_name=["stopped", "stopping"]) == [other]
    assert found(availability_zone=["eu-central-1b"], tag__owner=["me"]) == []
    assert found(subnet_id=[ec2.subnets["eu-central-1b"]]) == [other]
    with refused("InvalidParameterValue", words="nonsense"):
        found(nonsense=["1"])


def test_console_output_is_base64_and_empty_before_boot(ec2: Counterpart) -> None:
    ec2.faults.pending = HELD
    instance, client = launch(ec2), ec2.client("ec2")
    ec2.write_console(instance, "cloud-init: hällo\n")
    assert client.get_console_output(InstanceId=instance)["Output"] == ""
    ec2.advance(instance)
    assert client.get_console_output(InstanceId=instance)["Output"] == "cloud-init: hällo\n"
    ec2.write_console(instance, "x" * 70_000)
    assert len(client.get_console_output(InstanceId=instance)["Output"]) == 65536
    with refused("InvalidInstanceID.NotFound"):
        client.get_console_output(InstanceId="i-0123456789abcdef0")


def test_launch_parameters_and_user_data_can_be_read_and_calls_hide_them(ec2: Counterpart) -> None:
    instance = launch(ec2, UserData="#!/bin/sh\necho token-123\n", ClientToken="one")
    assert ec2.user_data(instance) == "#!/bin/sh\necho token-123\n"
    assert base64.b64decode(ec2.launches[0]["UserData"]) == ec2.user_data(instance).encode()
    assert ec2.launches[0]["ClientToken"] == "one"
    assert ec2.calls[-1].params["UserData"] == "…"
    assert ec2.calls[-1].permission == "ec2:RunInstances"
    assert ec2.calls[-1].params["InstanceType"] == "t3.micro"


def test_security_settings_of_a_launch_are_kept(ec2: Counterpart) -> None:
    """IMDSv2 only, hop limit 1, no public address: moto keeps them, so a driver's mistake shows."""
    client = ec2.client("ec2")
    interface = {"DeviceIndex": 0, "SubnetId": ec2.subnets["eu-central-1a"], "AssociatePublicIpAddress": False}
    instance = running(
        ec2,
        SubnetId=None,
        NetworkInterfaces=[interface],
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
        TagSpecifications=tagged("instance", "network-interface", owner="me"),
    )
    shown = flat(client.describe_instances(InstanceIds=[instance]))[0]
    assert (shown["MetadataOptions"]["HttpTokens"], shown["MetadataOptions"]["HttpPutResponseHopLimit"]) == (
        "required",
        1,
    )
    assert "PublicIpAddress" not in shown
    interfaces = client.describe_network_interfaces()["NetworkInterfaces"]
    assert interfaces[0]["TagSet"] == tags(owner="me")


def test_images_and_public_parameters_agree(ec2: Counterpart) -> None:
    name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    parameter = ec2.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    images = ec2.client("ec2").describe_images(ImageIds=[parameter])["Images"]
    assert parameter == ec2.image
    assert images[0]["Architecture"] == "x86_64"


def test_what_is_not_ours_goes_to_moto(ec2: Counterpart) -> None:
    client = ec2.client("ec2")
    group = client.create_security_group(GroupName="agents", Description="no way in")["GroupId"]
    instance = launch(ec2, SecurityGroupIds=[group])
    client.modify_instance_metadata_options(InstanceId=instance, HttpTokens="required")
    shown = flat(client.describe_instances(InstanceIds=[instance]))[0]
    assert shown["SecurityGroups"][0]["GroupId"] == group
    assert shown["MetadataOptions"]["HttpTokens"] == "required"
