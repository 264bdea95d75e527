"""What a pass does where kopf or a listing let it down: the finalizer, and views of the past."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.kit import FakeKube, body

from workspace_operator.api.meta import FINALIZER
from workspace_operator.api.workspace import Workspace
from workspace_operator.kube.client import Conflict, NotFound, workspaces
from workspace_operator.reconcile import finalizer
from workspace_operator.reconcile.queue import Overtaken
from workspace_operator.reconcile.run import Run
from workspace_operator.reconcile.runtime import Runtime
from workspace_operator.reconcile.store import Store
from workspace_operator.reconcile.workspace import WorkspaceReconciler

URL = workspaces("n", "w")


class Patched(FakeKube):
    """Merge patches of metadata alone are enough here."""

    async def merge(self, url: str, patch: dict[str, Any]) -> dict[str, Any]:
        self._called("PATCH", url)
        metadata = self.objects[url]["metadata"]
        if patch["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise Conflict(409, "It changed.")
        return self._stored(url, {**self.objects[url], "metadata": {**metadata, **patch["metadata"]}})


def without_finalizer(**metadata: Any) -> dict[str, Any]:
    made = body()
    made["metadata"] |= {"finalizers": ["other.dev/one"], **metadata}
    return made


def reconciler(kube: FakeKube, *known: dict[str, Any]) -> tuple[WorkspaceReconciler, Store]:
    store = Store()
    for each in known:
        store.put(each)
    world: Any = SimpleNamespace(store=store, client=kube)
    return WorkspaceReconciler(world, lambda uid: None), store


async def test_kopf_is_waited_for_and_then_the_finalizer_is_put_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """kopf repeats a patch that met a conflict only when the object changes again."""
    kube = Patched({URL: without_finalizer()})
    work, store = reconciler(kube, without_finalizer())
    again = await work("n/w")
    assert again is not None and 0 < again.total_seconds() <= finalizer.PATIENCE
    assert not kube.calls, "kopf's turn first"
    monkeypatch.setattr(finalizer, "PATIENCE", 0.0)
    again = await work("n/w")
    assert again is not None and not again
    assert kube.objects[URL]["metadata"]["finalizers"] == ["other.dev/one", FINALIZER]
    entry = store.get("n/w")
    assert entry is not None and FINALIZER in entry.parse().metadata.finalizers


async def test_none_is_put_on_a_deleted_object_or_a_changed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finalizer, "PATIENCE", 0.0)
    deleted = without_finalizer(deletionTimestamp="2030-01-01T00:00:00Z")
    kube = Patched({URL: deleted})
    assert await reconciler(kube, deleted)[0]("n/w") is None
    assert not kube.calls
    kube = Patched({URL: without_finalizer(resourceVersion="2")})
    work, store = reconciler(kube, without_finalizer())
    with pytest.raises(Overtaken):
        await work("n/w")
    assert FINALIZER not in kube.objects[URL]["metadata"]["finalizers"]
    entry = store.get("n/w")
    assert entry is not None and entry.version == 2, "read again, for the next pass"


async def test_taking_it_off_leaves_those_of_others() -> None:
    mine = without_finalizer(finalizers=["other.dev/one", FINALIZER])
    kube = Patched({URL: mine})
    await finalizer.take_off(cast(Any, kube), Workspace.model_validate(mine))
    assert kube.objects[URL]["metadata"]["finalizers"] == ["other.dev/one"]


def run_of(kube: FakeKube, seen: dict[str, Any]) -> Run:
    made: Any = Run.__new__(Run)
    made.world, made.workspace, made.confirmed = SimpleNamespace(client=kube), Workspace.model_validate(seen), False
    return cast(Run, made)


async def test_nothing_is_created_for_an_object_of_the_past() -> None:
    """I-11: what a stale list shows is asked for by name first, once in a pass."""
    kube = FakeKube({URL: body(version=5)})
    run = run_of(kube, body(version=5))
    await run.confirm()
    await run.confirm()
    assert kube.calls == [f"GET {URL}"]
    with pytest.raises(Conflict):
        await run_of(kube, body(version=4)).confirm()
    with pytest.raises(NotFound):
        await run_of(FakeKube(), body()).confirm()


def test_a_stale_namesake_does_not_replace_its_successor() -> None:
    """I-11."""
    store = Store()
    store.put(body(uid="new", version=10))
    assert not store.put(body(uid="old", version=9))
    assert store.key_by_uid("new") == "n/w"


class Past(FakeKube):
    """Its lists show nothing."""

    async def list(self, url: str, labels: str | None = None) -> AsyncIterator[dict[str, Any]]:
        for nothing in ():
            yield nothing


@pytest.mark.parametrize("there", [True, False])
async def test_what_a_listing_lacks_is_gone_only_if_it_is_not_found_by_name(there: bool) -> None:
    """I-10: a release on the word of a stale list would let the finalizer go while compute runs."""
    store, released = Store(), list[str]()
    store.put(body())
    kube = Past({URL: body()} if there else {})
    runtime: Any = Runtime.__new__(Runtime)
    runtime.client, runtime.store, runtime._release = kube, store, released.append
    await runtime._list_workspaces()
    assert (store.get("n/w") is not None, released) == ((True, []) if there else (False, ["uid-w"]))
