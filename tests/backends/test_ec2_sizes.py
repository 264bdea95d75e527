"""How large the data volume of an EC2 workspace is, whoever makes it, and that one that exists is taken as it is."""

from __future__ import annotations

from typing import Any

import pytest
from tests.backends import ec2_kit
from tests.backends.ec2_kit import Lab, reads, released, run, started
from tests.ec2.counterpart import Volume

from workspace_operator.api import meta
from workspace_operator.api.ec2 import Disk
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.ec2 import readings, shape
from workspace_operator.backends.protocol import Reading, WorkspaceRef
from workspace_operator.errors import BadRequest

lab = ec2_kit.lab

GIB = 2**30


def volume(lab: Lab, ref: WorkspaceRef) -> Volume:
    """The one data volume of a workspace."""
    wanted = {meta.LABEL_UID: ref.uid, meta.LABEL_ROLE: "data"}
    (found,) = [each for each in lab.ec2.volumes() if wanted.items() <= each.tags.items()]
    return found


@pytest.mark.parametrize(
    ("wish", "kind", "gib"),
    [
        pytest.param(None, "gp3", 20, id="the class's own"),
        pytest.param(50 * GIB, "gp3", 50, id="as asked"),
        pytest.param(50 * GIB + 1, "gp3", 51, id="rounded up"),
        pytest.param(2**20, "gp3", 1, id="EC2 knows no smaller one"),
        pytest.param(20 * GIB, "st1", 125, id="nor of this type"),
        pytest.param(16384 * GIB, "gp2", 16384, id="the largest"),
        pytest.param(65536 * GIB, "gp3", 65536, id="the largest of this type"),
    ],
)
def test_a_volume_has_whole_gibibytes_and_never_less_than_was_asked(wish: int | None, kind: str, gib: int) -> None:
    assert shape.data_gib(wish, Disk(type=kind)) == gib


@pytest.mark.parametrize(("wish", "kind"), [(16384 * GIB + 1, "gp2"), (16385 * GIB, "sc1"), (65537 * GIB, "gp3")])
def test_what_ec2_has_no_volume_for_is_refused_with_the_most_it_has(wish: int, kind: str) -> None:
    with pytest.raises(BadRequest, match=rf"{kind}, has at most \d+ GiB; .*smaller size") as caught:
        shape.data_gib(wish, Disk(type=kind))
    assert caught.value.failure.reason == Reason.RESOURCES_EXCEED_CLASS


async def test_the_size_is_part_of_the_create_call(lab: Lab) -> None:
    """And without one the calls are those of before, to the letter."""
    driver = lab.driver(data_disk=Disk(size_gib=7))
    sized = lab.request(mount_path="/data", storage=3 * GIB)
    plain = lab.request(mount_path="/data")
    for request in (sized, plain):
        await run(driver, request)
    assert (volume(lab, sized.ref).size, volume(lab, plain.ref).size) == (3, 7)
    (known,) = lab.alive(plain.ref)
    assert shape.TAG_SIZE not in known.tags


async def test_too_large_a_volume_is_refused_before_a_machine_is_made(lab: Lab) -> None:
    """A machine that waits for a volume that cannot be is billed for nothing."""
    driver = lab.driver(data_disk=Disk(type="gp2"))
    with pytest.raises(BadRequest, match="has at most 16384 GiB"):
        await driver.provision(lab.request(mount_path="/data", storage=20000 * GIB))
    assert lab.ec2.instances() == []
    assert lab.ec2.volumes() == []


async def test_the_next_operator_makes_it_as_large_when_the_first_one_died(lab: Lab) -> None:
    """I-09: it knows the size from the machine, which was launched with it."""
    lab.ec2.faults.denied = {"CreateVolume"}
    before, request = lab.driver(), lab.request(mount_path="/data", storage=3 * GIB)
    await started(before, request)
    await before.close()
    lab.ec2.faults.denied = set()
    await reads(lab.driver(), request.ref, Reading.RUNNING)
    assert volume(lab, request.ref).size == 3


async def test_a_volume_that_exists_is_taken_whatever_its_size(lab: Lab) -> None:
    """Nothing is made anew or refused because the class, or a hand, says something else by now (I-08)."""
    before, request = lab.driver(data_disk=Disk(size_gib=7)), lab.request(mount_path="/data")
    await run(before, request)
    there = volume(lab, request.ref)
    await released(before, request.ref)
    after = lab.driver(data_disk=Disk(size_gib=30, type="gp2"))
    for incarnation, storage in ((2, None), (3, 50 * GIB), (4, 20000 * GIB)):
        again = lab.request(request.ref, incarnation, mount_path="/data", storage=storage)
        made = await run(after, again)
        assert (volume(lab, request.ref).id, there.size, there.instance_id) == (there.id, 7, made.id)
        await released(after, request.ref)


@pytest.mark.parametrize("tag", ["", "20Gi", "-1", "1e99999999"])
async def test_a_spoilt_size_of_a_machine_is_none(lab: Lab, tag: str) -> None:
    """Who changes tags by hand gets the class's size, and no operator that fails."""
    driver, request = lab.driver(), lab.request(mount_path="/data", storage=3 * GIB)
    made = await started(driver, request)
    item: dict[str, Any] = dict(
        lab.ec2.client("ec2").describe_instances(InstanceIds=[made.id])["Reservations"][0]["Instances"][0]
    )
    assert readings.read(item).size == 3 * GIB
    others = [each for each in item["Tags"] if each["Key"] != shape.TAG_SIZE]
    assert readings.read({**item, "Tags": [*others, {"Key": shape.TAG_SIZE, "Value": tag}]}).size is None
