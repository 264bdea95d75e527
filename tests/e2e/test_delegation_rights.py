"""Who may create a Delegation, and who may read it: the API server decides, by the caller's own token."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from tests.support.agents import api_status
from tests.support.delegations import Tasks, delegation
from tests.support.fleet import Fleet, Object, until, workspace
from tests.support.manifests import LEASED
from tests.support.operator import Operator
from tests.support.processes import room_of

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster

GROUP = "/apis/workspace-operator.dev/v1alpha1"
POLICY = "delegation-sender.workspace-operator.dev"
REVOKED_WITHIN = 15  # seconds; the API server caches a good token for 10


@pytest.fixture(autouse=True)
def policy(cluster: LocalCluster, fleet: Fleet) -> None:
    """The policy is in force: the API server takes a moment to load one."""
    fleet.kubectl("create", "serviceaccount", "nobody")
    _may(fleet, "nobody", "create", "delegations.workspace-operator.dev")
    until(lambda: "delegate" in _as(fleet, "nobody", delegation("probe", "planner", "writer"), dry=True), 30)


def _may(fleet: Fleet, account: str, verbs: str, resource: str, *names: str) -> None:
    """A ServiceAccount gets a right of its own."""
    role = f"{account}-{verbs}".replace(",", "-")
    named = [f"--resource-name={name}" for name in names]
    fleet.kubectl("create", "role", role, f"--verb={verbs}", f"--resource={resource}", *named)
    fleet.kubectl("create", "rolebinding", role, f"--role={role}", f"--serviceaccount={fleet.namespace}:{account}")


def _as(fleet: Fleet, account: str, body: Object, *, dry: bool = False) -> str:
    """What kubectl says when this ServiceAccount creates something."""
    user = f"--as=system:serviceaccount:{fleet.namespace}:{account}"
    more = ["--dry-run=server"] if dry else []
    return fleet.kubectl("create", user, *more, "-f", "-", input=yaml.safe_dump(body), check=False)


# -- what a workspace's own token may ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    """Someone with a workspace's token, and the bare API."""

    fleet: Fleet
    token: str

    def call(self, method: str, path: str, body: Object | None = None) -> tuple[int, Object]:
        """Status and answer of a request; ``path`` begins at the namespace's ``delegations`` when it is relative."""
        url = path if path.startswith("/") else f"{GROUP}/namespaces/{self.fleet.namespace}/{path}"
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.fleet.cluster.server + url, data, headers, method=method)
        context = ssl.create_default_context(cafile=str(self.fleet.cluster.ca_file))
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return int(answer.status), dict(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(json.load(error))

    def create(self, name: str, sender: str, receiver: str, text: str = "hello", **spec: Any) -> tuple[int, str]:
        """Status and message of an attempt to delegate."""
        status, answer = self.call("POST", "delegations", delegation(name, sender, receiver, text, **spec))
        return status, str(answer.get("message", ""))

    def get(self, name: str) -> int:
        return self.call("GET", f"delegations/{name}")[0]

    def answer_of(self, name: str) -> int:
        """Whether it may read the ConfigMap of an answer."""
        return self.call("GET", f"/api/v1/namespaces/{self.fleet.namespace}/configmaps/delegation-{name}")[0]

    def watch(self, name: str) -> int:
        query = f"?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3D{name}"
        url = f"{GROUP}/namespaces/{self.fleet.namespace}/delegations{query}"
        return api_status(self.fleet.cluster, self.token, url)

    def rules(self) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
        """All that RBAC grants it in its namespace, beyond what every user has (to ask who he is and what he may)."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
        review = {**body, "spec": {"namespace": self.fleet.namespace}}
        _, answer = self.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
        return sorted(
            (group, resource, tuple(rule.get("resourceNames", ())), tuple(rule["verbs"]))
            for rule in answer["status"]["resourceRules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            if group not in ("authorization.k8s.io", "authentication.k8s.io")
        )


@pytest.fixture
def callers(fleet: Fleet, operator: Operator, process_class: str) -> Iterator[dict[str, Caller]]:
    """Two running workspaces, both roots, so that each may delegate to the other."""
    names = ("planner", "researcher")
    fleet.apply(*(workspace(name, className=process_class, agent=LEASED) for name in names))
    fleet.wait_ready()
    yield {name: Caller(fleet, room_of(fleet, name).token) for name in names}


def test_a_workspace_delegates_as_itself_and_reads_its_own(fleet: Fleet, callers: dict[str, Caller]) -> None:
    """Must show 4: neither can it speak for another, nor read what another sent or got."""
    planner, researcher = callers["planner"], callers["researcher"]
    assert planner.create("planner.small", "planner", "researcher") == (201, "")
    assert planner.create("planner.large", "planner", "researcher", "x" * 5000) == (201, "")
    Tasks(fleet).wait_over("planner.small", "planner.large")
    until(lambda: planner.get("planner.small") == planner.get("planner.large") == 200)
    assert planner.answer_of("planner.large") == 200
    assert planner.watch("planner.small") == 200
    status, small = planner.call("GET", "delegations/planner.small")
    assert (status, small["status"]["result"]["preview"]) == (200, "researcher: hello")

    for name in ("planner.small", "planner.large"):
        assert researcher.get(name) == researcher.watch(name) == researcher.answer_of(name) == 403
        assert researcher.call("PATCH", f"delegations/{name}", {"spec": {"desiredState": "Stopped"}})[0] == 403
        assert researcher.call("DELETE", f"delegations/{name}")[0] == 403
    for caller in callers.values():
        assert caller.call("GET", "delegations")[0] == 403
        assert caller.call("GET", "delegations?watch=true")[0] == 403
        assert caller.call("DELETE", "delegations")[0] == 403
        assert caller.call("GET", f"{GROUP}/delegations")[0] == 403
        assert caller.call("PATCH", "delegations/planner.small/status", {"status": {"phase": "Failed"}})[0] == 403
    _is_refused(fleet, planner, researcher)

    assert planner.call("PATCH", "delegations/planner.small", {"spec": {"desiredState": "Stopped"}})[0] == 200
    assert planner.call("DELETE", "delegations/planner.small")[0] == 200


def _is_refused(fleet: Fleet, planner: Caller, researcher: Caller) -> None:
    """Every way to create a Delegation that is not one's own, or that reads what one may not read."""
    status, message = researcher.create("planner.forged", "planner", "researcher")
    assert status == 403
    assert '"delegate" on workspaces/planner' in message and "ClusterRole workspace-operator-edit" in message
    assert researcher.create("researcher.forged", "planner", "researcher")[0] == 403
    for name in ("planner.mine", "mine"):
        status, message = researcher.create(name, "researcher", "planner")
        assert status == 422 and "call it researcher.SOMETHING" in message

    stolen = {"configMapKeyRef": {"name": "delegation-planner.large", "key": "answer"}}
    status, message = researcher.create("researcher.stolen", "researcher", "planner", message=None, messageFrom=stolen)
    assert status == 403 and '"get" on configmaps/delegation-planner.large' in message
    assert planner.create("planner.passed-on", "planner", "researcher", message=None, messageFrom=stolen)[0] == 201

    pinned = delegation("researcher.pinned", "researcher", "planner")
    pinned["metadata"]["finalizers"] = ["workspace-operator.dev/task"]
    status, answer = researcher.call("POST", "delegations", pinned)
    assert status == 403 and "finalizers" in answer["message"]
    finalizers = {"metadata": {"finalizers": ["example.com/keep"]}}
    assert planner.call("PATCH", "delegations/planner.large", finalizers)[0] == 403
    elsewhere = f"{GROUP}/namespaces/default/delegations"
    assert planner.call("POST", elsewhere, delegation("planner.far", "planner", "researcher"))[0] == 403


def test_its_rights_are_these_and_no_others(fleet: Fleet, callers: dict[str, Caller]) -> None:
    """RBAC per workspace, and no wider; none of it outlives the token (I-51)."""
    planner = callers["planner"]
    always = [
        ("coordination.k8s.io", "leases", ("workspace-planner",), ("get", "patch", "update")),
        ("workspace-operator.dev", "delegations", (), ("create",)),
        ("workspace-operator.dev", "workspaces", ("planner",), ("delegate",)),
    ]
    assert planner.rules() == always
    planner.create("planner.one", "planner", "researcher")
    until(lambda: planner.get("planner.one") == 200)
    own = ("workspace-operator.dev", "delegations", ("planner.one",), ("get", "watch", "patch", "delete"))
    answer = ("", "configmaps", ("delegation-planner.one",), ("get",))
    assert planner.rules() == sorted([*always, own, answer])

    fleet.desire("planner", "Paused")
    paused = time.monotonic()
    until(lambda: planner.get("planner.one") == 401, REVOKED_WITHIN + paused - time.monotonic())
    assert planner.create("planner.two", "planner", "researcher")[0] == 401


def test_a_workspace_of_an_earlier_release_gets_the_right_with_its_next_token(
    fleet: Fleet, callers: dict[str, Caller]
) -> None:
    """The Role that exists is brought up to date, with the operator's own rights."""
    planner = callers["planner"]
    fleet.kubectl("patch", "role", "workspace-planner", "--type=json", "-p", '[{"op":"remove","path":"/rules/1"}]')
    until(lambda: planner.create("planner.early", "planner", "researcher")[0] == 403, 10)
    fleet.desire("planner", "Paused")
    fleet.wait_phase("planner", "Paused")
    fleet.desire("planner", "Running")
    fleet.wait_phase("planner", "Running")
    renewed = Caller(fleet, room_of(fleet, "planner").token)
    until(lambda: renewed.create("planner.late", "planner", "researcher")[0] in (201, 409), 10)


# -- what people and their tools may -----------------------------------------------------------------------------------


def test_an_administrator_may_and_a_mere_right_to_create_is_not_enough(fleet: Fleet) -> None:
    """To speak for a workspace takes a right on that workspace, whatever else one holds."""
    fleet.apply(delegation("by-hand", "planner", "writer"))
    refused = _as(fleet, "nobody", delegation("d", "planner", "writer"))
    assert '"delegate" on workspaces/planner' in refused and "Forbidden" in refused
    _may(fleet, "nobody", "delegate", "workspaces.workspace-operator.dev", "planner")
    until(lambda: "created" in _as(fleet, "nobody", delegation("d", "planner", "writer"), dry=True), 10)
    assert "created" in _as(fleet, "nobody", delegation("d", "planner", "writer"))
    assert '"delegate" on workspaces/writer' in _as(fleet, "nobody", delegation("e", "writer", "planner"))
    assert "call it planner.SOMETHING" in _as(fleet, "nobody", delegation("writer.e", "planner", "writer"))


def test_the_wish_of_a_delegation_takes_the_same_right_and_its_labels_do_not(fleet: Fleet) -> None:
    fleet.apply(delegation("d", "planner", "writer", desiredState="Paused"))
    _may(fleet, "nobody", "get,patch", "delegations.workspace-operator.dev")
    user = f"--as=system:serviceaccount:{fleet.namespace}:nobody"

    def patch(body: Object) -> str:
        patched = ("patch", "delegation", "d", user, "--type=merge", "-p", json.dumps(body))
        return fleet.kubectl(*patched, check=False)

    until(lambda: "patched" in patch({"metadata": {"labels": {"seen": "yes"}}}), 10)
    assert '"delegate" on workspaces/planner' in patch({"spec": {"desiredState": "Stopped"}})


def test_a_key_exists_once_and_other_content_under_it_is_refused(fleet: Fleet) -> None:
    """I-67: the same key and content is the same object, and there is no other name for a key."""
    task = delegation("planner.job-17", "planner", "writer", idempotencyKey="job-17")
    other = delegation("planner.job-17", "planner", "writer", "something else", idempotencyKey="job-17")
    assert "created" in fleet.apply(task)
    assert "unchanged" in fleet.apply(task)
    assert "already exists" in fleet.kubectl("create", "-f", "-", input=yaml.safe_dump(other), check=False)
    assert "a Delegation is a record" in fleet.apply(other, check=False)
    renamed = delegation("planner.again", "planner", "writer", "something else", idempotencyKey="job-17")
    assert "planner.job-17" in fleet.apply(renamed, check=False)


def test_edit_and_view_have_what_they_are_called(fleet: Fleet) -> None:
    """The cluster's own roles, for the people of a namespace."""
    for role in ("edit", "view"):
        fleet.kubectl("create", "serviceaccount", role)
        fleet.kubectl(
            "create", "rolebinding", role, f"--clusterrole={role}", f"--serviceaccount={fleet.namespace}:{role}"
        )
    can = {
        (role, verb, resource): fleet.kubectl(
            *("auth", "can-i", verb, f"{resource}.workspace-operator.dev"),
            f"--as=system:serviceaccount:{fleet.namespace}:{role}",
            check=False,
        ).startswith("yes")
        for role in ("edit", "view")
        for verb in ("get", "create", "delegate")
        for resource in ("workspaces", "delegations")
        if (verb, resource) != ("delegate", "delegations")
    }
    assert {key for key, yes in can.items() if yes} == {
        *(("edit", verb, resource) for verb in ("get", "create") for resource in ("workspaces", "delegations")),
        ("edit", "delegate", "workspaces"),
        *(("view", "get", resource) for resource in ("workspaces", "delegations")),
    }
    assert "created" in _as(fleet, "edit", delegation("theirs", "planner", "writer"))


# -- what must go on working -------------------------------------------------------------------------------------------


def test_the_clusters_own_controllers_can_still_delete(cluster: LocalCluster, fleet: Fleet, operator: Operator) -> None:
    """Garbage collection, in both orders, and the deletion of a namespace: none of them holds `delegate` (I-87)."""
    fleet.kubectl("create", "configmap", "owner")
    owned = delegation("owned", "planner", "writer")
    owned["metadata"]["ownerReferences"] = [_reference(fleet, "v1", "ConfigMap", "owner")]
    fleet.apply(owned, delegation("owner-too", "planner", "writer"), delegation("left", "planner", "writer"))
    fleet.kubectl("delete", "configmap", "owner")
    fleet.kubectl("wait", "--for=delete", "delegation/owned", "--timeout=30s")

    reference = {**_reference(fleet, "workspace-operator.dev/v1alpha1", "Delegation", "owner-too")}
    dependent = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dependent"}}
    dependent["metadata"]["ownerReferences"] = [{**reference, "blockOwnerDeletion": True}]  # type: ignore[index]
    fleet.apply(dependent)
    fleet.kubectl("delete", "delegation", "owner-too", "--cascade=foreground", "--timeout=30s")
    assert "dependent" not in fleet.kubectl("get", "configmaps", "-o", "name")

    extra = f"{fleet.namespace}-x"
    cluster.kubectl("create", "namespace", extra)
    Fleet(cluster, extra).apply(*(delegation(f"d-{number}", "planner", "writer") for number in range(5)))
    cluster.kubectl("delete", "namespace", extra, "--timeout=60s", timeout=70)


def _reference(fleet: Fleet, version: str, kind: str, name: str) -> Object:
    uid = fleet.kubectl("get", kind.lower(), name, "-o", "jsonpath={.metadata.uid}")
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid}


def test_the_policy_fits_the_schema(cluster: LocalCluster) -> None:
    """The API server checks the expressions against the CRD, and says so when a field does not exist."""

    def checked() -> Object | None:
        found = json.loads(cluster.kubectl("get", "validatingadmissionpolicy", POLICY, "-o", "json"))
        return dict(found).get("status", {}).get("typeChecking")

    assert until(lambda: checked() is not None and [checked()], 30) == [{}]
