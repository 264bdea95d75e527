"""The operator's rights suffice, and each is needed: the API server's own audit log says so.

`make test-rbac` takes every right away in turn and prints the sentence with which its play then ends. `make test` looks
at what the plays use when nothing is missing, and takes away those rights that are only held, and a few others.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml
from tests.backends.kubernetes_kit import no_secret
from tests.deploy import pod_plays
from tests.deploy.plays import HELD, Play, Refused, Stage
from tests.deploy.pod_plays import ROWS
from tests.deploy.rights import TABLE, USER, Right, rights, roles, used, without
from tests.support.fleet import Object
from tests.support.operator import ROOT, Operator

from controlplane.cluster import LocalCluster
from workspace_operator.api.kubernetes import KubernetesBackend
from workspace_operator.backends.kubernetes import checks
from workspace_operator.backends.kubernetes.place import Place

FULL = os.environ.get("RBAC") == "full"
_FEW = {
    Right("", "secrets", "create"),
    Right("", "events", "create"),
    Right("workspace-operator.dev", "delegations", "patch"),
    Right("", "pods", "create"),
    Right("", "pods/log", "get"),
    Right("", "nodes", "get"),
    Right("storage.k8s.io", "storageclasses", "get"),
}
TAKEN_AWAY = sorted(ROWS) if FULL else sorted(HELD | _FEW)
PLAYS = list(dict.fromkeys(ROWS.values()))
_LIST_PODS, _WATCH_PODS = (Right("", "pods", verb) for verb in ("list", "watch"))


def test_each_right_is_granted_once_and_has_a_row() -> None:
    """A new rule needs a row in tests/deploy; a row without a rule is of the past. Roles that are used apart may grant
    the same."""
    for role in roles():
        granted = rights(role)
        assert len(granted) == len(set(granted)), "granted twice"
    every = {right for role in roles() for right in rights(role)}
    unexplained = [str(right) for right in every if right not in ROWS]
    assert unexplained == [], "no row in tests/deploy/plays.py or pod_plays.py says what the operator needs these for"
    past = [str(right) for right in ROWS if right not in every]
    assert past == [], "rows in tests/deploy/plays.py or pod_plays.py for what deploy/base does not grant"


class Noting:
    """An API server that notes which rights a client asks about, and grants them."""

    def __init__(self) -> None:
        self.asked: list[Right] = []

    async def get(self, url: str) -> Object:
        return {}

    async def create(self, url: str, body: Object) -> Object:
        asked = body["spec"]["resourceAttributes"]
        self.asked.append(Right(asked["group"], asked["resource"], asked["verb"]))
        return {"status": {"allowed": True}}


def test_a_class_of_pods_is_checked_for_all_that_its_role_grants() -> None:
    """Once each; but for what is asked for itself when the class names it, and logs, which no class needs."""
    api: Any = Noting()
    spec = KubernetesBackend()
    asyncio.run(checks.ask(api, spec, Place(spec, api, no_secret)))
    (_, role) = roles()
    seen = {right for right, play in ROWS.items() if play in (pod_plays.name_all, pod_plays.read)} - {_WATCH_PODS}
    services = {Right("", "services", verb) for verb in ("create", "get", "patch")}
    assert sorted(api.asked) == sorted((set(rights(role)) - seen) | services)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A cluster of the module's own: rights are taken away here."""
    home = tmp_path_factory.mktemp("rights")
    with LocalCluster(home / "c", audited_user=USER, say=lambda text: None) as cluster:
        cluster.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        account = cluster.service_account_kubeconfig("workspace-operator-system", "workspace-operator")
        with Operator(account, home) as operator:
            made = Stage(cluster, operator, account, home / "workspaces")
            pod_plays.prepare(made)
            yield made


@pytest.mark.cluster
@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
def test_the_rights_suffice_and_are_used(stage: Stage, play: Play) -> None:
    """Nothing that the operator asks is refused, and it asks for all that is granted for this."""
    stage.audit.mark()
    play(stage)
    asked = stage.audit.requests()
    assert [request for request in asked if request.refused] == []
    due = [right for right, of in ROWS.items() if of is play and right not in HELD]
    unused = [str(right) for right in due if not used(right, asked)]
    assert unused == [], f"granted for this, and not used in it: {play.__doc__}"


@pytest.mark.cluster
@pytest.mark.parametrize("missing", TAKEN_AWAY, ids=str)
def test_without_a_right_its_play_fails(stage: Stage, missing: Right, request: pytest.FixtureRequest) -> None:
    """With a sentence that names it: the API server's, and where it is about pods, the operator's own (I-28)."""
    play, sentence = ROWS[missing], ""
    stage.restrict(missing)
    try:
        with pytest.raises(Refused) as refused:
            play(stage)
            stage.until(lambda: False)
        if missing in pod_plays.NEEDED_BY_PODS:
            sentence = pod_plays.told(stage, missing)
            assert pod_plays.doubles(stage) == []
    finally:
        stage.restrict(None)
        stage.clear()
    sentence = sentence or re.sub(
        rf'user "{USER}"( \(groups=\[.*?\]\))?', "it", " ".join(str(refused.value).split()), flags=re.I
    )
    table = request.config.stash.setdefault(TABLE, [])
    table.append(f"{missing!s:<60} {play.__name__:<9} {sentence[:240]}")


@pytest.mark.cluster
def test_pods_that_may_not_be_listed_are_not_taken_for_gone(stage: Stage) -> None:
    """Unknown, with the missing right's name; no second pod, no failure counted; and all is well once it is granted
    (I-40)."""
    pod = pod_plays.running(stage)["metadata"]
    name, process = pod["labels"]["workspace-operator.dev/workspace-name"], stage.operator.pid
    before = stage.fleet.status(name)

    def pods() -> list[str]:
        return [each["metadata"]["uid"] for each in pod_plays.pods_of(stage, name)]

    stage.restrict(_LIST_PODS)
    try:

        def doubt() -> str:
            ready = stage.fleet.condition(name, "Ready") or {}
            return str(ready["message"]) if ready["status"] == "Unknown" else ""

        said = stage.hear(doubt)
        assert "right to list pods" in said and "deploy/base/rbac-pods.yaml" in said
        assert stage.fleet.status(name)["instance"] == before["instance"]
        assert pods() == [pod["uid"]]
        assert (stage.operator.alive, stage.operator.pid) == (True, process)
    finally:
        stage.restrict(None)
    stage.fleet.kubectl("annotate", "workspace", name, "example.com/look=again")  # else it may take 30 s
    stage.ready(name)
    assert pods() == [pod["uid"]]
    assert stage.fleet.status(name)["instance"] == before["instance"]
    stage.clear()


@pytest.mark.cluster
def test_the_role_of_pods_is_all_that_another_cluster_must_grant(stage: Stage) -> None:
    """Here the same cluster by another account. Bound in the pods' namespace alone, the role lacks what is not in it,
    and the class says so (I-28)."""
    kubectl, name, account = stage.cluster.kubectl, "elsewhere", f"--serviceaccount={pod_plays.APART}:default"
    kubeconfig = stage.cluster.service_account_kubeconfig(pod_plays.APART, "default")
    stage.fleet.kubectl("create", "secret", "generic", name, f"--from-file=kubeconfig={kubeconfig}")
    grant = ("create", "rolebinding", name, "--clusterrole=workspace-operator-pods", account)
    kubectl("-n", pod_plays.APART, *grant)

    def said() -> str:
        found = json.loads(kubectl("get", "workspaceclass", name, "-o=json")).get("status", {}).get("conditions", ())
        return next((f"{each['status']}: {each['message']}" for each in found if each["type"] == "Ready"), "")

    def says(of: str, words: str) -> bool:
        return words in (stage.fleet.condition(of, "Ready") or {}).get("message", "")

    where = {"namespace": pod_plays.APART, "kubeconfigSecretRef": {"namespace": "rights", "name": name}}
    pod_plays.apply_class(stage, name, **where)
    missing = (
        "False: The user of kubernetes.kubeconfigSecretRef may not get nodes, list endpointslices in namespace default;"
    )
    stage.until(lambda: missing in said())
    kubectl(*(word.replace("rolebinding", "clusterrolebinding") for word in grant))
    stage.until(lambda: said().startswith("True"))
    data = {"mountPath": "/data", "whenDeleted": "Delete"}
    pod = pod_plays.running(stage, class_name=name, storage=data)["metadata"]
    guest = pod["labels"]["workspace-operator.dev/workspace-name"]
    stage.pause(guest)
    stage.fleet.delete(guest)
    assert kubectl("-n", pod_plays.APART, "get", "persistentvolumeclaims", "-o=name") == ""
    (_, role) = roles()
    for verb in ("create", "get", "delete"):  # which rbac.yaml grants too, for another purpose
        kubectl("replace", "-f", "-", input=yaml.safe_dump(without(role, Right("", "secrets", verb))))
        heir, secret = pod_plays.heir(stage, name)
        stage.until(partial(says, heir, f"right to {verb} secrets"))
        kubectl("replace", "-f", "-", input=yaml.safe_dump(role))
        kubectl(
            "-n", pod_plays.APART, "patch", "secret", secret, "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
        )
        pod_plays.running(stage, heir)
    stage.clear()
    kubectl("delete", "workspaceclass", name, "--wait=false")
