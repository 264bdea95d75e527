"""What goes wrong in an account becomes one sentence that names the field and the fix, and no instance."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.backends import ec2_kit
from tests.backends.ec2_kit import Lab, run

from workspace_operator.api.base import NamespacedRef
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.ec2 import connection, faults
from workspace_operator.errors import (
    BackendError,
    BackendUnreachable,
    BadRequest,
    OperatorError,
    QuotaExceeded,
)

lab = ec2_kit.lab


async def refused(lab: Lab, match: str, error: type[OperatorError] = BadRequest, **block: Any) -> OperatorError:
    """Provision in such a class fails in this way, and makes nothing."""
    driver = lab.driver(**block)
    with pytest.raises(error, match=match) as caught:
        await driver.provision(lab.request())
    assert lab.ec2.instances() == []
    return caught.value


# -- the five of the issue ---------------------------------------------------------------------------------------------


async def test_wrong_credentials(lab: Lab) -> None:
    lab.ec2.faults.check_credentials = True
    lab.keys = {"aws_access_key_id": b"AKIDWRONG", "aws_secret_access_key": b"wrong"}
    driver = lab.driver()
    with pytest.raises(BadRequest, match=r"ec2\.credentialsSecretRef"):
        await driver.check()
    with pytest.raises(BackendUnreachable, match=r"ec2\.credentialsSecretRef") as caught:
        await driver.list_owned()
    assert caught.value.failure.reason == Reason.MISCONFIGURED
    with pytest.raises(OperatorError, match=r"ec2\.credentialsSecretRef"):
        await driver.provision(lab.request())
    assert lab.ec2.instances() == []


async def test_credentials_that_are_mended_work_without_a_new_driver(lab: Lab) -> None:
    lab.ec2.faults.check_credentials = True
    good = dict(lab.keys)
    lab.keys = {"aws_access_key_id": b"AKIDWRONG", "aws_secret_access_key": b"wrong"}
    driver = lab.driver()
    with pytest.raises(BadRequest):
        await driver.check()
    lab.keys = good
    assert await driver.check()


async def test_keys_that_are_rotated_are_taken_without_a_failure(lab: Lab) -> None:
    """The old keys end while calls are under way; nobody sees an error, and nothing is made twice."""
    lab.ec2.faults.check_credentials = True
    lab.ec2.credentials["AKIDOLD"], lab.ec2.credentials["AKIDNEW"] = "old", "new"
    lab.keys = {"aws_access_key_id": b"AKIDOLD", "aws_secret_access_key": b"old"}
    driver, requests = lab.driver(), [lab.request() for _ in range(4)]
    await run(driver, requests[0])
    lab.keys = {"aws_access_key_id": b"AKIDNEW", "aws_secret_access_key": b"new"}
    del lab.ec2.credentials["AKIDOLD"]
    await asyncio.gather(driver.list_owned(), driver.check(), *(run(driver, request) for request in requests))
    assert len(lab.ec2.instances()) == len(requests)


async def test_a_client_of_keys_that_were_refused_meanwhile_is_not_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next refusal would find the new keys in use, and take them for bad."""
    tool, make = lab.driver()._connection, connection._make

    def overtaken(*arguments: Any) -> Any:
        tool._forget()
        return make(*arguments)

    monkeypatch.setattr(connection, "_make", overtaken)
    stale = await tool._client("sts")
    monkeypatch.undo()
    assert await tool._client("sts") is not stale


async def test_a_wrong_region(lab: Lab) -> None:
    """Nothing of the class exists there."""
    with pytest.raises(BadRequest, match=r"ec2\.subnets.*ec2\.region"):
        await lab.driver(region="eu-west-1").check()
    await refused(lab, r"ec2\.region", region="eu-west-1")


async def test_a_region_that_is_none(lab: Lab) -> None:
    with pytest.raises(BadRequest, match=r"ec2\.region"):
        await lab.driver(region="eu-nowhere-9").check()


async def test_a_wrong_image(lab: Lab) -> None:
    with pytest.raises(BadRequest, match=r"ec2\.image"):
        await lab.driver(image="ami-00000000000000001").check()
    await refused(lab, r"ec2\.image", image="ami-00000000000000001")
    await refused(lab, r"ec2\.image", image="ssm:/no/such/parameter")


async def test_a_missing_subnet(lab: Lab) -> None:
    with pytest.raises(BadRequest, match=r"ec2\.subnets"):
        await lab.driver(subnets=("subnet-00000000000000001",)).check()
    await refused(lab, r"ec2\.subnets", subnets=("subnet-00000000000000001",))


async def test_an_exhausted_quota(lab: Lab) -> None:
    lab.ec2.faults.vcpu_limit = 0
    await refused(lab, "Service Quotas", QuotaExceeded)


# -- and others --------------------------------------------------------------------------------------------------------


async def test_what_is_not_authorised_names_the_action_and_the_policy(lab: Lab) -> None:
    lab.ec2.faults.denied = {"RunInstances"}
    error = await refused(lab, "ec2:RunInstances")
    assert "deploy/iam/policy.json" in str(error)
    assert error.failure.reason == Reason.MISCONFIGURED


async def test_a_refused_look_is_no_reading(lab: Lab) -> None:
    """I-40: not allowed to look is not the same as nothing there."""
    driver, request = lab.driver(), lab.request()
    await run(driver, request)
    lab.ec2.faults.denied = {"DescribeInstances"}
    for ask in (driver.list_owned(), driver.observe(request.ref)):
        with pytest.raises(BackendUnreachable, match="ec2:DescribeInstances"):
            await ask


async def test_a_wrong_profile_or_machine_type(lab: Lab) -> None:
    await refused(lab, r"ec2\.instanceProfile", instance_profile="nobody")
    types = ({"name": "t9.enormous", "cpu": 2, "memory": "1Gi"},)
    await refused(lab, r"ec2\.machineTypes", machine_types=types)


async def test_a_root_device_that_is_not_the_images(lab: Lab) -> None:
    with pytest.raises(BadRequest, match=r"ec2\.rootDevice.*/dev/xvda"):
        await lab.driver(root_device="/dev/sda1").check()


async def test_nobody_there(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    driver, request = lab.driver(endpoint_url="http://127.0.0.1:9"), lab.request()
    for ask in (driver.check(), driver.list_owned(), driver.provision(request), driver.delete_data(request.ref)):
        with pytest.raises(BackendUnreachable, match=r"ec2\.endpointUrl"):
            await ask


async def test_a_secret_without_keys_names_them(lab: Lab) -> None:
    lab.keys = {"aws_access_key_id": b"x"}
    with pytest.raises(BadRequest, match="aws_secret_access_key"):
        await lab.driver().check()


async def test_without_a_secret_the_default_chain_is_used(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in lab.ec2.environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    lab.ec2.faults.check_credentials = True
    assert await lab.driver(credentials_secret_ref=None).check()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadRequest, match="no AWS credentials"):
        await lab.driver(credentials_secret_ref=None).check()


async def test_a_role_is_assumed_with_its_external_id(lab: Lab) -> None:
    role = "arn:aws:iam::123456789012:role/workspace-operator-machines"
    driver = lab.driver(assume_role_arn=role, assume_role_external_id="tenant-1")
    assert await driver.check()
    (call,) = [call for call in lab.ec2.calls if call.action == "AssumeRole"]
    assert (call.params["RoleArn"], call.params["ExternalId"]) == (role, "tenant-1")


async def test_a_role_that_may_not_be_assumed(lab: Lab) -> None:
    lab.ec2.faults.denied = {"AssumeRole"}
    role = "arn:aws:iam::123456789012:role/workspace-operator-machines"
    with pytest.raises(OperatorError, match="may not do"):
        await lab.driver(assume_role_arn=role).check()


async def test_a_secret_that_does_not_exist_is_said_so(lab: Lab) -> None:
    async def resolve(namespace: str, name: str) -> Mapping[str, bytes]:
        raise BadRequest("ReferenceNotFound", f"Secret {name!r} does not exist; create it.")

    driver = lab.driver(credentials_secret_ref=NamespacedRef(namespace="operator", name="aws"))
    driver._connection._resolve_secret = resolve
    with pytest.raises(BadRequest, match="does not exist"):
        await driver.check()


async def test_a_closed_driver_says_so(lab: Lab) -> None:
    driver = lab.driver()
    await driver.check()
    await driver.close()
    with pytest.raises(BackendUnreachable):
        await driver.list_owned()


# -- the table ---------------------------------------------------------------------------------------------------------


def error(code: str, message: str = "raw words with a bearer eyJhbGciOi", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "RunInstances",
    )


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        ("AuthFailure", BadRequest, "credentialsSecretRef"),
        ("ExpiredToken", BadRequest, "credentialsSecretRef"),
        ("UnauthorizedOperation", BadRequest, "policy.json"),
        ("InvalidAMIID.NotFound", BadRequest, "ec2.image"),
        ("InvalidAMIID.Malformed", BadRequest, "ec2.image"),
        ("InvalidSubnetID.NotFound", BadRequest, "ec2.subnets"),
        ("InvalidGroup.NotFound", BadRequest, "ec2.securityGroups"),
        ("InvalidKmsKey.InvalidState", BadRequest, "KMS"),
        ("OptInRequired", BadRequest, "enable"),
        ("VcpuLimitExceeded", QuotaExceeded, "Service Quotas"),
        ("InstanceLimitExceeded", QuotaExceeded, "Service Quotas"),
        ("VolumeLimitExceeded", QuotaExceeded, "EBS"),
        ("InsufficientInstanceCapacity", QuotaExceeded, "capacity"),
        ("InsufficientFreeAddressesInSubnet", QuotaExceeded, "capacity"),
        ("UnsupportedHibernationConfiguration", BadRequest, "ec2.hibernation"),
        ("IdempotentInstanceTerminated", BackendError, "new incarnation"),
        ("InvalidParameterValue", BadRequest, "ec2 block"),
        ("SomethingQuiteNew", BackendError, "SomethingQuiteNew"),
    ],
)
def test_codes_become_sentences(code: str, expected: type[OperatorError], words: str) -> None:
    """I-53: and AWS's own words never appear."""
    status = 500 if code.startswith("Insufficient") else 400
    assert faults.kind_of(error(code, status=status)) is faults.Kind.REFUSED
    found = faults.translate(error(code), "Launching an instance", "ec2:RunInstances", looking=False)
    assert isinstance(found, expected)
    assert words in str(found)
    assert "bearer" not in str(found)
    assert found.failure.reason in set(Reason)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("RequestLimitExceeded", 503, faults.Kind.SLOW_DOWN),
        ("Throttling", 400, faults.Kind.SLOW_DOWN),
        ("InternalError", 500, faults.Kind.ASK_AGAIN),
        ("Unavailable", 503, faults.Kind.ASK_AGAIN),
        ("", 502, faults.Kind.ASK_AGAIN),
    ],
)
def test_codes_that_are_asked_again(code: str, status: int, kind: faults.Kind) -> None:
    assert faults.kind_of(error(code, status=status)) is kind


def test_a_bug_of_ours_keeps_its_trace() -> None:
    with pytest.raises(ZeroDivisionError):
        faults.translate(ZeroDivisionError(), "Launching", "ec2:RunInstances", looking=False)
