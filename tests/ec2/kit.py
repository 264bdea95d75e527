"""What the tests of the counterpart share: a launch in one word, and waiting in sentences."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.ec2.counterpart import Counterpart

ZONE = "eu-central-1a"
HELD = 60.0  # a state that lasts until the test says ``ec2.advance``


def tags(**pairs: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


def tagged(*resources: str, **pairs: str) -> list[dict[str, Any]]:
    return [{"ResourceType": each, "Tags": tags(**pairs)} for each in resources]


def request(ec2: Counterpart, **more: Any) -> dict[str, Any]:
    """The parameters of a plain launch."""
    plain = {
        "ImageId": ec2.image,
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceType": "t3.micro",
        "SubnetId": ec2.subnets[ZONE],
    }
    return {key: value for key, value in {**plain, **more}.items() if value is not None}


def launch(ec2: Counterpart, **more: Any) -> str:
    """The id of a new instance."""
    client = more.pop("client", None) or ec2.client("ec2")
    return str(client.run_instances(**request(ec2, **more))["Instances"][0]["InstanceId"])


def running(ec2: Counterpart, **more: Any) -> str:
    """The id of a new instance that runs."""
    return reach(ec2, launch(ec2, **more), "running")


def reach(ec2: Counterpart, instance_id: str, state: str) -> str:
    until(lambda: ec2.instance(instance_id).state == state, lambda: f"it is {ec2.instance(instance_id).state}")
    return instance_id


def described(ec2: Counterpart, instance_id: str) -> dict[str, Any]:
    found = ec2.client("ec2").describe_instances(InstanceIds=[instance_id])
    return dict(found["Reservations"][0]["Instances"][0])


def flat(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]


def until(probe: Callable[[], Any], explain: Callable[[], str] = str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"not within {seconds} s: {explain()}"
        time.sleep(0.02)


@contextlib.contextmanager
def refused(code: str, status: int = 400, words: str = "") -> Iterator[None]:
    """The call inside is answered with this error."""
    with pytest.raises(ClientError) as caught:
        yield
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert words in answer["Error"]["Message"]
