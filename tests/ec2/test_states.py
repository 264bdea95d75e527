"""States take time, and allow what EC2 allows."""

from __future__ import annotations

import pytest
from tests.ec2.counterpart import Counterpart, Rule
from tests.ec2.kit import HELD, described, flat, launch, reach, refused, running, tags, until

HIBERNATABLE = {"HibernationOptions": {"Configured": True}}


def test_a_launch_is_pending_before_it_runs(ec2: Counterpart) -> None:
    ec2.faults.pending = HELD
    instance = launch(ec2)
    assert described(ec2, instance)["State"] == {"Code": 0, "Name": "pending"}
    ec2.advance(instance)
    reach(ec2, instance, "running")
    assert described(ec2, instance)["State"] == {"Code": 16, "Name": "running"}


def test_a_stop_passes_through_stopping_and_says_who_asked(ec2: Counterpart) -> None:
    ec2.faults.stopping = HELD
    instance, client = running(ec2), ec2.client("ec2")
    change = client.stop_instances(InstanceIds=[instance])["StoppingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    assert described(ec2, instance)["State"]["Name"] == "stopping"
    ec2.advance(instance)
    reach(ec2, instance, "stopped")
    shown = described(ec2, instance)
    assert shown["State"] == {"Code": 80, "Name": "stopped"}
    assert shown["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert shown["StateTransitionReason"].startswith("User initiated (20")


def test_a_stopped_one_starts_through_pending_with_a_clean_reason(ec2: Counterpart) -> None:
    instance, client = running(ec2), ec2.client("ec2")
    ec2.stop_by_hand(instance)
    reach(ec2, instance, "stopped")
    ec2.faults.pending = HELD
    client.start_instances(InstanceIds=[instance])
    assert described(ec2, instance)["State"]["Name"] == "pending"
    ec2.advance(instance)
    reach(ec2, instance, "running")
    shown = described(ec2, instance)
    assert "StateReason" not in shown
    assert shown["StateTransitionReason"] == ""
    assert [c.state for c in ec2.instance(instance).history][-4:] == ["stopping", "stopped", "pending", "running"]


def test_a_terminated_one_is_seen_for_a_while_and_then_gone(ec2: Counterpart) -> None:
    ec2.faults.shutting_down = HELD
    instance, client = running(ec2), ec2.client("ec2")
    client.terminate_instances(InstanceIds=[instance])
    assert described(ec2, instance)["State"]["Name"] == "shutting-down"
    ec2.advance(instance)
    reach(ec2, instance, "terminated")
    assert described(ec2, instance)["State"] == {"Code": 48, "Name": "terminated"}
    client.terminate_instances(InstanceIds=[instance])
    ec2.advance(instance)
    assert flat(client.describe_instances()) == []
    with refused("InvalidInstanceID.NotFound"):
        client.terminate_instances(InstanceIds=[instance])


def test_verbs_without_effect_succeed(ec2: Counterpart) -> None:
    instance, client = running(ec2), ec2.client("ec2")
    client.start_instances(InstanceIds=[instance])
    client.stop_instances(InstanceIds=[instance])
    client.stop_instances(InstanceIds=[instance])
    reach(ec2, instance, "stopped")
    client.stop_instances(InstanceIds=[instance])
    assert [c.state for c in ec2.instance(instance).history] == ["pending", "running", "stopping", "stopped"]


def test_no_start_while_stopping_or_after_the_end(ec2: Counterpart) -> None:
    """moto starts a terminated instance."""
    ec2.faults.stopping = ec2.faults.shutting_down = HELD
    instance, client = running(ec2), ec2.client("ec2")
    ec2.stop_by_hand(instance)
    with refused("IncorrectInstanceState", words="can be started"):
        client.start_instances(InstanceIds=[instance])
    ec2.terminate(instance)
    for state in ("shutting-down", "terminated"):
        reach(ec2, instance, state)
        for verb in (client.start_instances, client.stop_instances, client.reboot_instances):
            with refused("IncorrectInstanceState"):
                verb(InstanceIds=[instance])
        ec2.advance(instance)


def test_no_stop_before_the_first_run_but_during_a_later_start(ec2: Counterpart) -> None:
    ec2.faults.pending = HELD
    instance, client = launch(ec2), ec2.client("ec2")
    with refused("IncorrectInstanceState", words="never reached the 'running' state"):
        client.stop_instances(InstanceIds=[instance])
    ec2.advance(instance)
    ec2.stop_by_hand(instance)
    reach(ec2, instance, "stopped")
    client.start_instances(InstanceIds=[instance])
    client.stop_instances(InstanceIds=[instance])
    reach(ec2, instance, "stopped")


def test_a_pending_one_can_be_terminated(ec2: Counterpart) -> None:
    ec2.faults.pending = HELD
    instance = launch(ec2)
    ec2.client("ec2").terminate_instances(InstanceIds=[instance])
    reach(ec2, instance, "terminated")
    assert [c.state for c in ec2.instance(instance).history] == ["pending", "shutting-down", "terminated"]


def test_one_wrong_id_spoils_the_whole_request(ec2: Counterpart) -> None:
    """I-03: what is no instance id is malformed, and never a success."""
    instance, client = running(ec2), ec2.client("ec2")
    with refused("InvalidInstanceID.Malformed", words="6f1d-uuid"):
        client.terminate_instances(InstanceIds=[instance, "6f1d-uuid"])
    with refused("InvalidInstanceID.NotFound", words="i-0123456789abcdef0"):
        client.terminate_instances(InstanceIds=[instance, "i-0123456789abcdef0"])
    assert ec2.instance(instance).state == "running"


def test_hibernation_is_marked_where_it_was_configured(ec2: Counterpart) -> None:
    """moto hibernates anything."""
    client = ec2.client("ec2")
    plain, sleepy = running(ec2), running(ec2, **HIBERNATABLE)
    with refused("UnsupportedHibernationConfiguration", words=plain):
        client.stop_instances(InstanceIds=[plain, sleepy], Hibernate=True)
    assert ec2.instance(sleepy).state == "running"
    client.stop_instances(InstanceIds=[sleepy], Hibernate=True)
    reach(ec2, sleepy, "stopped")
    assert ec2.instance(sleepy).hibernated
    assert described(ec2, sleepy)["StateReason"]["Code"] == "Client.UserInitiatedHibernate"
    client.start_instances(InstanceIds=[sleepy])
    reach(ec2, sleepy, "running")
    until(lambda: not ec2.instance(sleepy).hibernated)


def test_hibernation_needs_a_while_after_boot(ec2: Counterpart) -> None:
    ec2.faults.hibernate_ready = HELD
    instance, client = running(ec2, **HIBERNATABLE), ec2.client("ec2")
    with refused("UnsupportedOperation", words="not ready to hibernate"):
        client.stop_instances(InstanceIds=[instance], Hibernate=True)
    ec2.faults.hibernate_ready = 0.0
    client.stop_instances(InstanceIds=[instance], Hibernate=True)


def test_a_protected_one_is_not_terminated(ec2: Counterpart) -> None:
    instance, client = running(ec2, DisableApiTermination=True), ec2.client("ec2")
    with refused("OperationNotPermitted"):
        client.terminate_instances(InstanceIds=[instance])
    client.modify_instance_attribute(InstanceId=instance, DisableApiTermination={"Value": False})
    client.terminate_instances(InstanceIds=[instance])


@pytest.mark.parametrize(("behaviour", "end"), [("stop", "stopped"), ("terminate", "terminated")])
def test_a_guest_that_shuts_down_stops_or_terminates(ec2: Counterpart, behaviour: str, end: str) -> None:
    instance = running(ec2, InstanceInitiatedShutdownBehavior=behaviour)
    ec2.power_off(instance)
    reach(ec2, instance, end)
    assert described(ec2, instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_launch_can_fail_after_it_was_accepted(ec2: Counterpart) -> None:
    ec2.faults.launch_fails = Rule(times=1, code="Client.VolumeLimitExceeded")
    instance = launch(ec2)
    reach(ec2, instance, "terminated")
    assert described(ec2, instance)["StateReason"]["Code"] == "Client.VolumeLimitExceeded"
    assert not ec2.instance(instance).ever_ran
    running(ec2)


def test_status_checks_initialise_pass_and_fail(ec2: Counterpart) -> None:
    ec2.faults.initializing = HELD
    instance, client = running(ec2), ec2.client("ec2")

    def status() -> str:
        found = client.describe_instance_status(InstanceIds=[instance])["InstanceStatuses"]
        return str(found[0]["InstanceStatus"]["Status"]) if found else "none"

    assert status() == "initializing"
    ec2.faults.initializing = 0.0
    assert status() == "ok"
    ec2.faults.impaired = {instance}
    assert status() == "impaired"
    ec2.stop_by_hand(instance)
    assert status() == "none"
    everything = client.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert [each["InstanceStatus"]["Status"] for each in everything] == ["not-applicable"]


def test_user_data_and_type_change_only_while_stopped(ec2: Counterpart) -> None:
    ec2.faults.stopping = HELD
    instance, client = running(ec2, UserData="old"), ec2.client("ec2")
    ec2.stop_by_hand(instance)
    with refused("IncorrectInstanceState", words="'stopped'"):
        client.modify_instance_attribute(InstanceId=instance, UserData={"Value": b"new"})
    ec2.advance(instance)
    reach(ec2, instance, "stopped")
    client.modify_instance_attribute(InstanceId=instance, UserData={"Value": b"new"})
    client.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "t3.large"})
    assert ec2.user_data(instance) == "new"
    assert described(ec2, instance)["InstanceType"] == ec2.instance(instance).instance_type == "t3.large"


def test_a_reboot_changes_no_state(ec2: Counterpart) -> None:
    instance = running(ec2)
    ec2.client("ec2").reboot_instances(InstanceIds=[instance])
    assert ec2.instance(instance).state == "running"


def test_history_knows_how_many_were_alive_together(ec2: Counterpart) -> None:
    """I-06: the oracle for "never two alive for one workspace"."""

    def named(uid: str) -> dict[str, object]:
        return {"TagSpecifications": [{"ResourceType": "instance", "Tags": tags(uid=uid)}]}

    first = running(ec2, **named("one"))
    ec2.terminate(first)
    reach(ec2, first, "terminated")
    running(ec2, **named("one"))
    running(ec2, **named("two"))
    twice = running(ec2, **named("two"))
    ec2.stop_by_hand(twice)
    reach(ec2, twice, "stopped")
    assert ec2.max_alive_per("uid") == {"one": 1, "two": 2}
    assert {each.tags["uid"] for each in ec2.alive()} == {"one", "two"}
    assert len(ec2.alive({"uid": "two"})) == 1
    numbers = [change.number for change in ec2.history]
    assert numbers == sorted(numbers)
