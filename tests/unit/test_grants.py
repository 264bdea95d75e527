"""What a workspace may read of its Delegations: by name, prompt, with few writes, and never more than its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast
from urllib.parse import quote

import pytest
from tests.model.virtual import VirtualLoop
from tests.unit.kit import FakeKube, workspace

from workspace_operator.api.workspace import ObjectMeta
from workspace_operator.kube import grants as module
from workspace_operator.kube.admission import BINDING as POLICY
from workspace_operator.kube.client import Conflict, KubeClient, KubeError, NotFound, path
from workspace_operator.kube.grants import LAZINESS, REREAD, SPACING, Grants, grants_name
from workspace_operator.kube.identity import Identities
from workspace_operator.kube.owned import BINDINGS, ROLES, role
from workspace_operator.telemetry.loops import Heartbeat

PLANNER = workspace("planner").metadata
ROLE = path(ROLES, "n", grants_name("planner"))
BINDING = path(BINDINGS, "n", grants_name("planner"))


class Kube(FakeKube):
    """With deletions, 404 for an update of what is gone, and names that are quoted in URLs."""

    async def create(self, url: str, value: dict[str, Any]) -> dict[str, Any]:
        stored = await super().create(url, value)
        raw = f"{url}/{value['metadata']['name']}"
        self.objects[f"{url}/{quote(value['metadata']['name'], safe='')}"] = self.objects.pop(raw)
        return stored

    async def delete(self, url: str, uid: str | None = None) -> None:
        self._called("DELETE", url)
        assert uid in (None, self.objects[url]["metadata"].get("uid"))
        del self.objects[url]

    async def update(self, url: str, value: dict[str, Any]) -> dict[str, Any]:
        if url not in self.objects:
            self._called("PUT", url)
            raise NotFound(404, f"{url} does not exist.")
        return await super().update(url, value)


class Scene:
    """Grants that run against a simulated API server, in virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.kube, self.loop = Kube(), loop
        self.beat = Heartbeat("grants", None)
        self.start()

    def start(self) -> None:
        """A new process."""
        self.grants = Grants(cast(KubeClient, self.kube))
        self.task = self.loop.create_task(self.grants.run(self.beat))

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        self.task.cancel()
        self.loop.run_until_complete(asyncio.gather(self.task, return_exceptions=True))

    def wish(self, *names: str, of: ObjectMeta = PLANNER) -> None:
        self.grants.wish(of, frozenset(names))

    def pass_time(self, seconds: float = 0.1) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        assert not self.task.done()

    @property
    def writes(self) -> int:
        return sum(not call.startswith("GET") for call in self.kube.calls)

    @property
    def granted(self) -> list[str]:
        rules = self.kube.objects[ROLE]["rules"]
        return list(rules[0]["resourceNames"]) if rules else []


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    loop = VirtualLoop()
    monkeypatch.setattr("time.monotonic", loop.time)
    made = Scene(loop)
    yield made
    made.stop()
    loop.close()


def test_the_first_name_is_granted_at_once_by_a_role_of_the_workspace(scene: Scene) -> None:
    scene.wish("planner.a")
    scene.pass_time()
    stored = scene.kube.objects[ROLE]
    assert [owner["uid"] for owner in stored["metadata"]["ownerReferences"]] == [PLANNER.uid]
    assert stored["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "workspace-operator"
    delegations, answers = stored["rules"]
    assert (delegations["resources"], delegations["resourceNames"]) == (["delegations"], ["planner.a"])
    assert delegations["verbs"] == ["get", "watch", "patch", "delete"]
    assert (answers["resources"], answers["resourceNames"]) == (["configmaps"], ["delegation-planner.a"])
    assert answers["verbs"] == ["get"]
    bound = scene.kube.objects[BINDING]
    assert bound["roleRef"]["name"] == grants_name("planner")
    assert [subject["name"] for subject in bound["subjects"]] == ["workspace-planner"]


def test_many_additions_are_one_write_a_second(scene: Scene) -> None:
    names: list[str] = []
    for number in range(100):
        names.append(f"planner.{number}")
        scene.wish(*names)
        scene.pass_time(SPACING / 50)
    scene.pass_time(SPACING)
    assert scene.granted == names
    assert scene.writes <= 2 + 3, "the Role and its binding, and one more for each second"


def test_removals_wait_for_the_next_addition(scene: Scene) -> None:
    scene.wish("planner.a", "planner.b")
    scene.pass_time(5)
    before = scene.writes
    scene.wish("planner.b")
    scene.pass_time(5)
    assert scene.granted == ["planner.a", "planner.b"]
    scene.wish("planner.b", "planner.c")
    scene.pass_time()
    assert scene.granted == ["planner.b", "planner.c"]
    assert scene.writes == before + 1


def test_removals_without_an_addition_are_made_some_minutes_later(scene: Scene) -> None:
    """And an empty list is no rule: one without names would be a right to everybody's."""
    scene.wish("planner.a", "planner.b")
    scene.pass_time(5)
    scene.wish("planner.b")
    scene.pass_time(LAZINESS - 60)
    scene.wish()
    assert scene.granted == ["planner.a", "planner.b"]
    scene.pass_time(61)
    assert scene.kube.objects[ROLE]["rules"] == []


def test_nothing_is_written_when_nothing_changed(scene: Scene) -> None:
    scene.wish("planner.a")
    scene.pass_time(5)
    before = list(scene.kube.calls)
    for _ in range(10):
        scene.wish("planner.a")
        scene.pass_time(5)
    assert scene.kube.calls == before


def test_a_restart_reads_first_and_writes_only_what_is_new(scene: Scene) -> None:
    scene.wish("planner.a", "planner.b")
    scene.pass_time(5)
    scene.restart()
    before = scene.writes
    scene.wish("planner.a", "planner.b")
    scene.pass_time(5)
    assert scene.writes == before
    scene.restart()
    scene.wish("planner.b", "planner.c")
    scene.pass_time()
    assert scene.granted == ["planner.b", "planner.c"]
    assert scene.writes == before + 1


def test_a_crash_between_the_role_and_its_binding_is_made_good(scene: Scene) -> None:
    scene.wish("planner.a")
    scene.pass_time(5)
    del scene.kube.objects[BINDING]
    scene.restart()
    scene.wish("planner.a")
    scene.pass_time()
    assert BINDING in scene.kube.objects


def test_the_roles_of_others_are_never_touched_or_read_for_ours(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """I-11: by UID. One of a deleted workspace of the same name is replaced, a person's is left alone and told once."""
    former = PLANNER.model_copy(update={"uid": "former"})
    old = role(former, grants_name("planner"), module._rules(["planner.old"]))
    old["metadata"]["uid"] = "role-of-the-former"
    scene.kube.objects[ROLE] = old
    scene.wish("planner.a")
    scene.pass_time(5)
    assert scene.granted == ["planner.a"]
    assert f"DELETE {ROLE}" in scene.kube.calls

    theirs = {"kind": "Role", "metadata": {"name": grants_name("planner"), "uid": "x"}, "rules": []}
    scene.kube.objects[ROLE] = theirs
    scene.restart()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        scene.wish("planner.a")
        scene.pass_time(300)
    assert scene.kube.objects[ROLE] == theirs
    (record,) = caplog.records
    assert "does not belong to this workspace" in record.message and "n/planner" in record.message


def test_only_names_that_begin_with_the_workspaces_own_are_ever_listed(scene: Scene) -> None:
    """A name that goes to another sender later would take the right to it along."""
    scene.wish("made-by-hand", "planner2.a", "planner")
    scene.pass_time(5)
    assert scene.kube.calls == []
    scene.wish("made-by-hand", "planner.a")
    scene.pass_time()
    assert scene.granted == ["planner.a"]


def test_above_the_limit_the_newest_are_listed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 10)
    names = [f"planner.{number}" for number in range(10)]
    scene.wish(*names)
    scene.pass_time(5)
    assert scene.granted == names
    scene.wish(*names, "planner.a-newer-one")
    scene.pass_time(5)
    assert scene.granted == [*names[1:], "planner.a-newer-one"]
    writes = scene.writes
    scene.wish(*names, "planner.a-newer-one")
    scene.pass_time(LAZINESS * 2)
    assert scene.writes == writes


def test_errors_are_ridden_out_and_told_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def down(method: str, url: str) -> None:
        raise KubeError(503, "The Kubernetes API is away.")

    scene.kube.before = down
    with caplog.at_level(logging.WARNING):
        scene.wish("planner.a")
        scene.pass_time(600)
    assert len(caplog.records) == 1
    assert 8 <= len(scene.kube.calls) <= 20, "with a back-off"
    scene.kube.before = lambda method, url: None
    scene.pass_time(61)
    assert scene.granted == ["planner.a"]


@pytest.mark.parametrize("after", [False, True])
def test_a_lost_answer_is_resolved_by_reading(scene: Scene, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the write took effect."""
    scene.wish("planner.a")
    scene.pass_time(5)
    update, lost = scene.kube.update, []

    async def lose(url: str, value: dict[str, Any]) -> dict[str, Any]:
        if not lost:
            lost.append(await update(url, value) if after else None)
            raise KubeError(0, "The Kubernetes API did not answer in time.")
        return await update(url, value)

    monkeypatch.setattr(scene.kube, "update", lose)
    scene.wish("planner.a", "planner.b")
    scene.pass_time(5)
    assert lost and scene.granted == ["planner.a", "planner.b"]


def test_somebody_elses_change_and_deletion_are_put_right(scene: Scene) -> None:
    scene.wish("planner.a")
    scene.pass_time(5)
    scene.kube.objects[ROLE]["metadata"]["resourceVersion"] = "9999"
    scene.kube.objects[ROLE]["rules"] = []
    scene.wish("planner.a", "planner.b")
    scene.pass_time(5)
    assert scene.granted == ["planner.a", "planner.b"], "seen by the conflict"
    del scene.kube.objects[ROLE]
    scene.pass_time(REREAD + 1)
    scene.wish("planner.a", "planner.b")
    scene.pass_time(5)
    assert scene.granted == ["planner.a", "planner.b"], "seen when it was read again"


def test_one_workspace_in_trouble_holds_nobody_up(scene: Scene) -> None:
    def refuse(method: str, url: str) -> None:
        if "planner" in url:
            raise KubeError(403, "Forbidden.")

    scene.kube.before = refuse
    scene.wish("planner.a")
    other = workspace("writer").metadata
    scene.wish("writer.a", of=other)
    scene.pass_time()
    assert path(ROLES, "n", grants_name("writer")) in scene.kube.objects


def test_a_workspace_that_is_gone_is_forgotten(scene: Scene) -> None:
    scene.wish("planner.a")
    scene.pass_time(5)
    scene.wish("planner.a", "planner.b")
    scene.grants.forget(PLANNER.uid)
    before = list(scene.kube.calls)
    scene.pass_time(LAZINESS * 2)
    assert scene.kube.calls == before
    assert scene.beat.age < 60, "an idle loop has a heartbeat"


# -- the Role of the identity ------------------------------------------------------------------------------------------


class IdentityKube(Kube):
    """Issues a token, too."""

    async def create(self, url: str, value: dict[str, Any]) -> dict[str, Any]:
        if url.endswith("/token"):
            return {"status": {"token": "t", "expirationTimestamp": "2030-01-01T00:00:00+00:00"}}
        if f"{url}/{value['metadata']['name']}" in self.objects:
            self._called("POST", url)
            raise Conflict(409, "It exists.")
        value["metadata"].setdefault("uid", "u")
        return await super().create(url, value)


async def test_a_role_of_an_earlier_release_is_brought_up_to_date_with_one_write() -> None:
    kube = IdentityKube()
    kube.objects[POLICY] = {"spec": {"validationActions": ["Deny"]}}
    identities = Identities(cast(KubeClient, kube))

    async def issue() -> None:
        await identities.issue(workspace("planner"), timedelta(hours=1), None, fresh_start=False)

    await issue()
    url = path(ROLES, "n", "workspace-planner")
    current = kube.objects[url]["rules"]
    assert [(rule["resources"], rule.get("resourceNames"), rule["verbs"]) for rule in current] == [
        (["leases"], ["workspace-planner"], ["get", "patch", "update"]),
        (["delegations"], None, ["create"]),
        (["workspaces"], ["planner"], ["delegate"]),
    ]
    kube.objects[url]["rules"] = current[:1]
    kube.calls.clear()
    await issue()
    assert kube.objects[url]["rules"] == current
    await issue()
    assert [call for call in kube.calls if call.startswith("PUT")] == [f"PUT {url}"]


@pytest.mark.parametrize("policy", [None, {"spec": {"validationActions": ["Audit"]}}])
async def test_without_the_policy_that_checks_senders_no_workspace_may_delegate(policy: dict[str, Any] | None) -> None:
    """Fail closed; half installed is not installed (I-52, I-82)."""
    kube = IdentityKube()
    if policy is not None:
        kube.objects[POLICY] = policy
    await Identities(cast(KubeClient, kube)).issue(workspace("planner"), timedelta(hours=1), None, fresh_start=False)
    [rule] = kube.objects[path(ROLES, "n", "workspace-planner")]["rules"]
    assert rule["resources"] == ["leases"]
