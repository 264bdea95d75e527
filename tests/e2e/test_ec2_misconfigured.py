"""What is wrong with an EC2 class or its account is said with its fix, costs nothing, and mends itself."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support import ec2
from tests.support.ec2 import NAMESPACE, Account, leaks
from tests.support.fleet import Fleet, until, workspace
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster
from workspace_operator.backends.ec2 import boot

pytestmark = pytest.mark.cluster

PATIENCE = 180  # seconds; a start that failed some times is tried again within a minute
CREDENTIALS = "check ec2.credentialsSecretRef and ec2.region of the class"
ABSENT = "00000000000000001"
ENVIRONMENT = "a-password-in-the-environment"


@dataclass(frozen=True)
class Case:
    """A class that cannot work: what differs from a good one, and the words that it and its workspaces show."""

    words: str
    block: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str | None] | None = None
    reason: str = "Misconfigured"
    seen_by_check: bool = True


CASES = {
    "bad-key": Case(CREDENTIALS, keys={"aws_access_key_id": "AKIDNOBODY0000000000"}),
    "bad-secret": Case(CREDENTIALS, keys={"aws_secret_access_key": "a-wrong-secret-access-key"}),
    "no-key": Case(
        "ec2.credentialsSecretRef of the class, has no aws_secret_access_key; add it",
        keys={"aws_secret_access_key": None},
    ),
    "no-secret": Case(
        f"Secret 'no-secret' in namespace '{NAMESPACE}', which the class needs to reach its backend, does not exist;"
        " create it",
        block={"credentials_secret_ref": {"namespace": NAMESPACE, "name": "no-secret"}},
        reason="ReferenceNotFound",
    ),
    "no-region": Case(CREDENTIALS, block={"region": "eu-nowhere-9"}),
    "other-region": Case(
        "ec2.subnets names a subnet that does not exist in ec2.region; correct the class",
        block={"region": "eu-west-1"},
    ),
    "image": Case(
        "ec2.image names a machine image that does not exist in ec2.region or is not shared with the account;"
        " correct the class",
        block={"image": f"ami-{ABSENT}"},
    ),
    "parameter": Case(
        "ec2.image names an SSM parameter that does not exist in ec2.region; correct the class",
        block={"image": "ssm:/no/such/parameter"},
    ),
    "subnet": Case(
        "ec2.subnets names a subnet that does not exist in ec2.region; correct the class",
        block={"subnets": (f"subnet-{ABSENT}",)},
    ),
    "group": Case(
        "ec2.securityGroups names a group that does not exist in the subnets' VPC, or too many; correct the class",
        block={"security_groups": (f"sg-{ABSENT}",)},
        seen_by_check=False,
    ),
    "endpoint": Case(
        "http://127.0.0.1:9 did not answer: check ec2.region and ec2.endpointUrl and the network",
        block={"endpoint_url": "http://127.0.0.1:9"},  # nobody listens on the discard port
        reason="BackendUnreachable",
    ),
}


def test_a_class_that_cannot_work_says_why_and_mends_itself(
    fleet: Fleet, operator: Operator, account: Account, cluster: LocalCluster
) -> None:
    """No instance, no stall without words (I-81, I-82), and no secret in them (I-53)."""
    fleet.kubectl("create", "secret", "generic", "env", f"--from-literal=PASSWORD={ENVIRONMENT}")
    for name, case in CASES.items():
        _apply(account, name, case)
        fleet.apply(workspace(name, className=name, envFrom=[{"secretRef": {"name": "env"}}]))
    for name, case in CASES.items():
        _expect(fleet, account, name, case)
    assert _made_for(account, fleet) == []

    for name in CASES:
        account.put_secret(name)
        account.put_class(name, {"credentials_secret_ref": {"namespace": NAMESPACE, "name": name}})
    fleet.wait_ready(seconds=PATIENCE)
    for name in CASES:
        assert fleet.condition(name, "Stalled") is None
        until(lambda name=name: account.class_condition(name)["status"] == "True")
    assert len(_made_for(account, fleet)) == len(account.ec2.alive()) == len(CASES)

    secrets = [account.secret_key, account.session_token, "a-wrong-secret-access-key", ENVIRONMENT]
    for launch in account.ec2.launches:
        files = boot.read(base64.b64decode(launch["UserData"]))["files"]
        secrets += [base64.b64decode(files["token"]).decode(), launch["UserData"][400:460]]
    assert leaks(cluster, operator, *secrets) == []


def _apply(account: Account, name: str, case: Case) -> None:
    if case.keys is not None:
        account.put_secret(name, **case.keys)
    secret = {"credentials_secret_ref": {"namespace": NAMESPACE, "name": name}} if case.keys is not None else {}
    account.put_class(name, {**secret, **case.block})


def _expect(fleet: Fleet, account: Account, name: str, case: Case) -> None:
    """What the class and its workspace show."""
    away = case.reason == "BackendUnreachable"
    ready = fleet.wait_reason(name, case.reason, status="Unknown" if away else "False")  # a Secret may be on its way
    assert case.words in ready["message"], name
    if not away:
        assert fleet.condition(name, "Stalled")["status"] == "True", "a person is needed"
    else:
        reachable = fleet.condition(name, "BackendReachable")
        assert (reachable["status"], reachable["reason"]) == ("False", case.reason)
    shown = until(lambda: account.class_condition(name))
    if case.seen_by_check:
        assert (shown["status"], shown["reason"]) != ("True", "Usable")
        assert shown["reason"] == case.reason
        assert case.words in shown["message"], name


def _made_for(account: Account, fleet: Fleet) -> list[str]:
    """Whatever was launched for this test's workspaces."""
    return [machine.id for machine in account.machines(fleet.namespace)]


@pytest.mark.parametrize(
    ("fault", "value", "reason", "words"),
    [
        ("vcpu_limit", 0, "ProvisionFailed", "quota of running instances (vCPUs) in ec2.region is exhausted; ask AWS"),
        ("instance_limit", 0, "ProvisionFailed", "(Service Quotas, EC2) or release workspaces"),
        ("no_capacity", {"t3.small"}, "NoCapacity", "more ec2.subnets, in other zones, or another ec2.machineTypes"),
        ("denied", {"RunInstances"}, "Misconfigured", "may not do ec2:RunInstances here; grant it as in deploy/iam"),
    ],
)
def test_an_account_that_refuses_is_said_so(
    fleet: Fleet, operator: Operator, account: Account, fault: str, value: object, reason: str, words: str
) -> None:
    """The class is right and the account is not: the workspace says what to ask for, and starts once it is there."""
    setattr(account.ec2.faults, fault, value)
    fleet.apply(workspace("waiting", className=account.put_class("refusing")))
    ready = fleet.wait_reason("waiting", reason)
    assert ready["status"] == "False"
    assert words in ready["message"]
    assert fleet.condition("waiting", "Stalled")["status"] == "True"
    assert _made_for(account, fleet) == []
    account.ec2.faults.adopt(ec2.kind())
    fleet.wait_ready("waiting", seconds=PATIENCE)
    assert len(account.machines(fleet.namespace)) == 1


def test_keys_are_rotated_under_running_machines(fleet: Fleet, operator: Operator, account: Account) -> None:
    """New keys in the Secret are taken without anyone noticing; revoked ones end nothing, and say so (I-40)."""
    name = account.put_class("rotating")
    fleet.apply(workspace("one", className=name))
    fleet.wait_ready("one")
    machine, reachable = fleet.status("one")["instance"]["id"], fleet.condition("one", "BackendReachable")
    with account.rotated():
        listings = account.ec2.count("DescribeInstances", "ok")
        until(lambda: account.ec2.count("DescribeInstances", "ok") > listings + 2)
        assert fleet.condition("one", "BackendReachable") == reachable
        fleet.apply(workspace("two", className=name))
        fleet.wait_ready("two")
        assert account.class_condition(name)["status"] == "True"
    # The old keys are in order again and the Secret still has the new ones, which are not.
    assert CREDENTIALS in fleet.wait_reason("one", "Misconfigured")["message"]
    assert account.ec2.instance(machine).state == "running"
    account.put_secret()
    fleet.wait_ready(seconds=PATIENCE)
    assert fleet.status("one")["instance"]["id"] == machine
    assert fleet.condition("one", "BackendReachable")["status"] == "True"
