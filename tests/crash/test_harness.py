"""The harness itself: names of calls, the choice of deaths, and how they share workspaces. No cluster is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.crash import seams
from tests.crash.act import Wrong
from tests.crash.choice import DANGEROUS, Points, chains, chosen
from tests.crash.delegation_play import check_history
from tests.crash.delegation_scenario import DELIVERIES
from tests.crash.points import Journal, Plan, Switch
from tests.crash.scenario import SCENARIOS
from tests.crash.seams import Where, agent_call, aws_call, docker_call, kube_call

from workspace_operator.api import meta

WORKSPACES = "/apis/workspace-operator.dev/v1alpha1"


@pytest.mark.parametrize(
    ("method", "path", "call"),
    [
        ("GET", f"{WORKSPACES}/workspaces", "LIST workspaces"),
        ("PATCH", f"{WORKSPACES}/namespaces/team/workspaces/one/status", "PATCH workspaces/status"),
        ("POST", "/api/v1/namespaces/team/serviceaccounts/one/token", "POST serviceaccounts/token"),
        ("GET", "/api/v1/namespaces/kube-system", "GET namespaces"),
        ("PUT", f"/apis/coordination.k8s.io/v1/namespaces/{seams.LEADER_NAMESPACE}/leases/x", None),
    ],
)
def test_a_request_to_the_api_server_has_a_name(method: str, path: str, call: str | None) -> None:
    """The leader's own Lease has none: a death there is the business of other tests."""
    assert kube_call(method, path, watch=False) == call


def test_a_listing_of_pods_tells_the_class_from_a_workspace() -> None:
    one, all_ = f"{meta.LABEL_ROLE}=instance,{meta.LABEL_UID}=0-1", f"{meta.LABEL_CLASS}=pods"
    assert kube_call("GET", "/api/v1/namespaces/team/pods", watch=False, selector=one) == "LIST pods"
    assert str(kube_call("GET", "/api/v1/pods", watch=False, selector=all_)).endswith(seams.CLASS_WIDE)
    assert f"kube {kube_call('GET', '/api/v1/pods', watch=True, selector=all_)}" == f"kube WATCH {seams.PODS[5:]}"


def test_a_request_to_the_engine_has_a_name_without_ids() -> None:
    start = "http+docker://socket/v1.47/containers/0123abcd/kill?signal=SIGTERM"
    assert docker_call("POST", start) == "docker POST containers/ID/kill SIGTERM"
    assert (
        docker_call("GET", "http+docker://socket/v1.47/containers/json?all=1") == "docker GET containers/json (class)"
    )
    assert docker_call("GET", "http+docker://socket/v1.47/events?filters=x") == seams.EVENTS


def test_a_call_to_ec2_tells_the_class_from_a_workspace() -> None:
    assert aws_call("DescribeInstances", {"Filters": []}).endswith(seams.CLASS_WIDE)
    assert aws_call("DescribeInstances", {"InstanceIds": ["i-1"]}) == "ec2 DescribeInstances"


def test_a_request_to_an_agent_has_its_method_as_name() -> None:
    card = httpx.Request("GET", "http://127.0.0.1:1/.well-known/agent-card.json")
    assert agent_call(card) == "agent card"
    assert agent_call(httpx.Request("POST", "http://127.0.0.1:1/", json={"method": "GetTask"})) == "agent GetTask"


CLAIM = [meta.CLAIM_FINALIZER]
SENT = {"phase": "Dispatched", "attemptCount": 1}
OVER = {"phase": "Completed", "attemptCount": 1, "finishTime": "now", "result": {}}
Version = tuple[list[str], dict[str, Any]]


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        ([([], {}), (CLAIM, {}), (CLAIM, SENT), (CLAIM, OVER), ([], OVER)], None),
        ([([], {}), ([], SENT), ([], OVER)], "without a claim"),
        ([(CLAIM, SENT), ([], SENT), ([], OVER)], "the claim went"),
        ([(CLAIM, SENT), (CLAIM, {**SENT, "phase": "Completed"})], "in part"),
        ([(CLAIM, OVER), (CLAIM, {**OVER, "result": {"preview": "more"}})], "after its end"),
        ([(CLAIM, {**SENT, "resends": 1}), (CLAIM, OVER)], "resends fell"),
        ([(CLAIM, SENT)], "no end"),
    ],
)
def test_a_history_is_judged(versions: list[Version], problem: str | None) -> None:
    history = [{"metadata": {"finalizers": names}, "status": status} for names, status in versions]
    if problem is None:
        check_history(history)
    else:
        with pytest.raises(Wrong, match=problem):
            check_history(history)


def test_a_file_has_its_place_in_the_workspace_as_name() -> None:
    where = Where("/root")
    token = "/root/cluster/uid/incarnation-12/identity/.new-0123456789abcdef0123456789abcdef"
    assert where.named(token) == "incarnation-*/identity/.new-*"
    assert where.named("/root/cluster/uid") == "home"
    assert where.named("/elsewhere/file") is None


def _points() -> Points:
    points = Points()
    for steps in SCENARIOS:
        points.add({step.name: [f"{step.name} call #{n}" for n in (1, 2)] for step in steps})
    return points


def test_every_point_is_died_at_twice_and_no_step_sees_two_deaths() -> None:
    kills = _points().kills()
    made = chains(kills, SCENARIOS)
    assert sorted(map(str, kills)) == sorted(str(kill) for chain in made for kill in chain.kills.values())
    for chain in made:
        assert set(chain.kills) <= {step.name for step in chain.steps}
        assert chain.steps[-1].name == "delete"


def test_the_sample_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRASH_ONLY", raising=False)
    kills = _points().kills()
    assert chosen(kills, full=False, seed=1) == chosen(kills, full=False, seed=1)
    assert chosen(kills, full=True, seed=1) == kills
    named = {step.name for steps in SCENARIOS for step in steps} | {step.name for step in DELIVERIES}
    assert {step for step, _, _ in DANGEROUS} <= named


def test_calls_are_counted_within_a_step_and_written_down(tmp_path: Path) -> None:
    journal, switch = Journal(tmp_path / "journal"), Switch(tmp_path)
    for step in ("one", "two"):
        Plan(step).write(tmp_path)
        for _ in range(2):
            with switch.around("call"):
                pass
    switch.watching("stream")
    assert journal.points("two") == ["call #1", "call #2"]
    assert journal.watches() == {"stream"}
    assert not journal.killed()
