"""Self-healing pipelines and the operator do not fight: nothing that the operator writes is drift (I-30)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gitops.judge import Judge
from tests.support.delegations import Tasks, delegation, delegation_class, remembering, sender
from tests.support.fleet import Fleet, Object, until, workspace, workspace_class
from tests.support.manifests import process_images
from tests.support.operator import Operator
from tests.support.pipeline import Pipeline, written

from controlplane.kubectl import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]  # the first run of a machine builds the judge

ARGO, FLUX = "argocd-controller", "kustomize-controller"
SLEEP = {"className": "delegations", "image": "sleep"}
CARD = {"port": 8080, "probe": "AgentCard"}


@pytest.fixture(scope="module")
def _class(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    return delegation_class(cluster, tmp_path_factory.mktemp("workspaces"))


@pytest.fixture
def argo(fleet: Fleet, operator: Operator, _class: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline with a class, a family, one that may idle, and one whose desiredState is nobody's in Git."""
    pipeline = Pipeline(fleet, ARGO)
    class_name = f"drift-{tmp_path.name}"[:40].rstrip("-").replace("_", "-")
    pipeline.sync(
        workspace_class(class_name, process=process_images(tmp_path)),
        workspace("parent", **SLEEP, desiredState="Running"),
        workspace("child", **SLEEP, desiredState="Running", parentRef={"name": "parent"}),
        workspace("free", **SLEEP),
        remembering("idler", idle={"pauseAfter": "5s"}),
        sender("boss"),
    )
    yield pipeline
    fleet.kubectl("delete", "delegations", "--all", "--timeout=30s")
    fleet.drop_classes(class_name)


def test_nothing_is_drift_over_the_life_of_a_workspace(fleet: Fleet, argo: Pipeline, judge: Judge) -> None:
    """I-30, I-88, I-89: no ignoreDifferences is needed, and at rest both tools call all of it healthy."""
    seen: list[str] = []

    def calm(state: str) -> None:
        """Nothing differs, and everything declared gets healthy without another sync."""
        assert argo.drift() == "", state
        until(lambda: {verdict.argo for verdict in judge(argo.live())} == {"Healthy"}, 90, lambda: str(argo.live()))
        assert {verdict.kstatus for verdict in judge(argo.live())} == {"Current"}
        assert argo.drift() == "", state
        seen.append(state)

    def effective(name: str) -> str:
        status = fleet.status(name)
        return f"{status.get('phase')} {status.get('effectiveReason')}"

    calm("running")
    argo.edit("Workspace", "child", restartToken="1")
    until(lambda: fleet.status("child").get("restartToken") == "1", 60)
    calm("restarted by a commit")
    until(lambda: effective("idler") == "Paused IdleTimeout", 60)
    calm("paused because it is idle")
    argo.sync(delegation("job", "boss", "idler"))
    assert argo.drift() == ""
    Tasks(fleet).wait_over("job")
    calm("woken by a task that is done")
    argo.edit("Workspace", "parent", desiredState="Paused")
    until(lambda: effective("child") == "Paused Parent", 60)
    calm("paused with its parent")
    argo.edit("Workspace", "parent", desiredState="Stopped")
    until(lambda: effective("child") == "Stopped Parent", 60)
    calm("stopped with its parent")
    assert len(seen) == 6
    for item in argo.live():
        assert written(item, ARGO) <= {"status", "metadata.finalizers"}, item["metadata"]["name"]
        assert not item["metadata"].get("annotations"), "no annotations of ours"
    Pipeline(fleet, FLUX).sync(*argo.declared.values())
    assert argo.drift() == "", "and two tools with the same wish agree"


def test_what_an_action_changes_is_drift_only_where_git_declares_it(fleet: Fleet, argo: Pipeline, judge: Judge) -> None:
    """A person's Pause in Argo CD stays where the manifest leaves desiredState out, and is healed where it does not."""

    def act(name: str, action: str) -> None:
        (verdict,) = judge([fleet.get(name)])
        assert not verdict.actions[action]["disabled"]
        after: Object = verdict.actions[action]["after"]
        fleet.patch(
            name, **{key: after["spec"][key] for key in ("desiredState", "restartToken") if key in after["spec"]}
        )

    fleet.wait_ready("free", "parent")
    act("free", "restart")
    token = fleet.get("free")["spec"]["restartToken"]
    until(lambda: fleet.status("free").get("restartToken") == token, 60)
    fleet.wait_ready("free")
    act("free", "pause")
    fleet.wait_phase("free", "Paused")
    assert argo.drift() == ""
    argo.sync(*argo.declared.values())
    assert fleet.get("free")["spec"]["desiredState"] == "Paused", "a sync leaves it"
    act("free", "resume")
    fleet.wait_ready("free")
    assert argo.drift() == ""
    act("parent", "pause")
    assert "desiredState" in argo.drift()
    argo.sync(*argo.declared.values())
    assert argo.drift() == ""
    fleet.wait_ready("parent")


def test_what_the_operator_makes_belongs_to_no_application_and_goes_with_its_owner(
    fleet: Fleet, argo: Pipeline
) -> None:
    """A tool prunes what carries its mark and is not in Git: nothing of ours carries one, even where its owner does."""
    marked = {"argocd.argoproj.io/tracking-id": "app:x", "app.kubernetes.io/instance": "app"}
    parent = argo.declared["Workspace", "idler"]
    metadata = {**parent["metadata"], "labels": {"app.kubernetes.io/instance": "app"}, "annotations": marked}
    argo.sync({**parent, "metadata": metadata})
    fleet.wait_ready("idler")
    made = [each for each in argo.others() if each["metadata"].get("ownerReferences")]
    assert {"ServiceAccount", "Secret"} <= {each["kind"] for each in made}
    for each in made:
        marks = {**each["metadata"].get("labels", {}), **each["metadata"].get("annotations", {})}
        assert not set(marked) & set(marks), each["metadata"]["name"]
    fleet.kubectl("delete", "workspace", "idler", "--cascade=foreground", "--timeout=60s", timeout=70)
