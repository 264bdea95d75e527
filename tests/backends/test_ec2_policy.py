"""The least-privilege policy: exactly what the code does, and only on what is ours."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from tests.backends import ec2_kit
from tests.backends.ec2_kit import Lab, halted, released, run

import workspace_operator.backends.ec2 as package
from workspace_operator.backends.ec2 import operations

lab = ec2_kit.lab

POLICY = Path(__file__).parents[2] / "deploy" / "iam" / "policy.json"
#: AWS checks these on behalf of a call that the code makes.
IMPLIED = {"ec2:CreateTags": "ec2:RunInstances", "iam:PassRole": "ec2:RunInstances"}
#: Nobody needs a permission for it, and nobody can be denied it (STS API Reference, GetCallerIdentity).
FREE = {"sts:GetCallerIdentity"}
CLUSTER = "workspace-operator.dev/cluster"


def statements() -> list[dict[str, Any]]:
    return list(json.loads(POLICY.read_text())["Statement"])


def actions(statement: dict[str, Any]) -> list[str]:
    found = statement["Action"]
    return [found] if isinstance(found, str) else found


def allowed() -> set[str]:
    return {action for statement in statements() for action in actions(statement)}


def test_the_policy_allows_what_the_code_can_call_and_nothing_else() -> None:
    can_call = {operation.action for operation in operations.ALL}
    missing, idle = can_call - FREE - allowed(), allowed() - can_call - set(IMPLIED)
    assert not missing, f"the code calls what {POLICY.name} does not allow: {sorted(missing)}"
    assert not idle, f"{POLICY.name} allows what the code never calls: {sorted(idle)}"
    assert set(IMPLIED.values()) <= can_call


def test_every_call_goes_through_the_list_of_operations() -> None:
    """No client is used anywhere but in the connection, and each operation is used somewhere."""
    used: set[str] = set()
    for file in Path(package.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text())
        imports = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        if file.name != "connection.py":
            assert "boto3" not in imports, file.name
        if file.name != "operations.py":
            used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names = {name for name, value in vars(operations).items() if isinstance(value, operations.Operation)}
    assert names - used - {"ASSUME_ROLE"} == set()  # the SDK makes that one itself


def test_whatever_changes_something_is_bound_to_the_cluster() -> None:
    """I-15: another cluster's machines, and everybody else's, are out of reach even for a bug."""
    for statement in statements():
        changing = [a for a in actions(statement) if a.startswith("ec2:") and not a.startswith("ec2:Describe")]
        if not changing or statement["Sid"] == "LaunchUsing":
            continue
        equal = statement["Condition"]["StringEquals"]
        bound = {f"aws:RequestTag/{CLUSTER}", f"aws:ResourceTag/{CLUSTER}", "ec2:CreateAction"} & set(equal)
        assert bound, statement["Sid"]
    assert "ec2:DescribeInstanceAttribute" not in allowed(), "tokens travel in user data"


async def test_a_whole_life_needs_every_permission_and_no_other(lab: Lab) -> None:
    """Recorded at the other end: with these rights everything works, and nothing of them is idle."""
    lab.ec2.faults.allowed = allowed()
    iam = lab.ec2.client("iam")
    lab.ec2.faults.allowed = None
    iam.create_instance_profile(InstanceProfileName="machine")
    lab.ec2.faults.allowed = allowed()
    calls = len(lab.ec2.calls)
    name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    driver = lab.driver(image=f"ssm:{name}", instance_profile="machine", status_checks=True)
    await driver.check()
    request = lab.request(mount_path="/data")
    await run(driver, request)
    await driver.list_owned()
    await driver.logs(request.ref, 10)
    await halted(driver, request.ref)
    await run(driver, request)
    await released(driver, request.ref)
    assert await driver.delete_data(request.ref)
    made = {call.permission for call in lab.ec2.calls[calls:]}
    assert made - FREE == allowed() - set(IMPLIED) - {"sts:AssumeRole"}
