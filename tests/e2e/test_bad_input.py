"""What the schema cannot refuse is shown as a condition that says what to fix, and recovers by itself once fixed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet, until, workspace, workspace_class
from tests.support.manifests import AGENT, CARD, LEASED, process_images
from tests.support.operator import Operator
from tests.support.processes import room_of, state_of

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster

NewClass = Callable[..., str]
RECHECK = 45  # seconds: what waits for another object is looked at every 30 s


@pytest.fixture
def new_class(fleet: Fleet, tmp_path: Path) -> Iterator[NewClass]:
    """Makes process classes that go with the test. They keep their state in one directory."""
    made: list[str] = []

    def make(word: str, annotations: dict[str, str] | None = None, allow: bool = False, **spec: Any) -> str:
        name = f"{word}-{fleet.namespace[-8:].strip('-')}"
        process = {**process_images(tmp_path), "allowCommand": allow}
        manifest = workspace_class(name, process=process, stopGracePeriod="2s", observeInterval="2s", **spec)
        manifest["metadata"]["annotations"] = annotations or {}
        fleet.apply(manifest)
        made.append(name)
        return name

    yield make
    fleet.kubectl("delete", "workspaces", "--all", "--timeout=60s", timeout=70)
    fleet.drop_classes(*made)


@dataclass(frozen=True)
class Referring:
    """Workspaces whose references did not resolve; what their status said, and then they were fixed."""

    fleet: Fleet
    said: dict[str, dict[str, Any]]


UNRESOLVED = {
    "no-secret": ("ReferenceNotFound", "Secret 'absent' in spec.envFrom does not exist"),
    "no-map": ("ReferenceNotFound", "ConfigMap 'absent' in spec.envFrom does not exist"),
    "reserved": ("ReservedName", "'greedy' would set the reserved variable 'WORKSPACE_UID'; rename the key"),
    "dashed": ("ReservedName", "is no variable name; rename it or set a prefix"),
}


@pytest.fixture(scope="module")
def referring(cluster: LocalCluster, operator: Operator, process_class: str) -> Iterator[Referring]:
    """Shared by the module's first and last test, because what waits for a Secret is looked at every 30 s only."""
    cluster.kubectl("create", "namespace", "referring")
    fleet = Fleet(cluster, "referring")
    fleet.kubectl("create", "configmap", "present", "--from-literal=SHAPE=round")
    fleet.kubectl("create", "secret", "generic", "greedy", "--from-literal=WORKSPACE_UID=s3cr3t-id")
    fleet.kubectl("create", "secret", "generic", "dashed", "--from-literal=a-b=s3cr3t")
    present = {"configMapRef": {"name": "present"}}
    sources: dict[str, list[dict[str, Any]]] = {
        "no-secret": [present, {"secretRef": {"name": "absent"}}],
        "no-map": [{"configMapRef": {"name": "absent"}}],
        "reserved": [present, {"secretRef": {"name": "greedy"}}],
        "dashed": [{"secretRef": {"name": "dashed"}}],
        "prefixed": [{"secretRef": {"name": "greedy"}, "prefix": "MY_"}],
    }
    fleet.apply(
        *(workspace(name, className=process_class, image="sleep", envFrom=refs) for name, refs in sources.items())
    )
    for name, (reason, _) in UNRESOLVED.items():
        fleet.wait_reason(name, reason)
    fleet.wait_ready("prefixed")
    said = {name: fleet.status(name) for name in sources}
    fleet.kubectl("create", "secret", "generic", "absent", "--from-literal=COLOR=s3cr3t-blue")
    fleet.kubectl("create", "configmap", "absent", "--from-literal=SIZE=big")
    fleet.kubectl("patch", "secret", "greedy", "-p", '{"data":{"WORKSPACE_UID":null,"OTHER":"eA=="}}')
    fleet.kubectl("patch", "secret", "dashed", "-p", '{"data":{"a-b":null,"a_b":"eA=="}}')
    yield Referring(fleet, said)
    fleet.kubectl("delete", "workspaces", "--all", "--timeout=60s", timeout=70)
    cluster.kubectl("delete", "namespace", "referring", "--wait=false")


def test_references_resolve_or_nothing_starts(referring: Referring) -> None:
    """A half-resolved set starts nothing (I-54); a reserved key cannot override (I-55)."""
    for name, (reason, words) in UNRESOLVED.items():
        conditions = {c["type"]: c for c in referring.said[name]["conditions"]}
        assert words in conditions["Ready"]["message"]
        resolved = conditions["SecretsResolved"]
        assert (resolved["status"], resolved["reason"]) == ("False", reason)
        assert "instance" not in referring.said[name], "nothing was decided, so nothing was started"
    prefixed = {c["type"]: c["status"] for c in referring.said["prefixed"]["conditions"]}
    assert prefixed["SecretsResolved"] == "True"


def test_a_class_that_does_not_exist_is_asked_for(fleet: Fleet, operator: Operator, new_class: NewClass) -> None:
    """Recovers when the class is created; nothing needs a nudge."""
    late = f"late-{fleet.namespace[-8:].strip('-')}"
    fleet.apply(workspace("early", className=late, image="sleep"))
    ready = fleet.wait_reason("early", "ClassNotFound", status="False")  # after a while: it might be on its way
    assert late in ready["message"] and "create it" in ready["message"]
    assert fleet.phase("early") == "Pending"
    assert fleet.condition("early", "Stalled")["status"] == "True"
    assert fleet.condition("early", "Reconciling") is None
    new_class("late")
    fleet.wait_ready("early", seconds=15)
    assert fleet.condition("early", "Stalled") is None


def test_without_a_default_class_one_is_asked_for(fleet: Fleet, operator: Operator, new_class: NewClass) -> None:
    """A workspace that names no class runs in the default one, as soon as there is one."""
    fleet.apply(workspace("nowhere", image="sleep"))
    assert "mark one" in fleet.wait_reason("nowhere", "ClassNotFound")["message"]
    name = new_class("default", {"workspace-operator.dev/is-default-class": "true"})
    fleet.wait_ready("nowhere", seconds=15)
    assert fleet.status("nowhere")["className"] == name


def test_a_class_deleted_under_running_compute(fleet: Fleet, operator: Operator, new_class: NewClass) -> None:
    """Nothing is stopped, and neither Paused nor deleted is claimed until the class is back (I-02, I-10, I-23).

    The operator keeps a class that is in use, so somebody takes its finalizer off while no operator runs.
    """
    name = new_class("fleeting")
    fleet.apply(*(workspace(word, className=name, image="sleep") for word in ("kept", "paused", "gone")))
    fleet.wait_ready()
    pids = {word: room_of(fleet, word).pid for word in ("kept", "paused", "gone")}
    operator.stop()
    fleet.kubectl("patch", "workspaceclass", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    fleet.kubectl("delete", "workspaceclass", name)
    operator.start()
    unreachable = until(
        lambda: (c := fleet.condition("kept", "BackendReachable"))["status"] == "False" and c,
        explain=lambda: str(fleet.condition("kept", "BackendReachable")),
    )
    assert name in unreachable["message"] and "create" in unreachable["message"]
    fleet.desire("paused", "Paused")
    fleet.kubectl("delete", "workspace", "gone", "--wait=false")
    for word in ("paused", "gone"):
        until(lambda word=word: fleet.condition(word, "StopConfirmed"))
        assert fleet.condition(word, "StopConfirmed")["status"] == "False"
        assert fleet.condition(word, "Ready")["status"] != "True"
    assert fleet.phase("paused") != "Paused"
    assert fleet.condition("gone", "Deleting")["status"] == "True"
    assert all(state_of(pid) for pid in pids.values())

    new_class("fleeting")
    fleet.wait_phase("paused", "Paused", 20)
    fleet.kubectl("wait", "--for=delete", "workspace/gone", "--timeout=20s")
    fleet.wait_ready("kept")
    assert [word for word, pid in pids.items() if state_of(pid)] == ["kept"]
    assert fleet.status("kept")["incarnation"] == 1


def test_a_parent_must_exist(fleet: Fleet, operator: Operator, process_class: str) -> None:
    """A child without its parent is not started; one that runs is left running."""
    spec = {"className": process_class, "image": "sleep"}
    fleet.apply(workspace("child", parentRef={"name": "mother"}, **spec))
    message = fleet.wait_reason("child", "ParentNotFound")["message"]
    assert "'mother'" in message and "create that workspace or remove the parentRef" in message
    fleet.apply(workspace("mother", **spec))
    fleet.wait_ready("child", "mother", seconds=15)
    fleet.delete("mother")
    until(lambda: fleet.condition("child", "Ready")["observedGeneration"])
    assert fleet.phase("child") == "Running"
    assert fleet.condition("child", "Ready")["status"] == "True"


def test_a_cycle_of_parents_is_named(fleet: Fleet, operator: Operator, process_class: str) -> None:
    """Breaking it at one place starts all three."""
    parents = {"one": "two", "two": "three", "three": "one"}
    fleet.apply(
        *(
            workspace(name, className=process_class, image="sleep", parentRef={"name": parent})
            for name, parent in parents.items()
        )
    )
    for name in parents:
        assert "leads back to itself" in fleet.wait_reason(name, "ParentCycle")["message"]
    fleet.patch("one", parentRef=None)
    fleet.wait_ready(*parents, seconds=15)


def test_what_the_class_refuses_is_said(fleet: Fleet, operator: Operator, new_class: NewClass) -> None:
    """Refused with a reason, never a stall (I-86); an edit of the spec is tried at once."""
    name = new_class("strict", allowedImages=["sleep", "team/*"], resources={"max": {"cpu": "500m", "memory": "1Gi"}})
    bare = new_class("bare", identity={"mode": "None"})

    def asks(word: str, **spec: Any) -> dict[str, Any]:
        return workspace(word, **{"className": name, "image": "sleep", **spec})

    cases = [
        (asks("foreign", image="other"), "ImageNotAllowed", "it allows sleep, team/*.", {"image": "sleep"}),
        (asks("unknown", image="team/agent"), "ImageNotFound", "write one of:", {"image": "sleep"}),
        (
            asks("big", resources={"limits": {"cpu": 2}}),
            "ResourcesExceedClass",
            "spec.resources.limits.cpu 2 is above the ceiling",
            {"resources": None},
        ),
        (
            asks("fat", resources={"limits": {"memory": "2Gi"}}),
            "ResourcesExceedClass",
            "limits.memory 2Gi is above the ceiling of class",
            {"resources": {"limits": {"memory": "1024Mi"}}},
        ),
        (asks("own-command", command=["sh"]), "CommandNotAllowed", "leave it out, or set", {"command": None}),
        (
            asks("silent", className=bare, image=AGENT, agent=LEASED),
            "Unsupported",
            "gives no identity to renew one; use AgentCard or TCP",
            {"agent": CARD},
        ),
    ]
    fleet.apply(*(manifest for manifest, *_ in cases))
    for manifest, reason, words, _ in cases:
        ready = fleet.wait_reason(manifest["metadata"]["name"], reason)
        assert words in ready["message"]
        assert ready["status"] == "False"
        assert fleet.condition(manifest["metadata"]["name"], "Stalled")["status"] == "True"
    for manifest, _, _, fix in cases:
        fleet.patch(manifest["metadata"]["name"], **fix)
    fleet.wait_ready(seconds=20)


def test_a_class_that_is_loosened_lets_its_workspaces_start(
    fleet: Fleet, operator: Operator, new_class: NewClass
) -> None:
    """The fix may be on either side: editing the class wakes its workspaces."""
    name = new_class("tight", allowedImages=["team/*"])
    fleet.apply(workspace("waiting", className=name, image="sleep"))
    fleet.wait_reason("waiting", "ImageNotAllowed")
    new_class("tight", allowedImages=["sleep"])
    fleet.wait_ready("waiting", seconds=15)


def test_a_volume_above_the_ceiling_is_named_and_one_that_was_let_in_stays(
    fleet: Fleet, operator: Operator, new_class: NewClass
) -> None:
    """The class's ceiling is for what is still to be made: lowered later, it stops nothing and strands no data."""
    name = new_class("roomy", resources={"max": {"storage": "1Gi"}})
    spec = {"className": name, "image": "sleep"}
    fleet.apply(
        workspace("vast", storage={"size": "2Gi"}, **spec),
        workspace("fits", storage={"size": "1024Mi"}, **spec),
        workspace("plain", storage={}, **spec),
    )
    ready = fleet.wait_reason("vast", "ResourcesExceedClass")
    assert "spec.storage.size 2Gi is above the ceiling of class" in ready["message"]
    assert "create it anew with a smaller size" in ready["message"]
    assert fleet.condition("vast", "Stalled")["status"] == "True"
    assert "instance" not in fleet.status("vast")
    fleet.wait_ready("fits", "plain")

    new_class("roomy", resources={"max": {"storage": "2Gi"}})
    fleet.wait_ready("vast")
    new_class("roomy", resources={"max": {"storage": "1Mi"}})
    fleet.desire("vast", "Paused")
    fleet.wait_phase("vast", "Paused")
    fleet.desire("vast", "Running")
    fleet.wait_phase("vast", "Running")
    fleet.wait_ready("vast", "fits", "plain")
    assert not any(fleet.status(each).get("pendingRestart") for each in ("vast", "fits", "plain"))


def test_a_crash_loop_slows_down_also_over_a_restart_of_the_operator(
    fleet: Fleet, operator: Operator, process_class: str
) -> None:
    """Failures are counted and the back-off doubles; both are kept in status (I-26)."""
    fleet.apply(workspace("loop", className=process_class, image="exit-3"))
    seen: dict[int, dict[str, Any]] = {}

    def failures() -> int:
        found = fleet.status("loop").get("failures")
        if found:
            seen[found["count"]] = found
        return max(seen, default=0)

    until(lambda: failures() >= 3, 40)
    assert "exit code 3" in seen[3]["message"]
    assert seen[3]["reason"] == "InstanceExited"
    assert operator.stop() == 0
    before = failures()
    operator.start()
    until(lambda: failures() > before, 40)
    assert min(seen[count]["count"] for count in seen if count > before) == before + 1, "nothing was forgotten"
    until(lambda: failures() >= 5, 60)
    until(lambda: (c := fleet.condition("loop", "Stalled")) and c["status"] == "True")
    times = fleet.kubectl("get", "events", "--field-selector=reason=InstanceExited", "-o", "json")
    assert len(json.loads(times)["items"]) <= 8, "events on transitions only"


def test_a_start_that_takes_too_long_is_released_and_said(
    fleet: Fleet, operator: Operator, new_class: NewClass
) -> None:
    """Failed implies released (I-14) and has a sentence (I-81); a younger one is left alone (I-25)."""
    name = new_class("patient")
    slow = [{"name": "AGENT_FAULTS", "value": "start-delay=600"}]
    fleet.apply(workspace("slow", className=name, agent=LEASED, env=slow, provisionTimeout="5s"))
    until(lambda: (fleet.status("slow").get("instance") or {}).get("id"), 20)
    pid = room_of(fleet, "slow").pid
    ready = fleet.wait_reason("slow", "ProvisionTimeout", seconds=30)
    assert "Not ready within 5 s" in ready["message"] and "raise spec.provisionTimeout" in ready["message"]
    until(lambda: state_of(pid) is None)
    assert fleet.status("slow")["failures"]["count"] == 1
    fleet.patch("slow", env=None, provisionTimeout=None)
    fleet.wait_ready("slow")


def test_a_frozen_workspace_keeps_memory_and_credentials(fleet: Fleet, operator: Operator, new_class: NewClass) -> None:
    """Paused in a freezing class: same process, same token, before and after."""
    name = new_class("icy", pauseMode="Freeze")
    often = [{"name": "AGENT_LEASE_INTERVAL", "value": "1"}]
    fleet.apply(workspace("frozen", className=name, agent=LEASED, env=often))
    fleet.wait_ready("frozen")
    before, pid = fleet.status("frozen"), room_of(fleet, "frozen").pid
    fleet.desire("frozen", "Paused")
    assert fleet.wait_reason("frozen", "Frozen")["status"] == "True"
    assert fleet.phase("frozen") == "Paused"
    assert fleet.status("frozen")["credentials"] == before["credentials"]
    assert state_of(pid) == "T"
    fleet.desire("frozen", "Running")
    fleet.wait_phase("frozen", "Running")
    assert room_of(fleet, "frozen").pid == pid
    assert fleet.status("frozen")["credentials"] == before["credentials"]


def test_references_that_appear_are_found_and_never_shown(referring: Referring, operator: Operator) -> None:
    """Recovers by itself (I-54); the values reach the workspace and nobody else (I-53)."""
    fleet = referring.fleet
    fleet.wait_ready(seconds=RECHECK)
    environment = Path(f"/proc/{room_of(fleet, 'no-secret').pid}/environ").read_bytes().split(b"\0")
    assert {b"COLOR=s3cr3t-blue", b"SHAPE=round"} <= set(environment)
    assert fleet.condition("no-secret", "SecretsResolved")["status"] == "True"
    assert "s3cr3t" not in fleet.kubectl("get", "workspaces,events", "-o", "json") + operator.all_logs()
