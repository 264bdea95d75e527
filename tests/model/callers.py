"""Delegations to the one workspace that may idle, without a life of their own: they wait, are sent, and are over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tests.model.apiserver import NAMESPACE, Api
from tests.model.tasks import delegation

from workspace_operator.kube.client import Object
from workspace_operator.reconcile.activity import NOTHING, Activity

IDLER = "d"
PAUSE_AFTER = 60  # seconds


class Callers:
    """As the API server has them, and as watches tell of them at once."""

    def __init__(self, api: Api, moment: Callable[[], datetime], changed: Callable[[], None]) -> None:
        self._api, self._moment, self._changed = api, moment, changed
        self.waiting = self.flying = 0
        self._last: datetime | None = None

    @property
    def any(self) -> bool:
        return bool(self.waiting or self.flying)

    def wait(self, number: int) -> None:
        """So many more wait, all of which may wake it."""
        self.waiting += number
        self._changed()

    def go(self) -> None:
        """Those that wait are claimed and sent, if the workspace serves and no idle pause is on record."""
        status = (self._api.workspace(IDLER) or {}).get("status") or {}
        if status.get("phase") == "Running" and "pausedTime" not in status.get("idle", {}):
            self.waiting, self.flying = 0, self.flying + self.waiting
            self._changed()

    def end(self) -> None:
        """Those that were sent are over."""
        if self.flying:
            self.flying, self._last = 0, self._moment()
            self._changed()

    def leave(self) -> None:
        """Nobody wants anything any more."""
        self.waiting = 0
        self.end()

    def activity(self, key: str) -> Activity:
        return Activity(self.flying, self.waiting, self._last) if key == f"{NAMESPACE}/{IDLER}" else NOTHING

    def listed(self, fields: str) -> list[Object]:
        """What a fresh listing shows."""
        if fields != f"spec.to.name={IDLER}":
            return []
        waiting = [delegation(f"waits-{number}", IDLER, claimed=False) for number in range(self.waiting)]
        return waiting + [delegation(f"flies-{number}", IDLER, claimed=True) for number in range(self.flying)]
