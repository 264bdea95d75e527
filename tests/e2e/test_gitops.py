"""A pipeline that applies the same manifests again and again sees health, and nobody fights."""

from __future__ import annotations

import json
import time

import pytest
from tests.support.fleet import Fleet, Object, until, workspace
from tests.support.manifests import CARD, LEASED, idle
from tests.support.operator import ROOT, Operator

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

SECONDS = 20  # the bench does a whole minute


def versions(fleet: Fleet) -> dict[str, str]:
    return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in fleet.all()}


def test_the_same_manifests_every_second_cause_no_write_and_no_flip(
    fleet: Fleet, operator: Operator, process_class: str, docker_class: str
) -> None:
    """Spec is never written (I-30), a status only when something changed; the watch brings nothing new (I-88)."""
    manifests: list[Object] = [
        workspace("running", className=process_class, agent=LEASED, storage={}),
        workspace("child", className=process_class, agent=CARD, parentRef={"name": "running"}),
        workspace("paused", className=process_class, image="sleep", desiredState="Paused"),
        workspace("below", className=process_class, image="sleep", parentRef={"name": "paused"}),
        workspace("stopped", className=process_class, image="sleep", desiredState="Stopped"),
        workspace("broken", className="nonexistent", image="sleep"),
        idle("contained", restartToken="1"),
    ]
    fleet.apply(*manifests)
    fleet.wait_ready(*(m["metadata"]["name"] for m in manifests if m["metadata"]["name"] != "broken"))
    fleet.wait_reason("broken", "ClassNotFound", status="False")
    until(lambda: _unchanged_for(fleet, 3), 40)
    calm, writes = versions(fleet), status_writes(operator)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        said = fleet.apply(*manifests)
        assert said.count("unchanged") == len(manifests), said
        time.sleep(1)
    assert versions(fleet) == calm
    assert status_writes(operator) == writes
    for item in json.loads(fleet.kubectl("get", "workspaces", "-o", "json", "--show-managed-fields"))["items"]:
        annotations = item["metadata"]["annotations"]
        assert set(annotations) == {"kubectl.kubernetes.io/last-applied-configuration"}, "no annotations of ours"
        writers = [m["manager"] for m in item["metadata"]["managedFields"] if "f:spec" in m["fieldsV1"]]
        assert writers == ["kubectl-client-side-apply"]


def _unchanged_for(fleet: Fleet, seconds: float) -> bool:
    before = versions(fleet)
    time.sleep(seconds)
    return versions(fleet) == before


def status_writes(operator: Operator) -> float:
    return operator.metric("workspace_operator_kube_requests_total", verb="PATCH", resource="workspaces/status")


def test_health_as_gitops_tools_read_it(fleet: Fleet, operator: Operator, process_class: str) -> None:
    """kstatus: reached means current, also when Paused (I-89); each condition carries its own generation (I-32)."""
    fleet.apply(workspace("one", className=process_class, image="sleep", desiredState="Paused"))
    fleet.wait_ready("one")
    fleet.desire("one", "Running")
    fleet.wait_phase("one", "Running")
    fleet.desire("one", "Stopped")
    fleet.wait_phase("one", "Stopped")
    found = fleet.get("one")
    generation = found["metadata"]["generation"]
    assert generation == 3
    assert found["status"]["observedGeneration"] == generation
    conditions = {c["type"]: c for c in found["status"]["conditions"]}
    assert {c["observedGeneration"] for c in conditions.values()} == {generation}
    assert conditions["Ready"]["status"] == "True"
    assert not {"Reconciling", "Stalled", "Deleting"} & set(conditions), (
        "abnormal conditions are absent when all is well"
    )


def test_the_examples_are_valid(fleet: Fleet) -> None:
    """What we hand out is accepted by the schema, field by field."""
    said = fleet.kubectl("apply", "--dry-run=server", "-f", str(ROOT / "deploy" / "examples"))
    assert said.count("(server dry run)") == len(list((ROOT / "deploy" / "examples").glob("*.yaml")))
    hook = ROOT / "deploy" / "gitops" / "examples" / "hook.yaml"
    assert "(server dry run)" in fleet.kubectl("create", "--dry-run=server", "-f", str(hook))


def test_a_finalizer_is_the_only_thing_put_on_an_object(fleet: Fleet, operator: Operator, process_class: str) -> None:
    """At most three writes from apply to Ready: finalizer, intent, result."""
    before = status_writes(operator)
    fleet.apply(workspace("counted", className=process_class, image="sleep"))
    fleet.wait_ready("counted")
    assert status_writes(operator) - before <= 2
    found = json.loads(fleet.kubectl("get", "workspace", "counted", "-o", "json"))
    assert found["metadata"]["finalizers"] == ["workspace-operator.dev/cleanup"]
