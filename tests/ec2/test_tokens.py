"""Client tokens: EC2 remembers, moto does not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.ec2.counterpart import Counterpart, Faults, Rule
from tests.ec2.kit import ZONE, launch, reach, refused, request, tagged


def test_the_same_token_and_parameters_launch_once(ec2: Counterpart) -> None:
    """I-06: a retry of a launch finds the first one."""
    first = launch(ec2, ClientToken="one")
    reach(ec2, first, "running")
    again = ec2.client("ec2").run_instances(**request(ec2, ClientToken="one"))
    assert [i["InstanceId"] for i in again["Instances"]] == [first]
    assert again["Instances"][0]["State"]["Name"] == "running", "the answer shows the present state"
    assert again["ReservationId"] == ec2.instance(first).reservation
    assert len(ec2.instances()) == len(ec2.launches) == 1


def test_a_token_covers_all_instances_of_its_request(ec2: Counterpart) -> None:
    client = ec2.client("ec2")
    answers = [client.run_instances(**request(ec2, ClientToken="three", MinCount=3, MaxCount=3)) for _ in range(2)]
    ids = [[i["InstanceId"] for i in answer["Instances"]] for answer in answers]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3 == len(ec2.instances())


def test_other_parameters_under_a_token_are_refused(ec2: Counterpart) -> None:
    """I-08: changed parameters need a new token."""
    launch(ec2, ClientToken="one")
    for change in (
        {"InstanceType": "t3.small"},
        {"UserData": "other"},
        {"TagSpecifications": tagged("instance", a="1")},
    ):
        with refused("IdempotentParameterMismatch", words="inconsistent"):
            launch(ec2, ClientToken="one", **change)
    assert len(ec2.instances()) == 1


def test_the_token_of_a_terminated_instance_is_spent(ec2: Counterpart) -> None:
    """I-08: after a termination the same token is an error, already while it shuts down."""
    client = ec2.client("ec2")
    first = launch(ec2, ClientToken="one")
    client.terminate_instances(InstanceIds=[first])
    with refused("IdempotentInstanceTerminated"):
        launch(ec2, ClientToken="one")
    reach(ec2, first, "terminated")
    with refused("IdempotentInstanceTerminated", words="terminated instance"):
        launch(ec2, ClientToken="one")


def test_a_token_of_a_vanished_instance_is_still_spent(ec2: Counterpart) -> None:
    ec2.faults.terminated_visible = 0.0
    first = launch(ec2, ClientToken="one")
    ec2.terminate(first)
    reach(ec2, first, "terminated")
    with refused("IdempotentInstanceTerminated"):
        launch(ec2, ClientToken="one")


def test_a_token_counts_per_zone_so_another_zone_doubles(ec2: Counterpart) -> None:
    """The trap: the developer guide promises no idempotency across zones."""
    launch(ec2, ClientToken="one")
    launch(ec2, ClientToken="one", SubnetId=ec2.subnets["eu-central-1b"])
    assert {machine.zone for machine in ec2.instances()} == {ZONE, "eu-central-1b"}


def test_a_launch_refused_for_capacity_binds_its_token(ec2: Counterpart) -> None:
    """I-08 (ubicloud #5898): the other instance type needs another token; the same request may be tried again."""
    ec2.faults.no_capacity = {"t3.micro"}
    with refused("InsufficientInstanceCapacity", 500):
        launch(ec2, ClientToken="one")
    with refused("IdempotentParameterMismatch"):
        launch(ec2, ClientToken="one", InstanceType="t3.small")
    ec2.faults.no_capacity = set()
    launch(ec2, ClientToken="one")


def test_a_launch_refused_as_invalid_leaves_its_token_free(ec2: Counterpart) -> None:
    with refused("InvalidGroup.NotFound"):
        launch(ec2, ClientToken="one", SecurityGroupIds=["sg-0123"])
    launch(ec2, ClientToken="one")


def test_concurrent_duplicates_are_one(ec2: Counterpart) -> None:
    client = ec2.client("ec2")
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: launch(ec2, client=client, ClientToken="one"), range(8)))
    assert len(ids) == 1 == len(ec2.instances())


def test_a_token_of_65_characters_or_beyond_ascii_is_refused(ec2: Counterpart) -> None:
    launch(ec2, ClientToken="x" * 64)
    for token in ("x" * 65, "clé"):
        with refused("InvalidParameterValue"):
            launch(ec2, ClientToken=token)


def test_volumes_have_tokens_too(ec2: Counterpart) -> None:
    client = ec2.client("ec2")
    asked = {"AvailabilityZone": ZONE, "Size": 2, "ClientToken": "disk"}
    first, second = (client.create_volume(**asked)["VolumeId"] for _ in range(2))
    assert first == second
    with refused("IdempotentParameterMismatch"):
        client.create_volume(**asked | {"Size": 3})
    assert len(ec2.volumes()) == 1


def test_tokens_can_be_forgotten_as_moto_does(ec2: Counterpart) -> None:
    """The control: with the memory off the same calls double, so the tests above see a difference."""
    ec2.faults.forget_tokens = True
    assert launch(ec2, ClientToken="one") != launch(ec2, ClientToken="one")


def test_the_token_is_shown_and_can_be_searched(ec2: Counterpart) -> None:
    launch(ec2, ClientToken="one")
    launch(ec2, ClientToken="two")
    filters = [{"Name": "client-token", "Values": ["two"]}]
    found = ec2.client("ec2").describe_instances(Filters=filters)["Reservations"]
    assert [each["Instances"][0]["ClientToken"] for each in found] == ["two"]


def test_the_dice_fall_the_same_way_for_a_seed(ec2: Counterpart) -> None:
    def fall(seed: int) -> list[bool]:
        faults = Faults(seed=seed, lost=Rule(share=0.5))
        return [faults.hits("lost", "RunInstances") is not None for _ in range(40)]

    assert fall(7) == fall(7) != fall(8)
    assert 10 < sum(fall(7)) < 30
