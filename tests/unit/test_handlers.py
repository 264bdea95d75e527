"""What is registered with kopf, and how kopf is set up."""

from __future__ import annotations

import asyncio
from itertools import islice
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest
from tests.unit.kit import body

from workspace_operator import handlers
from workspace_operator.api import meta


class StubRuntime:
    """Takes what the handlers hand over."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, bool]] = []
        self.beats: list[str] = []
        self.released = True
        self.watch_beats = {
            name: SimpleNamespace(beat=lambda name=name: self.beats.append(name))
            for name in (meta.WORKSPACES, meta.WORKSPACE_CLASSES, meta.DELEGATIONS, "leases")
        }

    def _seen(self, kind: str) -> Any:
        return lambda body, deleted: self.told.append((kind, body["metadata"]["name"], deleted))

    @property
    def workspace_seen(self) -> Any:
        return self._seen("workspace")

    @property
    def class_seen(self) -> Any:
        return self._seen("class")

    @property
    def delegation_seen(self) -> Any:
        return self._seen("delegation")

    @property
    def lease_seen(self) -> Any:
        return self._seen("lease")

    async def until_released(self, body: dict[str, Any], seconds: float) -> bool:
        return self.released

    async def until_unused(self, body: dict[str, Any], seconds: float) -> bool:
        return self.released

    def sweep_due(self, name: str) -> None:
        self.told.append(("sweep", name, False))


@pytest.fixture
def runtime() -> StubRuntime:
    return StubRuntime()


def registered(runtime: StubRuntime) -> kopf.OperatorRegistry:
    return handlers.register(runtime)  # type: ignore[arg-type]


def every_handler(registry: kopf.OperatorRegistry) -> dict[str, list[Any]]:
    """Whatever kind of handler kopf knows, by the name of its registry."""
    kinds = [name for name in vars(registry) if name.startswith("_")]
    return {kind: list(getattr(registry, kind).get_all_handlers()) for kind in kinds}


def _reason(handler: Any) -> str:
    return str(getattr(handler, "reason", None))


def test_these_are_all_handlers_and_timers(runtime: StubRuntime) -> None:
    """I-80: what is written and not registered, or registered and not listed here, fails."""
    found = {
        kind: sorted(
            (str(h.id), str(h.selector.plural or h.selector.any_name), str(getattr(h, "reason", None))) for h in hs
        )
        for kind, hs in every_handler(registered(runtime)).items()
        if hs
    }
    assert found == {
        "_watching": [
            ("class", "workspaceclasses", "None"),
            ("delegation", "delegations", "None"),
            ("lease", "leases", "None"),
            ("workspace", "workspaces", "None"),
        ],
        "_spawning": [("sweep", "workspaceclasses", "None")],
        "_changing": [("release", "workspaces", "delete"), ("unuse", "workspaceclasses", "delete")],
    }


def test_the_finalizer_is_asked_for_by_the_deletion_handlers(runtime: StubRuntime) -> None:
    """I-05: kopf puts it on before any pass acts, see ``FINALIZER not in finalizers`` in reconcile/workspace.py."""
    changing = every_handler(registered(runtime))["_changing"]
    assert [bool(handler.requires_finalizer) for handler in changing] == [True, True]


async def test_events_become_keys_and_nothing_else(runtime: StubRuntime) -> None:
    for handler in every_handler(registered(runtime))["_watching"]:
        for kind in ("ADDED", "DELETED"):
            patch = kopf.Patch()
            outcome = handler.fn(event={"type": kind, "object": body()}, patch=patch)
            assert (await outcome if asyncio.iscoroutine(outcome) else outcome) is None
            assert not patch
    assert sorted(runtime.told) == sorted(
        (kind, "w", deleted) for kind in ("workspace", "class", "delegation", "lease") for deleted in (False, True)
    )
    assert len(runtime.beats) == 8


def test_the_finalizer_stays_until_the_compute_is_seen_gone(runtime: StubRuntime) -> None:
    """I-10; and a class stays until no workspace uses it."""
    for handler in every_handler(registered(runtime))["_changing"]:
        runtime.released = False
        with pytest.raises(kopf.TemporaryError):
            asyncio.run(handler.fn(body=body()))
        runtime.released = True
        asyncio.run(handler.fn(body=body()))


def test_the_timer_asks_for_a_sweep_and_nothing_else(runtime: StubRuntime) -> None:
    """I-80."""
    (timer,) = every_handler(registered(runtime))["_spawning"]
    asyncio.run(timer.fn(name="docker"))
    assert runtime.told == [("sweep", "docker", False)]
    assert timer.interval == handlers.SWEEP_TICK


def test_the_settings_that_were_measured() -> None:
    """I-88: no whole-object annotation; I-45, I-46: every request and every watch has an end."""
    chosen = handlers.settings()
    assert chosen.persistence.finalizer == meta.FINALIZER
    assert isinstance(chosen.persistence.diffbase_storage, handlers.NoDiffBase)
    assert chosen.queueing.worker_limit is None
    assert chosen.posting.enabled is False
    assert chosen.scanning.disabled is True
    assert chosen.networking.request_timeout and chosen.watching.server_timeout
    assert (chosen.watching.client_timeout or 0) > chosen.watching.server_timeout


def test_the_diff_base_is_never_stored() -> None:
    """I-88."""
    storage, patch = handlers.NoDiffBase(), kopf.Patch()
    essence = storage.build(body=kopf.Body(cast(Any, body())))
    storage.store(body=kopf.Body(cast(Any, body())), patch=patch, essence=essence)
    assert not patch


def test_api_errors_are_ridden_out_for_ever() -> None:
    backoff = handlers.EndlessBackoff()
    first, again = list(islice(backoff, 200)), list(islice(backoff, 3))
    assert len(first) == 200 and max(first) <= 36
    assert again[0] < 1, "it begins anew for each request"
