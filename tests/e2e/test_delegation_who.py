"""Who may delegate to whom, what the API server refuses, and how delegations are listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.delegations import CLASS, Tasks, delegation, delegation_class, obedient, sender, team
from tests.support.fleet import Fleet, Object, until
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster

OPEN = "delegations-open"  # a class that lets its workspaces delegate to, and be delegated to from, one namespace
HERE, THERE = "who", "who-else"

#: A family of three generations, one that is no relative, and one whose parent does not exist.
FAMILY: dict[str, str | None] = {
    **{"grandmother": None, "stranger": None, "foundling": "nobody"},
    **{"mother": "grandmother", "aunt": "grandmother"},
    **{"daughter": "mother", "cousin": "aunt"},
}


def member(name: str, parent: str | None = None, **spec: Any) -> Object:
    return sender(name, **({"parentRef": {"name": parent}} if parent else {}), **spec)


@pytest.fixture(scope="module")
def fleet(cluster: LocalCluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Workspaces that are stopped: whether a delegation is accepted is seen without an agent."""
    delegation_class(cluster, tmp_path_factory.mktemp("workspaces"))
    names = [HERE, THERE]
    open_ = {"fromNamespaces": names, "toNamespaces": ["who-*"]}
    delegation_class(cluster, tmp_path_factory.mktemp("open"), OPEN, delegations=open_)
    members = [member(name, parent) for name, parent in FAMILY.items() if name != "foundling"]
    with team(cluster, HERE, *members, member("envoy", className=OPEN), obedient("worker")) as made:
        made.apply(member("foundling", "nobody"))
        yield made
    Fleet(cluster, "default").drop_classes(OPEN)


@pytest.fixture(scope="module")
def abroad(cluster: LocalCluster, fleet: Fleet) -> Iterator[Fleet]:
    """Another namespace, with a workspace of the closed class and two of the open one."""
    members = [member("closed"), member("open", className=OPEN), member("child", "open", className=OPEN)]
    with team(cluster, THERE, *members) as made:
        yield made


@pytest.fixture
def tasks(fleet: Fleet) -> Tasks:
    return Tasks(fleet)


# -- the family --------------------------------------------------------------------------------------------------------

ALLOWED = [
    ("mother", "aunt"),  # siblings
    ("grandmother", "stranger"),  # roots
    ("daughter", "mother"),
    ("daughter", "grandmother"),  # an ancestor
    ("grandmother", "cousin"),  # a descendant
]
DENIED = [
    ("daughter", "cousin"),
    ("daughter", "aunt"),
    ("aunt", "daughter"),
    ("mother", "stranger"),
    ("stranger", "daughter"),
]


def test_relatives_in_line_siblings_and_roots_may(fleet: Fleet, tasks: Tasks) -> None:
    fleet.apply(*(delegation(f"may-{a}-{b}", a, b) for a, b in ALLOWED))
    for a, b in ALLOWED:
        tasks.wait_queued(f"may-{a}-{b}", "TargetStopped")
        accepted = tasks.condition(f"may-{a}-{b}", "Accepted")
        assert (accepted["status"], accepted["reason"]) == ("True", "Permitted")


def test_nobody_else_may_and_the_refusal_names_the_rule(fleet: Fleet, tasks: Tasks) -> None:
    fleet.apply(*(delegation(f"not-{a}-{b}", a, b) for a, b in DENIED))
    for a, b in DENIED:
        tasks.wait_phase(f"not-{a}-{b}", "Failed")
        for kind in ("Accepted", "Finished"):
            condition = tasks.condition(f"not-{a}-{b}", kind)
            assert condition["reason"] == "NotPermitted"
        assert condition["message"].startswith(
            f"Workspace '{a}' may not delegate to '{b}': within a namespace siblings"
        )
        assert tasks.status(f"not-{a}-{b}")["attemptCount"] == 0


def test_what_cannot_be_looked_up_is_not_delivered_yet(fleet: Fleet, tasks: Tasks) -> None:
    """A parent that does not exist, then one that does; a sender that does not exist, then one that does."""
    tasks.give("from-foundling", "foundling", "worker")
    tasks.wait_queued("from-foundling", "ParentNotFound")
    tasks.give("from-nowhere", "newborn", "worker")
    tasks.wait_queued("from-nowhere", "SourceNotFound")
    fleet.apply(member("nobody"), member("newborn"))
    tasks.wait_phase("from-foundling", "Failed")  # now it is known to have a parent, and the worker is none of them
    tasks.wait_phase("from-nowhere", "Completed")


# -- other namespaces --------------------------------------------------------------------------------------------------


def abroad_to(name: str, receiver: str, source: str = "envoy", namespace: str = THERE) -> Object:
    return delegation(name, source, receiver, to={"name": receiver, "namespace": namespace})


def test_another_namespace_takes_both_classes(fleet: Fleet, abroad: Fleet, tasks: Tasks) -> None:
    fleet.apply(
        abroad_to("both", "open"),
        abroad_to("target-closed", "closed"),
        abroad_to("source-closed", "open", source="stranger"),
        abroad_to("no-root", "child"),
    )
    tasks.wait_queued("both", "TargetStopped")
    for name, part in (
        ("target-closed", "the class of 'closed' does not allow it: its spec.delegations.fromNamespaces"),
        ("source-closed", "the class of 'stranger' does not allow it: its spec.delegations.toNamespaces"),
        ("no-root", "only roots may, across namespaces, and 'child' of namespace 'who-else' has the parent 'open'"),
    ):
        tasks.wait_phase(name, "Failed")
        finished = tasks.condition(name)
        assert finished["reason"] == "NotPermitted"
        assert part in finished["message"]


def test_ones_own_namespace_may_be_named_and_makes_no_other_of_oneself(fleet: Fleet, tasks: Tasks) -> None:
    """Self-delegation by way of the namespace is refused, too (I-63)."""
    fleet.apply(abroad_to("named", "worker", namespace=HERE), abroad_to("myself", "envoy", namespace=HERE))
    tasks.wait_phase("myself", "Failed")
    finished = tasks.condition("myself")
    assert "a workspace cannot delegate to itself" in finished["message"]
    tasks.wait_phase("named", "Completed")


# -- the key -----------------------------------------------------------------------------------------------------------


def test_the_same_key_is_the_same_delegation_and_other_content_is_refused(fleet: Fleet, tasks: Tasks) -> None:
    """(I-67)"""
    keyed = delegation("stranger.job-17", "stranger", "worker", "once", idempotencyKey="job-17")
    fleet.apply(keyed)
    status = tasks.wait_phase("stranger.job-17", "Completed")
    assert "unchanged" in fleet.apply(keyed)
    assert "(AlreadyExists)" in fleet.kubectl("create", "-f", "-", input=json.dumps(keyed), check=False)
    other = delegation("stranger.job-17", "stranger", "worker", "another", idempotencyKey="job-17")
    assert "a Delegation is a record: only desiredState can change" in fleet.apply(other, check=False)
    misnamed = delegation("job-17", "stranger", "worker", "another", idempotencyKey="job-17")
    assert "the object's name is spec.from.name, a dot and the key" in fleet.apply(misnamed, check=False)
    assert tasks.status("stranger.job-17") == status
    assert status["result"]["preview"] == "once"


# -- what is refused at once -------------------------------------------------------------------------------------------

_PART = {"text": "words"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "oneself": ({"to": {"name": "a"}}, "a workspace cannot delegate to itself; name another one in spec.to"),
    "no message": ({"message": None}, "set exactly one of spec.message and spec.messageFrom"),
    "two messages": (
        {"messageFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
        "set exactly one of spec.message and spec.messageFrom",
    ),
    "text and parts": ({"message": {"text": "t", "parts": [_PART]}}, "set exactly one of text and parts"),
    "empty text": ({"message": {"text": ""}}, "should be at least 1 chars long"),
    "no parts": ({"message": {"parts": []}}, "should have at least 1 items"),
    "many parts": ({"message": {"parts": [_PART] * 17}}, "must have at most 16 items"),
    "empty part": ({"message": {"parts": [{}]}}, "set exactly one of text, data and url"),
    "part of two": ({"message": {"parts": [{"text": "t", "url": "http://x"}]}}, "exactly one of text, data and url"),
    "no url": ({"message": {"parts": [{"url": "over there"}]}}, "spec.message.parts[0].url"),
    "short deadline": ({"deadline": "0s"}, "spec.deadline"),
    "long deadline": ({"deadline": "721h"}, "spec.deadline"),
    "no duration": ({"deadline": "soon"}, "spec.deadline"),
    "low priority": ({"priority": -1001}, "spec.priority"),
    "no attempts": ({"retry": {"maxAttempts": 0}}, "spec.retry.maxAttempts"),
    "unknown policy": ({"retry": {"whenAmbiguous": "Maybe"}}, 'supported values: "Resend", "Fail"'),
    "no name": ({"to": {"name": "Not A Name"}}, "spec.to.name"),
    "unknown wish": ({"desiredState": "Done"}, "spec.desiredState"),
    "a typo": ({"deadlin": "1h"}, 'unknown field "spec.deadlin"'),
    "bad key": ({"idempotencyKey": "a/b"}, "spec.idempotencyKey"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_refused_with_a_sentence(fleet: Fleet, what: str) -> None:
    """Self-delegation is among it (I-63)."""
    spec, sentence = REFUSED[what]
    said = fleet.apply(delegation("refused", "a", "b", **spec), check=False)
    assert sentence in said and "created" not in said, said


def test_the_record_cannot_be_changed(fleet: Fleet, tasks: Tasks) -> None:
    tasks.give("record", "stranger", "mother", desiredState="Paused")
    for change in ({"priority": 7}, {"to": {"name": "aunt"}}, {"deadline": "1h"}, {"message": {"text": "other"}}):
        patch = ("patch", "delegation", "record", "--type=merge", "-p", json.dumps({"spec": change}))
        assert "only desiredState can change; create another one instead" in fleet.kubectl(*patch, check=False)
    tasks.desire("record", "Stopped")


# -- how they are listed -----------------------------------------------------------------------------------------------


def test_listings(fleet: Fleet, tasks: Tasks) -> None:
    """Field selectors in place of an admin page; columns that say what is the matter."""
    tasks.give("listed", "stranger", "worker", "listed")
    tasks.give("waiting", "stranger", "grandmother")
    tasks.wait_phase("listed", "Completed")
    tasks.wait_queued("waiting", "TargetStopped")

    def names(*selector: str) -> list[str]:
        found = fleet.kubectl("get", "dlg", "--field-selector", ",".join(selector), "-o", "name")
        return [line.removeprefix("delegation.workspace-operator.dev/") for line in found.split()]

    mine = "spec.from.name=stranger"
    assert "listed" in names("status.phase=Completed", mine) and "waiting" not in names("status.phase=Completed", mine)
    assert "waiting" in names("status.phase=Queued", "spec.to.name=grandmother")
    assert names("status.phase=Stuck") == []

    lines = fleet.kubectl("get", "delegations").splitlines()
    assert lines[0].split() == ["NAME", "FROM", "TO", "DESIRED", "PHASE", "REASON", "AGE"]
    rows = {line.split()[0]: line.split()[1:6] for line in lines[1:]}
    assert rows["listed"] == ["stranger", "worker", "Running", "Completed", "Completed"]
    assert rows["waiting"] == ["stranger", "grandmother", "Running", "Queued", "TargetStopped"]
    wide = fleet.kubectl("get", "dlg", "listed", "-o", "wide").splitlines()
    assert wide[0].split()[7:] == ["ATTEMPTS", "TASK", "DEADLINE", "MESSAGE"]
    assert tasks.status("listed")["task"]["id"] in wide[1]
    assert "delegation.workspace-operator.dev/listed" in fleet.kubectl("get", "fleet", "-o", "name")


def test_the_schema_explains_itself(fleet: Fleet) -> None:
    until(lambda: "one task handed" in fleet.kubectl("explain", "delegation", check=False).lower())
    assert "by which it is over, one way or another" in fleet.kubectl("explain", "delegation.spec.deadline")
    assert "Why it waits" in fleet.kubectl("explain", "dlg.status.queuedReason")


def test_the_class_of_tests_keeps_to_itself(fleet: Fleet) -> None:
    """By default a class allows no other namespace."""
    spec = json.loads(fleet.kubectl("get", "workspaceclass", CLASS, "-o", "json"))["spec"]
    assert not spec.get("delegations", {}).get("fromNamespaces") and not spec.get("delegations", {}).get("toNamespaces")
