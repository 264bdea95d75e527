"""The same wishes on EC2: the whole operator against moto's server behind our fault proxy; no real AWS can run here."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.ec2.counterpart import Rule
from tests.support.ec2 import Account
from tests.support.fleet import Fleet, Object, until, workspace
from tests.support.wild import Wild

from workspace_operator.api import meta

pytestmark = pytest.mark.cluster

HUNDRED, FORTY = 100, 40
LATE = 5.0  # seconds until Describe shows what was made
PATIENCE = 400  # seconds for a hundred to be Ready, or gone
STARTS = {"concurrentStarts": 50, "startsPerMinute": 60000}


def test_a_pause_stops_the_machine_and_a_stop_terminates_it(wild: Wild, account: Account) -> None:
    """What EC2 itself shows, not what the row says (I-01, I-02, I-23)."""
    fleet, region = wild.fleet, account.ec2
    fleet.apply(workspace("one", className=account.put_class("ec2"), storage={"whenDeleted": "Delete"}))
    fleet.wait_ready("one")
    first = fleet.status("one")["instance"]["id"]
    fleet.desire("one", "Paused")
    fleet.wait_phase("one", "Paused")
    assert region.instance(first).state == "stopped"
    fleet.desire("one", "Running")
    fleet.wait_phase("one", "Running")
    assert fleet.status("one")["instance"]["id"] == first, "a resume keeps the machine"
    fleet.desire("one", "Stopped")
    fleet.wait_phase("one", "Stopped")
    assert region.instance(first).state == "terminated"
    fleet.desire("one", "Running")
    fleet.wait_phase("one", "Running")
    second = fleet.status("one")["instance"]["id"]
    assert second != first
    uid = fleet.get("one")["metadata"]["uid"]
    assert uid in account.data_volumes()
    fleet.delete("one")
    assert region.instance(second).state == "terminated"
    assert uid not in account.data_volumes()


@pytest.mark.timeout(1200)
def test_a_hundred_with_lost_answers_late_listings_and_a_killed_operator(wild: Wild, account: Account) -> None:
    """Every second answer of RunInstances is lost and Describe is 5 s late: exactly one machine each, and never two
    (I-05, I-06, I-08, I-09, I-10, I-13). The counterpart notes every change, so "never" means more than each poll."""
    fleet, region = wild.fleet, account.ec2
    subnets = tuple(region.subnets.values())[:2]  # so that no single client token guards
    name = account.put_class("hundred", {"subnets": subnets, "consistency_window": "10s"}, limits=STARTS)
    region.faults.lost, region.faults.describe_delay = Rule("RunInstances", every=2), LATE
    lost_before = region.count("RunInstances", "ok, lost")
    fleet.apply(*(_one_of_many(number, name) for number in range(HUNDRED)))
    until(lambda: region.count("RunInstances", "ok, lost") - lost_before >= HUNDRED / 5, PATIENCE)
    wild.crash()
    until(lambda: _ready(fleet, account) == HUNDRED, PATIENCE, lambda: f"{_ready(fleet, account)} are Ready")
    everyone = {one["metadata"]["uid"]: one for one in fleet.all()}
    machines = account.machines(fleet.namespace)
    assert len(machines) == len(everyone) == HUNDRED
    assert {m.tags[meta.LABEL_UID]: m.id for m in machines} == {
        uid: one["status"]["instance"]["id"] for uid, one in everyone.items()
    }
    assert Counter(one["status"]["incarnation"] for one in everyone.values()) == {1: HUNDRED}, "each was adopted"

    region.faults.lost = Rule("RunInstances,TerminateInstances,DeleteVolume", every=2)
    fleet.delete("--all", seconds=PATIENCE)
    assert account.machines(fleet.namespace) == []
    kept = {uid for uid, one in everyone.items() if one["spec"].get("storage", {}).get("whenDeleted") == "Retain"}
    assert account.data_volumes() & everyone.keys() == kept, "Retain keeps the data, Delete takes it along"
    assert account.most_alive(everyone) == 1


@pytest.mark.timeout(1200)
def test_lost_answers_and_a_describe_that_takes_five_seconds(wild: Wild, account: Account) -> None:
    """The same when each Describe answers only after 5 s, besides showing everything 5 s late (I-06, I-45)."""
    fleet, region = wild.fleet, account.ec2
    name = account.put_class("slow", {"call_timeout": "20s"}, limits=STARTS)
    region.faults.lost, region.faults.describe_delay = Rule("RunInstances", every=2), LATE
    region.faults.slow = Rule("Describe*", seconds=LATE)
    fleet.apply(*(workspace(f"many-{number}", className=name) for number in range(FORTY)))
    until(lambda: _ready(fleet, account) == FORTY, PATIENCE, lambda: f"{_ready(fleet, account)} are Ready")
    region.faults.slow = None
    assert len(account.machines(fleet.namespace)) == FORTY
    fleet.delete("--all", seconds=PATIENCE)
    assert account.machines(fleet.namespace) == []
    assert account.most_alive({machine.tags[meta.LABEL_UID] for machine in account.made(fleet.namespace)}) == 1


def _one_of_many(number: int, class_name: str) -> Object:
    """A third each: no data, data to be kept, data to be deleted."""
    policy = (None, "Retain", "Delete")[number % 3]
    storage = {"storage": {"whenDeleted": policy}} if policy else {}
    return workspace(f"many-{number}", className=class_name, **storage)


def _ready(fleet: Fleet, account: Account) -> int:
    """How many are Ready; on the way, nobody has two."""
    alive = Counter(machine.tags[meta.LABEL_UID] for machine in account.machines(fleet.namespace))
    assert max(alive.values(), default=0) <= 1
    conditions = [c for one in fleet.all() for c in (one.get("status") or {}).get("conditions", ())]
    return sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
