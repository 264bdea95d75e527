"""What is read before an agent is paused for being idle, and what happens when that cannot be read."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.kit import NOW, FakeKube, at, workspace, workspace_class

from workspace_operator.api import meta
from workspace_operator.api.states import IdentityMode
from workspace_operator.kube.client import KubeError
from workspace_operator.lifecycle.idle import Work
from workspace_operator.lifecycle.plan import RECHECK
from workspace_operator.reconcile import idling
from workspace_operator.reconcile.activity import NOTHING, Activity
from workspace_operator.reconcile.serving import LeaseBook
from workspace_operator.reconcile.world import Memory, World

LEASE = "/apis/coordination.k8s.io/v1/namespaces/n/leases/workspace-w"
DELEGATIONS = "/apis/workspace-operator.dev/v1alpha1/delegations"
WORKSPACE = workspace(agent={"probe": "Lease"}, idle={"pauseAfter": "5m"})
PROBED = workspace(agent={"probe": "AgentCard"}, idle={"pauseAfter": "5m"})


def lease(tasks: str | None, *, mark: str = "1", holder: str = "w/0", state: str = "Ready") -> dict[str, Any]:
    annotations = {meta.AGENT_STATE_ANNOTATION: state}
    if tasks is not None:
        annotations[meta.ACTIVE_TASKS_ANNOTATION] = tasks
    metadata = {"namespace": "n", "name": "workspace-w", "annotations": annotations}
    return {"metadata": metadata, "spec": {"renewTime": mark, "holderIdentity": holder}}


def delegation(to: str = "w", namespace: str | None = None, own: str = "n", **status: Any) -> dict[str, Any]:
    claimed = status.pop("claimed", False)
    receiver = {"name": to, **({"namespace": namespace} if namespace else {})}
    accepted = {"type": "Accepted", "status": "True", "reason": "Permitted", "message": "May."}
    stamps = {"lastTransitionTime": at(0), "observedGeneration": 1}
    return {
        "metadata": {
            "name": "d",
            "namespace": own,
            "uid": "d",
            "finalizers": [meta.CLAIM_FINALIZER] if claimed else [],
        },
        "spec": {"from": {"name": "other"}, "to": receiver, "message": {"text": "do"}},
        "status": {"phase": "Queued", "conditions": [{**accepted, **stamps}], **status},
    }


class Scene:
    """The API server, what the watches have told, and this process's memory."""

    def __init__(self, *found: dict[str, Any], tasks: str | None = "0", activity: Activity = NOTHING) -> None:
        objects = {f"{DELEGATIONS}/{number}": body for number, body in enumerate(found)}
        self.kube = FakeKube({LEASE: lease(tasks), **objects})
        self.book, self.memory = LeaseBook(), Memory()
        self.world = cast(
            World,
            SimpleNamespace(
                client=self.kube,
                leases=self.book,
                activity=lambda key: activity if key == "n/w" else NOTHING,
                clock=SimpleNamespace(now=lambda: NOW),
            ),
        )

    def fail(self, part: str, status: int = 500) -> None:
        def fail(method: str, url: str) -> None:
            if part in url:
                raise KubeError(status, "The Kubernetes API did not answer.")

        self.kube.before = fail

    async def asked(self, asked: Any = WORKSPACE, **class_spec: Any) -> Work:
        return await idling.asked(self.world, asked, workspace_class(**class_spec), self.memory)

    def known(self, asked: Any = WORKSPACE) -> Work:
        return idling.known(self.world, asked, workspace_class(), self.memory)


@pytest.mark.parametrize(
    ("found", "active"),
    [
        pytest.param((), False, id="01 none"),
        pytest.param((delegation(),), True, id="02 one waits and may wake it"),
        pytest.param((delegation(claimed=True, phase="Working"),), True, id="03 one is under way"),
        pytest.param((delegation(claimed=True, phase="Stuck"),), True, id="04 one is silent, and may still finish"),
        pytest.param((delegation(conditions=[]),), False, id="05 one that was not accepted"),
        pytest.param((delegation(claimed=True, phase="Completed"),), False, id="06 one that is over"),
        pytest.param((delegation(own="m"),), False, id="07 to a namesake in another namespace"),
        pytest.param((delegation(own="m", namespace="n"),), True, id="08 from another namespace"),
        pytest.param((delegation(namespace="m"),), False, id="09 to another namespace"),
    ],
)
async def test_delegations_are_listed_afresh_in_all_namespaces(found: tuple[dict[str, Any], ...], active: bool) -> None:
    """I-22."""
    scene = Scene(*found)
    assert (await scene.asked()).active is active
    assert scene.kube.calls == [f"LIST {DELEGATIONS}", f"GET {LEASE}"], "the Lease last: right before the stop"
    assert scene.memory.last_task == (NOW if active else None)


@pytest.mark.parametrize(
    ("body", "active", "need_not_tell"),
    [
        pytest.param(lease("0"), False, False, id="01 none"),
        pytest.param(lease("2"), True, True, id="02 two"),
        pytest.param(lease("2", state="Wedged"), True, True, id="03 wedged with tasks"),
        pytest.param(lease(None), None, False, id="04 it does not say"),
        pytest.param(lease("many"), None, False, id="05 it says nonsense"),
        pytest.param(lease(None, state="Busy"), None, None, id="06 busy, and it does not say with what"),
        pytest.param(lease(None, state="Wedged"), None, None, id="07 wedged"),
        pytest.param(lease("0", mark=""), None, False, id="08 not renewed since the start"),
        pytest.param({}, None, False, id="09 no Lease"),
    ],
)
async def test_the_agents_own_tasks_are_read_afresh(
    body: dict[str, Any], active: bool | None, need_not_tell: bool | None
) -> None:
    """I-22: whose probe is its Lease has to tell; any other is heard when it does."""
    for asked, expected in ((WORKSPACE, active), (PROBED, need_not_tell)):
        scene = Scene()
        if body:
            scene.kube.objects[LEASE] = body
        else:
            del scene.kube.objects[LEASE]
        assert (await scene.asked(asked)).active is expected


async def test_a_previous_incarnations_report_is_not_the_agents() -> None:
    """I-22."""
    scene = Scene()
    successor = WORKSPACE.model_copy(update={"status": WORKSPACE.status.model_copy(update={"incarnation": 1})})
    assert (await scene.asked(successor)).active is None


async def test_without_an_identity_nothing_can_be_reported() -> None:
    scene = Scene(tasks=None)
    assert (await scene.asked(identity={"mode": IdentityMode.NONE})).active is False


@pytest.mark.parametrize(("part", "status"), [("/leases/", 500), ("/leases/", 403), ("/delegations", 0)])
async def test_what_cannot_be_read_is_unknown_for_a_while(part: str, status: int) -> None:
    """I-22: a failed read pauses nobody, and is not repeated at once."""
    scene = Scene()
    scene.fail(part, status)
    scene.book.put(lease("0"))
    assert (await scene.asked()).active is None
    assert (scene.known().active, scene.known().not_before) == (False, NOW + RECHECK)


async def test_a_delegation_that_cannot_be_understood_may_be_under_way() -> None:
    """I-22."""
    scene = Scene({**delegation(), "spec": {"from": "another release"}})
    assert (await scene.asked()).active is None


def test_what_watches_have_told_costs_no_call() -> None:
    scene = Scene(tasks="1")
    assert scene.known().active is None, "it has not told yet"
    scene.book.put(lease("0"))
    work = scene.known()
    assert work.active is False and work.watched_since is not None
    assert NOW - timedelta(seconds=5) < work.watched_since <= NOW
    scene.book.put(lease("1", mark="2"))
    assert (scene.known().active, scene.known().last) == (True, NOW)
    assert not scene.kube.calls


def test_what_delegations_ask_counts_as_work() -> None:
    """I-22: also when one only waits."""
    for activity in (Activity(in_flight=1), Activity(wakers=1)):
        scene = Scene(activity=activity)
        scene.book.put(lease("0"))
        assert scene.known().active is True
    ended = Scene(activity=Activity(last=NOW - timedelta(seconds=7)))
    ended.book.put(lease("0"))
    assert (ended.known().active, ended.known().last) == (False, NOW - timedelta(seconds=7))


def test_a_task_is_remembered_when_nothing_shows_it_any_more() -> None:
    scene = Scene()
    scene.book.put(lease("1"))
    assert scene.known().last == NOW
    scene.book.put(lease("1"), deleted=True)
    assert (scene.known().active, scene.known().last) == (None, NOW)
