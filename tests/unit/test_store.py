"""The store of objects, status writes, and what is asked of the API server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import FakeKube, body, workspace_class

from workspace_operator.api.workspace import WorkspaceStatus
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.kube.client import Conflict, KubeClient
from workspace_operator.reconcile.statuswrite import difference, wire, write_status
from workspace_operator.reconcile.store import Store

DEFAULT = {"workspace-operator.dev/is-default-class": "true"}


def test_an_older_version_never_replaces_a_newer_one() -> None:
    """I-11: a listing that was overtaken by a watch changes nothing."""
    store = Store()
    assert store.put(body(version=5, desiredState="Paused"))
    assert not store.put(body(version=4, desiredState="Running"))
    assert not store.put(body(version=5, desiredState="Running"))
    entry = store.get("n/w")
    assert entry is not None and entry.desired == "Paused"


def test_versions_are_compared_as_numbers() -> None:
    store = Store()
    store.put(body(version=9))
    assert store.put(body(version=10))


def test_a_namesake_is_another_workspace() -> None:
    """I-11: by UID, never by name alone."""
    store = Store()
    store.put(body(uid="old", version=9))
    assert store.put(body(uid="new", version=10))
    assert not store.drop("n/w", "old")
    assert store.key_by_uid("new") == "n/w"
    assert store.key_by_uid("old") is None


def test_a_listing_under_way_brings_nothing_back() -> None:
    """I-11: neither the predecessor of a workspace that was made anew, nor one whose deletion is known."""
    store = Store()
    store.put(body(uid="old", version=9))
    store.put(body(uid="new", version=12))
    assert not store.put(body(uid="old", version=10))
    assert store.drop("n/w", "new", deleted_at=15)
    assert not store.put(body(uid="new", version=14))
    assert store.put(body(uid="newest", version=16))


def test_what_was_not_found_may_come_back() -> None:
    """An API server that just starts does not find what it serves a moment later."""
    store = Store()
    store.put(body(version=9))
    assert store.drop("n/w", "uid-w")
    assert store.put(body(version=9))


def test_all_descendants_are_found_at_any_depth_and_circles_end() -> None:
    """I-12."""
    store = Store()
    for child, parent in (("b", "a"), ("c", "b"), ("d", "c"), ("x", "y"), ("y", "x"), ("other", "else")):
        store.put(body(child, parentRef={"name": parent}))
    assert store.descendants("n", "a") == {"n/b", "n/c", "n/d"}
    assert store.descendants("n", "x") == {"n/x", "n/y"}
    assert store.descendants("elsewhere", "a") == set()


def test_a_changed_parent_takes_the_child_along() -> None:
    store = Store()
    store.put(body("b", 1, parentRef={"name": "a"}))
    store.put(body("b", 2, parentRef={"name": "z"}))
    assert (store.descendants("n", "a"), store.descendants("n", "z")) == (set(), {"n/b"})


def test_the_class_is_the_named_one_else_the_recorded_one_else_the_newest_default() -> None:
    store = Store()
    for name, marks in (("a", DEFAULT), ("b", DEFAULT), ("c", {})):
        store.classes[name] = workspace_class(name, marks)

    def name_of(named: str | None, recorded: str | None) -> str | None:
        found = store.class_for(named, recorded)
        return found.metadata.name if found else None

    assert name_of("c", "a") == "c"
    assert name_of(None, "c") == "c"
    assert name_of(None, None) == "b"
    assert name_of("gone", "a") is None


def class_body(version: int, uid: str) -> WorkspaceClass:
    made = workspace_class("c")
    return made.model_copy(
        update={"metadata": made.metadata.model_copy(update={"resource_version": str(version), "uid": uid})}
    )


def test_a_class_made_anew_survives_the_late_news_of_its_predecessors_deletion() -> None:
    """I-11: kopf tells of objects with different UIDs in any order."""
    store = Store()
    assert store.put_class(class_body(1, "old"))
    assert store.put_class(class_body(9, "new"))
    assert not store.drop_class("c", "old", 8)
    assert store.classes["c"].metadata.uid == "new"
    assert not store.put_class(class_body(7, "old")), "a listing of the past"
    assert store.drop_class("c", "new", 10)
    assert not store.put_class(class_body(9, "new"))
    assert not store.classes


def test_workspaces_are_counted_by_phase_for_the_class_they_use() -> None:
    store = Store()
    store.put({**body("a", className="c"), "status": {"phase": "Running"}})
    store.put({**body("b", className="c")})
    store.put({**body("d"), "status": {"phase": "Paused"}})
    assert store.phases_of_class("c", is_default=False) == {"Pending": 1, "Running": 1}
    assert store.phases_of_class("c", is_default=True) == {"Paused": 1, "Pending": 1, "Running": 1}


# -- status writes -----------------------------------------------------------------------------------------------------

values = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
documents = st.dictionaries(st.text(max_size=3), values, max_size=4)


def merged(before: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(documents, documents)
def test_the_patch_turns_what_was_into_what_is(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(before, difference(before, after)) == after


@given(documents)
def test_no_patch_for_no_change(document: dict[str, Any]) -> None:
    assert difference(document, document) == {}


URL = "/apis/x/workspaces/w/status"


class Recorder(FakeKube):
    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[dict[str, Any]] = []

    async def merge(self, url: str, value: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(value)
        self.before("PATCH", url)
        return value


def client(fake: Any) -> KubeClient:
    return fake  # type: ignore[no-any-return]


async def test_a_status_is_written_with_the_version_that_was_read_and_only_what_changed() -> None:
    """I-11."""
    kube = Recorder()
    before, after = WorkspaceStatus(incarnation=1), WorkspaceStatus(incarnation=2)
    await write_status(client(kube), URL, "7", before, after)
    assert kube.bodies == [{"metadata": {"resourceVersion": "7"}, "status": {"incarnation": 2}}]


async def test_nothing_is_written_when_nothing_changed() -> None:
    kube = Recorder()
    assert await write_status(client(kube), URL, "7", WorkspaceStatus(), WorkspaceStatus()) is None
    assert not kube.bodies


async def test_a_failed_write_is_not_swallowed() -> None:
    """I-28."""
    kube = Recorder()

    def refuse(method: str, url: str) -> None:
        raise Conflict(409, "It changed.")

    kube.before = refuse
    with pytest.raises(Conflict):
        await write_status(client(kube), URL, "7", WorkspaceStatus(), WorkspaceStatus(incarnation=1))


def test_the_wire_has_no_nulls_and_no_empty_lists() -> None:
    assert wire(WorkspaceStatus(incarnation=1)) == {"incarnation": 1, "pendingRestart": False}
