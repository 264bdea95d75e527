"""What EC2 refuses, with its own codes and before any effect."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.ec2.counterpart import Bucket, Counterpart, Rule
from tests.ec2.counterpart.session import isolated
from tests.ec2.kit import ZONE, launch, reach, refused, request, running, tagged, tags

Stranger = Callable[..., Any]


def test_every_third_call_is_throttled(ec2: Counterpart) -> None:
    ec2.faults.throttled = Rule("Describe*", every=3)
    client = ec2.client("ec2")
    for _ in range(2):
        client.describe_instances()
        client.describe_instances()
        with refused("RequestLimitExceeded", 503):
            client.describe_instances()
    assert ec2.count("DescribeInstances") == 6
    assert ec2.count("DescribeInstances", "RequestLimitExceeded") == 2


def test_a_share_of_calls_is_throttled(ec2: Counterpart) -> None:
    ec2.faults.throttled = Rule(share=0.3)
    for _ in range(50):
        with contextlib.suppress(ClientError):
            ec2.client("ec2").describe_instances()
    assert 5 <= ec2.count("DescribeInstances", "RequestLimitExceeded") <= 25
    assert ec2.count("DescribeInstances", "ok") >= 25


def test_botocore_knows_the_throttling_as_such(ec2: Counterpart) -> None:
    ec2.faults.throttled = Rule(times=1)
    ec2.client("ec2", retries={"total_max_attempts": 3, "mode": "standard"}).describe_instances()
    assert [each.outcome for each in ec2.calls] == ["RequestLimitExceeded", "ok"]


def test_each_family_has_its_bucket(ec2: Counterpart) -> None:
    ec2.faults.buckets = {"RunInstances": Bucket(size=2, rate=0.8), "Describe*": Bucket(size=100, rate=20)}
    client = ec2.client("ec2")
    launch(ec2, client=client)
    launch(ec2, client=client)
    with refused("RequestLimitExceeded", 503):
        launch(ec2, client=client)
    client.describe_instances()
    time.sleep(1.3)
    launch(ec2, client=client)
    assert len(ec2.instances()) == 3


def test_other_services_throttle_in_their_own_words(ec2: Counterpart) -> None:
    ec2.faults.throttled = Rule()
    with refused("ThrottlingException"):
        ec2.client("ssm").get_parameter(Name="/x")
    with refused("Throttling"):
        ec2.client("sts").get_caller_identity()


@pytest.mark.parametrize("where", ["zone", "subnet", "type"])
def test_no_capacity(ec2: Counterpart, where: str) -> None:
    ec2.faults.no_capacity = {{"zone": ZONE, "subnet": ec2.subnets[ZONE], "type": "t3.micro"}[where]}
    with refused("InsufficientInstanceCapacity", 500, "t3.micro"):
        launch(ec2)
    launch(ec2, SubnetId=ec2.subnets["eu-central-1b"], InstanceType="t3.small")
    assert len(ec2.instances()) == 1


def test_a_start_needs_capacity_too(ec2: Counterpart) -> None:
    instance = running(ec2)
    ec2.stop_by_hand(instance)
    reach(ec2, instance, "stopped")
    ec2.faults.no_capacity = {ZONE}
    with refused("InsufficientInstanceCapacity", 500):
        ec2.client("ec2").start_instances(InstanceIds=[instance])
    assert ec2.instance(instance).state == "stopped"


def test_quotas_count_what_runs(ec2: Counterpart) -> None:
    ec2.faults.vcpu_limit = 6
    launch(ec2, InstanceType="m5.xlarge")
    with refused("VcpuLimitExceeded", words="limit of 6"):
        launch(ec2, InstanceType="m5.xlarge")
    launch(ec2, InstanceType="m5.large")
    ec2.faults.vcpu_limit, ec2.faults.instance_limit = None, 2
    with refused("InstanceLimitExceeded"):
        launch(ec2)
    first = ec2.instances()[0].id
    ec2.terminate(first)
    reach(ec2, first, "terminated")
    launch(ec2)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "nonsense"}, "InvalidAMIID.Malformed"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"InstanceType": "x99.mega"}, "InvalidParameterValue"),
        ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"TagSpecifications": tagged("instance", **{"aws:mine": "1"})}, "InvalidParameterValue"),
        ({"TagSpecifications": tagged("instance", **{f"k{n}": "" for n in range(51)})}, "TagLimitExceeded"),
    ],
)
def test_bad_parameters_launch_nothing(ec2: Counterpart, change: dict[str, object], code: str) -> None:
    with refused(code):
        launch(ec2, **change)
    assert ec2.instances() == []


def test_an_image_of_another_region_is_not_found(ec2: Counterpart, stranger: Stranger) -> None:
    elsewhere = stranger(region="us-east-1")
    subnet = elsewhere.describe_subnets()["Subnets"][0]["SubnetId"]
    with refused("InvalidAMIID.NotFound"):
        launch(ec2, client=elsewhere, SubnetId=subnet)
    with refused("InvalidSubnetID.NotFound"):
        launch(ec2, client=elsewhere)


@pytest.fixture
def stranger(ec2: Counterpart) -> Iterator[Stranger]:
    """Makes clients with other keys or in another region."""
    made = []

    def connect(service: str = "ec2", region: str = "", **keys: str) -> Any:
        made.append(_client(ec2, service, region, **keys))
        return made[-1]

    yield connect
    for client in made:
        client.close()


def _client(ec2: Counterpart, service: str, region: str, **keys: str) -> Any:
    connect: Any = isolated().client
    names = {"aws_access_key_id": "AKIDSTRANGER00000000", "aws_secret_access_key": "guess"} | keys
    config = Config(retries={"total_max_attempts": 1})
    return connect(service, endpoint_url=ec2.endpoint, region_name=region or ec2.region, config=config, **names)


def test_wrong_credentials(ec2: Counterpart, stranger: Stranger) -> None:
    stranger().describe_instances()
    ec2.faults.check_credentials = True
    with refused("AuthFailure", 401, "validate the provided access credentials"):
        stranger().describe_instances()
    with refused("InvalidClientTokenId", 403):
        stranger("sts").get_caller_identity()
    with refused("UnrecognizedClientException", 400):
        stranger("ssm").get_parameter(Name="/x")
    ec2.client("ec2").describe_instances()
    ec2.client("sts").get_caller_identity()


def test_a_wrong_secret_shows_in_the_signature(ec2: Counterpart, stranger: Stranger) -> None:
    ec2.credentials["AKIDSTRANGER00000000"] = "right"
    with refused("AuthFailure", 401):
        stranger().describe_instances()
    with refused("SignatureDoesNotMatch", 403):
        stranger("sts").get_caller_identity()
    stranger(aws_secret_access_key="right").describe_instances()


def test_a_region_that_does_not_exist(ec2: Counterpart, stranger: Stranger) -> None:
    with refused("AuthFailure", 401):
        stranger(region="eu-nowhere-9").describe_instances()


def test_an_assumed_role_is_let_in(ec2: Counterpart, stranger: Stranger) -> None:
    ec2.faults.check_credentials = True
    role = ec2.client("sts").assume_role(RoleArn="arn:aws:iam::123456789012:role/operator", RoleSessionName="test")
    given = role["Credentials"]
    assumed = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    instance = launch(ec2, client=stranger(**assumed))
    assert ec2.instance(instance).zone == ZONE
    assert ec2.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"]


def test_denied_actions(ec2: Counterpart) -> None:
    ec2.faults.denied = {"RunInstances", "GetParameter", "AssumeRole"}
    with refused("UnauthorizedOperation", 403):
        launch(ec2)
    with refused("AccessDeniedException", 400):
        ec2.client("ssm").get_parameter(Name="/x")
    with refused("AccessDenied", 403):
        ec2.client("sts").assume_role(RoleArn="arn:aws:iam::123456789012:role/operator", RoleSessionName="test")
    ec2.client("ec2").describe_instances()


def test_permissions_include_those_that_are_easily_forgotten(ec2: Counterpart) -> None:
    ec2.faults.allowed = {"ec2:RunInstances", "ec2:Describe*"}
    launch(ec2)
    with refused("UnauthorizedOperation", 403):
        launch(ec2, TagSpecifications=tagged("instance", a="b"))
    with refused("UnauthorizedOperation", 403):
        launch(ec2, IamInstanceProfile={"Name": "agent"})
    with refused("UnauthorizedOperation", 403):
        ec2.client("ec2").terminate_instances(InstanceIds=[ec2.instances()[0].id])
    ec2.faults.allowed |= {"ec2:CreateTags"}
    launch(ec2, TagSpecifications=tagged("instance", a="b"))


def test_a_dry_run_tells_rights_and_does_nothing(ec2: Counterpart) -> None:
    client = ec2.client("ec2")
    with refused("DryRunOperation", 412):
        client.run_instances(**request(ec2, DryRun=True))
    ec2.faults.denied = {"RunInstances"}
    with refused("UnauthorizedOperation", 403):
        client.run_instances(**request(ec2, DryRun=True))
    assert ec2.instances() == []


def test_tags_for_what_does_not_exist(ec2: Counterpart) -> None:
    """moto tags anything."""
    client = ec2.client("ec2")
    with refused("InvalidInstanceID.NotFound"):
        client.create_tags(Resources=["i-0123456789abcdef0"], Tags=tags(a="b"))
    with refused("InvalidVolume.NotFound"):
        client.create_tags(Resources=["vol-0123456789abcdef0"], Tags=tags(a="b"))
