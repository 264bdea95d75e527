"""Answers that are late, lost, halved or false; and whether the effect happened."""

from __future__ import annotations

import pytest
from botocore.exceptions import BotoCoreError, ConnectionClosedError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from tests.ec2.counterpart import Counterpart, Rule
from tests.ec2.kit import launch, refused, running, until


def test_a_lost_answer_leaves_the_instance_and_the_token_finds_it(ec2: Counterpart) -> None:
    """I-06: the ambiguous create, resolved by asking again under the same name."""
    ec2.faults.lost = Rule("RunInstances", every=2)
    first = launch(ec2, ClientToken="one")
    with pytest.raises(ConnectionClosedError):
        launch(ec2, ClientToken="two")
    assert len(ec2.instances()) == 2
    second = launch(ec2, ClientToken="two")
    assert second != first
    assert {each.id for each in ec2.instances()} == {first, second}
    assert [each.outcome for each in ec2.calls] == ["ok", "ok, lost", "ok"]


def test_botocore_repeats_a_lost_launch_by_itself(ec2: Counterpart) -> None:
    """Without a token of one's own botocore makes one for each call, so its own retries do not double."""
    ec2.faults.lost = Rule("RunInstances", times=1)
    launch(ec2, client=ec2.client("ec2", retries={"total_max_attempts": 3, "mode": "standard"}))
    assert ec2.count("RunInstances") == 2
    assert len(ec2.instances()) == 1


def test_without_memory_the_same_retry_doubles(ec2: Counterpart) -> None:
    """The control of the one above: as moto alone would have it."""
    ec2.faults.lost, ec2.faults.forget_tokens = Rule("RunInstances", times=1), True
    launch(ec2, client=ec2.client("ec2", retries={"total_max_attempts": 3, "mode": "standard"}))
    assert len(ec2.instances()) == 2


def test_a_lost_stop_has_stopped(ec2: Counterpart) -> None:
    """I-04: no answer is neither success nor failure."""
    ec2.faults.lost = Rule("StopInstances", times=1)
    instance = running(ec2)
    with pytest.raises(ConnectionClosedError):
        ec2.client("ec2").stop_instances(InstanceIds=[instance])
    assert ec2.instance(instance).state in ("stopping", "stopped")


def test_a_reset_before_the_effect_has_none(ec2: Counterpart) -> None:
    ec2.faults.reset = Rule("RunInstances", times=1)
    with pytest.raises(BotoCoreError):
        launch(ec2)
    assert ec2.instances() == []
    assert ec2.calls[-1].outcome == "reset"


def test_a_slow_answer_comes_after_the_effect_and_a_slow_request_before(ec2: Counterpart) -> None:
    client = ec2.client("ec2", read_timeout=0.3)
    ec2.faults.slow = Rule("RunInstances", times=1, seconds=1.0)
    with pytest.raises(ReadTimeoutError):
        launch(ec2, client=client)
    assert ec2.instances() == []
    until(lambda: len(ec2.instances()) == 1)  # the client had given up: it happened all the same
    ec2.faults.slow_answer = Rule("TerminateInstances", times=1, seconds=1.0)
    instance = running(ec2)
    with pytest.raises(ReadTimeoutError):
        client.terminate_instances(InstanceIds=[instance])
    assert ec2.instance(instance).state != "running"


def test_half_an_answer(ec2: Counterpart) -> None:
    ec2.faults.truncated = Rule("RunInstances", times=1)
    with pytest.raises(ResponseParserError):  # which is no BotoCoreError: a driver must name it
        launch(ec2, ClientToken="one")
    assert launch(ec2, ClientToken="one") == ec2.instances()[0].id
    assert len(ec2.instances()) == 1
    assert ec2.calls[0].outcome == "ok, truncated"


def test_an_internal_error_after_the_effect(ec2: Counterpart) -> None:
    """I-04: a 500 says nothing about what happened."""
    ec2.faults.error_after = Rule("RunInstances", times=1)
    with refused("InternalError", 500):
        launch(ec2, ClientToken="one")
    ec2.faults.error_after = Rule("StopInstances", times=1)
    instance = running(ec2, ClientToken="one")
    assert len(ec2.instances()) == 1
    with refused("InternalError", 500):
        ec2.client("ec2").stop_instances(InstanceIds=[instance])
    assert ec2.instance(instance).state in ("stopping", "stopped")


def test_a_refusal_is_not_lost(ec2: Counterpart) -> None:
    """Only answers that hide an effect are worth losing."""
    ec2.faults.lost = Rule()
    ec2.faults.no_capacity = {"t3.micro"}
    with refused("InsufficientInstanceCapacity", 500):
        launch(ec2)
