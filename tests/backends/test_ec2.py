"""The EC2 driver: what it makes, and what a pause, a resume and a release do to it."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.backends import ec2_kit
from tests.backends.ec2_kit import CLASS, Lab, eventually, halted, reads, released, run, started
from tests.ec2.counterpart import Rule

from workspace_operator.api import meta
from workspace_operator.api.states import Capability, PauseMode
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends import ec2 as package
from workspace_operator.backends.ec2 import boot
from workspace_operator.backends.protocol import Instance, Reading, StopRequest
from workspace_operator.errors import BackendError, BadRequest

lab = ec2_kit.lab


def described(lab: Lab, instance: str) -> dict[str, Any]:
    answer = lab.ec2.client("ec2").describe_instances(InstanceIds=[instance])
    return dict(answer["Reservations"][0]["Instances"][0])


def told(lab: Lab, instance: str) -> dict[str, Any]:
    """What the machine reads from its user data."""
    return boot.read(lab.ec2.user_data(instance).encode())


# -- what is made ------------------------------------------------------------------------------------------------------


async def test_owner_tags_are_part_of_the_create_call_on_everything(lab: Lab) -> None:
    """I-05, I-13: there is no moment in which something of ours has no owner."""
    driver, request = lab.driver(), lab.request(mount_path="/data")
    made = await run(driver, request)
    expected = {
        meta.MANAGED_BY_LABEL: meta.MANAGED_BY,
        meta.LABEL_CLUSTER: lab.cluster,
        meta.LABEL_UID: request.ref.uid,
        meta.LABEL_NAMESPACE: "team",
        meta.LABEL_NAME: request.ref.name,
        meta.LABEL_CLASS: CLASS,
    }
    assert expected.items() <= lab.ec2.instance(made.id).tags.items()
    assert all(expected.items() <= volume.tags.items() for volume in lab.ec2.volumes())
    interface = described(lab, made.id)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    found = lab.ec2.client("ec2").describe_network_interfaces(NetworkInterfaceIds=[interface])
    tags = {tag["Key"]: tag["Value"] for tag in found["NetworkInterfaces"][0]["TagSet"]}
    assert expected.items() <= tags.items()
    assert lab.ec2.count("CreateTags") == 0


async def test_metadata_is_version_2_with_one_hop_and_disks_are_encrypted(lab: Lab) -> None:
    await run(lab.driver(), lab.request(mount_path="/data"))
    asked = lab.ec2.launches[0]
    assert asked["MetadataOptions.HttpTokens"] == "required"
    assert asked["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    assert asked["MetadataOptions.InstanceMetadataTags"] == "disabled"
    assert asked["NetworkInterface.1.AssociatePublicIpAddress"] == "false"
    assert asked["InstanceInitiatedShutdownBehavior"] == "stop"
    assert asked["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"
    assert len(asked["ClientToken"]) <= 64
    assert asked["ClientToken"].isascii()
    assert len(lab.ec2.volumes()) == 2
    assert all(volume.encrypted for volume in lab.ec2.volumes())


async def test_secrets_are_in_the_user_data_only(lab: Lab) -> None:
    """I-53: nothing that a Describe shows, nothing that is logged, holds one."""
    secret = "s3cr3t-value"
    driver, request = lab.driver(), lab.request(token=secret, environment={"API_KEY": secret})
    made = await run(driver, request)
    assert told(lab, made.id)["environment"]["API_KEY"] == secret
    shown = [described(lab, made.id), lab.ec2.client("ec2").describe_tags()["Tags"], await driver.list_owned()]
    assert secret not in json.dumps(shown, default=repr) + repr(driver) + repr(request)
    assert "UserData" not in described(lab, made.id)


async def test_the_smallest_machine_type_that_fits_is_taken(lab: Lab) -> None:
    driver = lab.driver()
    small, large = lab.request(cpu=1.5), lab.request(cpu=2.0, memory=3 * 2**30)
    for request in (small, large):
        await started(driver, request)
    assert [asked["InstanceType"] for asked in lab.ec2.launches] == ["t3.small", "t3.large"]
    with pytest.raises(BadRequest, match=r"machineTypes"):
        await driver.provision(lab.request(cpu=64.0))


async def test_an_image_may_be_an_ssm_parameter_which_is_asked_for_once(lab: Lab) -> None:
    name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    driver = lab.driver(image=f"ssm:{name}")
    for _ in range(3):
        await started(driver, lab.request())
    assert {asked["ImageId"] for asked in lab.ec2.launches} == {lab.ec2.image}
    assert lab.ec2.count("GetParameter") == 1


async def test_the_address_is_the_private_one_with_the_agents_port(lab: Lab) -> None:
    """I-56: never what the agent says."""
    driver, request = lab.driver(), lab.request(port=9000)
    made = await run(driver, request)
    assert made.address == f"{described(lab, made.id)['PrivateIpAddress']}:9000"
    assert made.node == described(lab, made.id)["Placement"]["AvailabilityZone"]


async def test_an_environment_that_is_too_long_is_refused_before_anything_is_made(lab: Lab) -> None:
    noise = random.Random(1).randbytes(12000).hex()
    with pytest.raises(BadRequest, match="16384"):
        await lab.driver().provision(lab.request(environment={"A": noise}))
    assert lab.ec2.instances() == []


# -- pause and resume --------------------------------------------------------------------------------------------------


async def test_a_pause_stops_the_same_instance_and_a_resume_starts_it(lab: Lab) -> None:
    """I-01: the machine is not billed while the workspace says Paused."""
    driver, request = lab.driver(), lab.request(mount_path="/data")
    first = await run(driver, request)
    await halted(driver, request.ref)
    assert lab.ec2.instance(first.id).state == "stopped"
    again = await run(driver, request)
    assert again.id == first.id
    assert len(lab.ec2.launches) == 1


async def test_a_resume_writes_new_files_before_the_start(lab: Lab) -> None:
    """I-50, I-51: the token of before the pause is revoked."""
    driver, request = lab.driver(), lab.request(token="revoked")
    made = await run(driver, request)
    await halted(driver, request.ref)
    await run(driver, lab.request(request.ref, token="fresh"))
    assert told(lab, made.id)["files"]["token"] == "ZnJlc2g="
    order = [call.action for call in lab.ec2.calls if call.action in ("ModifyInstanceAttribute", "StartInstances")]
    assert order == ["ModifyInstanceAttribute", "StartInstances"]


async def test_a_pending_instance_is_stopped_once_it_has_run(lab: Lab) -> None:
    """EC2 refuses to stop what never ran; that is no failure and no call."""
    lab.ec2.faults.pending = 0.5
    driver, request = lab.driver(), lab.request()
    await started(driver, request)
    (left,) = await driver.stop(StopRequest(request.ref, timedelta(seconds=5)))
    assert left.reading is Reading.STARTING
    assert lab.ec2.count("StopInstances") == 0
    await halted(driver, request.ref)


async def test_a_stop_tells_since_when_and_is_not_repeated(lab: Lab) -> None:
    lab.ec2.faults.stopping = 1.0
    driver, request = lab.driver(), lab.request()
    await run(driver, request)
    await driver.stop(StopRequest(request.ref, timedelta(seconds=5)))
    later = lab.driver()
    (left,) = await later.stop(StopRequest(request.ref, timedelta(seconds=5)))
    assert left.reading is Reading.HALTING
    assert left.halting_since is not None
    assert abs(datetime.now(UTC) - left.halting_since) < timedelta(seconds=5)
    assert lab.ec2.count("StopInstances") == 1


async def test_what_is_stuck_in_stopping_is_forced(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from workspace_operator.backends.ec2 import driver as module

    monkeypatch.setattr(module, "FORCE_AFTER", timedelta(0))
    lab.ec2.faults.stopping = 5.0
    driver, request = lab.driver(), lab.request()
    await run(driver, request)
    await driver.stop(StopRequest(request.ref, timedelta(seconds=1)))

    async def forced() -> bool:
        await driver.stop(StopRequest(request.ref, timedelta(seconds=1)))
        return any(call.params.get("Force") == "true" for call in lab.ec2.calls)

    await eventually(forced, "a forced stop")


async def test_hibernation_where_the_class_asks_for_it(lab: Lab) -> None:
    driver = lab.driver(hibernation=True, spec={"pause_mode": PauseMode.HIBERNATE})
    assert Capability.HIBERNATE in driver.capabilities
    request = lab.request()
    made = await run(driver, request)
    seen = await halted(driver, request.ref)
    assert seen.reading is Reading.HALTED
    assert lab.ec2.instance(made.id).reason[0] == "Client.UserInitiatedHibernate"
    assert (await run(driver, lab.request(request.ref, token="fresh"))).id == made.id
    assert Capability.HIBERNATE not in lab.driver().capabilities


async def test_a_machine_that_cannot_hibernate_yet_is_asked_again(lab: Lab) -> None:
    """EC2 needs some minutes after the boot; that is a state and no failure."""
    lab.ec2.faults.hibernate_ready = 1.0
    driver = lab.driver(hibernation=True, spec={"pause_mode": PauseMode.HIBERNATE})
    request = lab.request()
    await run(driver, request)
    (left,) = await driver.stop(StopRequest(request.ref, timedelta(seconds=5)))
    assert left.reading is Reading.RUNNING
    await halted(driver, request.ref)


async def test_a_listing_that_lags_behind_a_start_does_not_show_the_instance_halted(lab: Lab) -> None:
    """Eventual consistency: what was just started would otherwise be started again."""
    driver, request = lab.driver(consistency_window="3s"), lab.request()
    await run(driver, request)
    await halted(driver, request.ref)
    lab.ec2.faults.state_delay = 1.0
    await asyncio.sleep(1.1)
    await started(driver, request)
    assert [i.reading for i in await driver.observe(request.ref)] == [Reading.STARTING]
    await driver.provision(request)
    assert lab.ec2.count("StartInstances") == 1
    lab.ec2.faults.state_delay = 0
    await reads(driver, request.ref, Reading.RUNNING)


# -- release and data --------------------------------------------------------------------------------------------------


async def test_a_release_terminates_and_keeps_the_data_volume(lab: Lab) -> None:
    """I-16: and the root disk goes with the machine."""
    driver, request = lab.driver(), lab.request(mount_path="/data")
    made = await run(driver, request)
    await released(driver, request.ref)
    assert lab.ec2.instance(made.id).state == "terminated"
    assert [v.tags[meta.LABEL_ROLE] for v in lab.ec2.volumes()] == ["data"]


async def test_the_next_incarnation_gets_the_volume_in_its_zone(lab: Lab) -> None:
    """The first launch chooses the zone, the volume keeps it, whatever the class prefers by then."""
    subnets = tuple(lab.ec2.subnets.values())
    before, request = lab.driver(subnets=subnets[:1]), lab.request(mount_path="/data")
    first = await run(before, request)
    await released(before, request.ref)
    (volume,) = [v for v in lab.ec2.volumes() if v.tags[meta.LABEL_ROLE] == "data"]
    after = lab.driver(subnets=tuple(reversed(subnets)))
    second = await run(after, lab.request(request.ref, 2, mount_path="/data"))
    assert second.node == first.node == volume.zone
    assert volume.instance_id == second.id
    elsewhere = lab.driver(subnets=subnets[1:])
    await released(elsewhere, request.ref)
    with pytest.raises(BadRequest, match=r"lives in .*ec2\.subnets"):
        await started(elsewhere, lab.request(request.ref, 3, mount_path="/data"))


async def test_an_instance_reads_starting_until_its_volume_is_attached(lab: Lab) -> None:
    lab.ec2.faults.pending = lab.ec2.faults.attaching = 0.5
    driver, request = lab.driver(), lab.request(mount_path="/data")
    await started(driver, request)

    async def waits() -> bool:
        (seen,) = await driver.observe(request.ref)
        return seen.reading is Reading.STARTING and "data volume" in seen.message

    await eventually(waits, "the wait for the volume")
    made = await reads(driver, request.ref, Reading.RUNNING)
    assert made.address is not None
    assert lab.ec2.count("AttachVolume") == 1


async def test_a_volume_is_attached_by_the_next_operator_when_the_first_one_died(lab: Lab) -> None:
    """I-09: between the launch and the attachment too."""
    lab.ec2.faults.pending = 0.5
    before, request = lab.driver(), lab.request(mount_path="/data")
    await started(before, request)
    await before.close()
    await reads(lab.driver(), request.ref, Reading.RUNNING)
    assert len([v for v in lab.ec2.volumes() if v.tags[meta.LABEL_ROLE] == "data"]) == 1


async def test_a_lost_answer_of_create_volume_makes_no_second_volume(lab: Lab) -> None:
    lab.ec2.faults.lost = Rule("CreateVolume,AttachVolume", every=1, times=2)
    await run(lab.driver(), lab.request(mount_path="/data"))
    assert len([v for v in lab.ec2.volumes() if v.tags[meta.LABEL_ROLE] == "data"]) == 1


async def test_another_clusters_volume_is_never_deleted(lab: Lab) -> None:
    """I-15, I-16: not even under the same UID."""
    driver, request = lab.driver(), lab.request(mount_path="/data")
    await run(driver, request)
    await released(driver, request.ref)
    other = Lab(lab.ec2)
    twin = type(request.ref)(other.cluster, request.ref.uid, "team", "twin", CLASS)
    assert await other.driver(consistency_window="0s").delete_data(twin) is True
    assert len([v for v in lab.ec2.volumes() if v.tags[meta.LABEL_ROLE] == "data"]) == 1
    await other.close()


# -- looking -----------------------------------------------------------------------------------------------------------


async def test_an_instance_that_ec2_could_not_launch_says_why(lab: Lab) -> None:
    """I-81: a state reason becomes a sentence; the name is spent, so that the plan takes the next one (I-08)."""
    lab.ec2.faults.launch_fails = Rule("RunInstances", code="Client.VolumeLimitExceeded")
    driver, request = lab.driver(), lab.request()
    await started(driver, request)

    async def gone() -> bool:
        return await driver.observe(request.ref) == ()

    await eventually(gone, "absent")
    with pytest.raises(BackendError, match="quota of EBS volumes") as caught:
        await driver.provision(request)
    assert caught.value.failure.reason == "IncarnationSpent"


async def test_failing_status_checks_show_in_the_message(lab: Lab) -> None:
    driver, request = lab.driver(status_checks=True), lab.request()
    made = await run(driver, request)
    lab.ec2.faults.impaired = {made.id}
    (seen,) = await driver.list_owned()
    assert (seen.reading, "status check" in seen.message) == (Reading.RUNNING, True)


async def test_logs_are_the_workloads_lines_or_the_console_itself(lab: Lab) -> None:
    driver, request = lab.driver(), lab.request()
    made = await run(driver, request)
    lab.ec2.write_console(made.id, "kernel panic\n")
    assert await driver.logs(request.ref, 10) == "kernel panic\n"
    lab.ec2.write_console(made.id, f"{boot.OUTPUT}one\n[ 3.1] noise\n{boot.OUTPUT}two\n{boot.OUTPUT}three\n")
    assert await driver.logs(request.ref, 2) == "two\nthree\n"
    assert await driver.logs(lab.ref(), 5) == ""


async def test_an_ended_workload_reads_halted_with_its_status(lab: Lab) -> None:
    driver, request = lab.driver(), lab.request()
    made = await run(driver, request)
    lab.ec2.write_console(made.id, f"{boot.ENDED}3\n")
    lab.ec2.power_off(made.id)
    seen = await reads(driver, request.ref, Reading.HALTED)
    assert seen.exit_code == 3


async def test_an_instance_is_woken_when_it_arrives(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing moves: nothing is asked. Something moves: one call for all of it, and a wake when it arrived."""
    from workspace_operator.backends.ec2 import following

    monkeypatch.setattr(following, "INTERVAL", 0.1)
    lab.ec2.faults.pending = 0.5
    driver, woken = lab.driver(), set[str]()
    watch = asyncio.create_task(driver.watch(woken.add))
    requests = [lab.request() for _ in range(3)]
    await asyncio.gather(*(started(driver, request) for request in requests))

    async def all_woken() -> bool:
        return woken >= {request.ref.uid for request in requests}

    await eventually(all_woken, "wakes")
    calls = lab.ec2.count("DescribeInstances")
    await asyncio.sleep(0.5)
    assert lab.ec2.count("DescribeInstances") - calls <= 1
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


# -- the rest ----------------------------------------------------------------------------------------------------------


async def test_a_class_without_the_block_is_refused() -> None:
    from workspace_operator.api.workspaceclass import DockerBackend

    with pytest.raises(BadRequest, match="ec2 block"):
        package.create("c", WorkspaceClassSpec(docker=DockerBackend()), "k", ec2_kit.Lab.resolve)  # type: ignore[arg-type]


async def test_delivery_to_a_running_machine_is_refused_with_the_way_out(lab: Lab) -> None:
    driver, request = lab.driver(), lab.request()
    await run(driver, request)
    with pytest.raises(BackendError, match="tokenLifetime"):
        await driver.deliver(request.ref, 1, {"token": b"new"})
    assert Capability.DELIVER not in driver.capabilities


async def test_an_edited_class_remembers_what_the_old_one_launched(lab: Lab) -> None:
    """The door makes a new driver; the process's ledger stays."""
    spec = WorkspaceClassSpec(ec2=lab.block())
    one, two = (package.create(CLASS, spec, lab.cluster, lab.resolve) for _ in range(2))
    lab.ec2.faults.describe_delay = 2.0
    request = lab.request()
    made = await one.provision(request)
    assert isinstance(made, Instance)
    assert [i.id for i in await two.observe(request.ref)] == [made.id]
    await one.close()
    await two.close()
