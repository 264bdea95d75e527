"""Objects that the release before has stored: they load, keep what they say, and their workspaces are looked after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.support.fleet import Fleet, Object, until
from tests.support.operator import ROOT, Operator

from controlplane.cluster import LocalCluster
from workspace_operator.api.workspace import Workspace
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.reconcile.wishes import parameters_of

RELEASED = Path(__file__).parent / "released"
STORED: list[Object] = list(yaml.safe_load_all((RELEASED / "stored.yaml").read_text()))
WORKSPACES = [o for o in STORED if o["kind"] == "Workspace"]
DOTTED = "from.earlier"  # a name that only the release before let in


def name_of(body: Object) -> str:
    return str(body["metadata"]["name"])


def _read(body: Object) -> Workspace | WorkspaceClass:
    metadata = {"uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z", **body["metadata"]}
    if body["kind"] == "WorkspaceClass":
        return WorkspaceClass.model_validate({**body, "metadata": metadata})
    return Workspace.model_validate({**body, "metadata": {"namespace": "default", **metadata}})


@pytest.mark.parametrize("body", STORED, ids=name_of)
def test_a_stored_object_loads(body: Object) -> None:
    """And nothing of its status is lost on the way through the model."""
    written = _read(body).status.model_dump(mode="json", by_alias=True, exclude_none=True)
    for key, value in body["status"].items():
        assert written[key] == value or key == "conditions", key


@pytest.mark.parametrize("body", [o for o in WORKSPACES if o["status"].get("instance")], ids=name_of)
def test_an_upgrade_restarts_nobody(body: Object) -> None:
    """The fingerprint of an unchanged template is what the release before computed and put on the instance."""
    workspace = _read(body)
    assert isinstance(workspace, Workspace)
    assert parameters_of(workspace).text == body["status"]["instance"]["parameters"]


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A cluster with the CRDs and the objects of the release before, which then got today's CRDs and operator."""
    directory = tmp_path_factory.mktemp("upgrade")
    with LocalCluster(directory / "cluster", say=lambda _: None) as cluster:
        crds = [str(path) for path in RELEASED.glob("*.workspace-operator.dev.yaml")]
        cluster.kubectl("apply", *(word for crd in crds for word in ("-f", crd)))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        fleet = Fleet(cluster, "default")
        dotted = {**_stored("stops"), "metadata": {**_stored("stops")["metadata"], "name": DOTTED}}
        for body in (*STORED, dotted):
            _store(fleet, body, directory)
        cluster.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
        kubeconfig = cluster.service_account_kubeconfig("workspace-operator-system", "workspace-operator")
        with Operator(kubeconfig, directory):
            yield fleet


def _store(fleet: Fleet, body: Object, directory: Path) -> None:
    if body["kind"] == "WorkspaceClass" and "process" in body["spec"]:
        process = {**body["spec"]["process"], "directory": str(directory / "workspaces")}
        body = {**body, "spec": {**body["spec"], "process": process}}
    fleet.apply({key: value for key, value in body.items() if key != "status"})
    kind, patch = body["kind"].lower(), json.dumps({"status": body["status"]})
    fleet.kubectl("patch", kind, name_of(body), "--subresource=status", "--type=merge", "-p", patch)


@pytest.mark.cluster
def test_stored_workspaces_are_looked_after(upgraded: Fleet) -> None:
    """Those that were Paused or Stopped stay so; whose instance is gone get a new one; the others say what is wrong."""
    for name in ("runs", "child"):
        until(lambda n=name: upgraded.status(n)["incarnation"] > 1, 60, lambda n=name: str(upgraded.status(n)))
    upgraded.wait_ready("runs", "child")
    assert upgraded.status("child")["restartToken"] == "one"
    for name, phase in (("pauses", "Paused"), ("stops", "Stopped")):
        upgraded.wait_ready(name)
        assert upgraded.phase(name) == phase
        assert upgraded.status(name)["incarnation"] == _stored(name)["status"]["incarnation"]
    upgraded.wait_reason("lost", "ClassNotFound")


def _stored(name: str) -> Object:
    return next(body for body in WORKSPACES if name_of(body) == name)


@pytest.mark.cluster
def test_a_name_of_the_release_before_can_still_be_written_and_deleted(upgraded: Fleet) -> None:
    """The finalizer comes off an object that could not be created any more."""
    upgraded.patch(DOTTED, restartToken="two")
    upgraded.kubectl("delete", "workspace", DOTTED, "--timeout=60s", timeout=70)
