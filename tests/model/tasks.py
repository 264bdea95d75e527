"""How the model's tasks look to the operator: on the agent's Lease, as Delegations, and in what watches have told."""

from __future__ import annotations

import time
from typing import Any

from tests.model.world import State, moment

from workspace_operator.api import meta
from workspace_operator.api.states import Reading
from workspace_operator.kube.client import Object
from workspace_operator.lifecycle.facts import Serving
from workspace_operator.reconcile.activity import Activity
from workspace_operator.reconcile.serving import SERVES, WAITING, Renewal, report_on

_LATER = 0.001  # seconds; the real monotonic clock goes on while the model's time stands still


class Leases:
    """Stands in for the LeaseBook."""

    def __init__(self, state: State) -> None:
        self._s = state

    def serving(self, workspace: object) -> Serving:
        seen = self._s.view or ()
        return SERVES if self._s.serves and any(unit.reading is Reading.RUNNING for unit in seen) else WAITING

    def expires_in(self, workspace: object) -> None:
        return None

    def renewal(self, workspace: object) -> Renewal | None:
        s = self._s
        report = report_on(_lease(bool(s.heard)))
        if s.heard is None or s.counted is None or report is None:
            return None
        now = time.monotonic() + _LATER
        return Renewal(report, now, counted_since=now - (s.now - s.counted), worked_at=now if s.heard else None)


def activity(s: State) -> Activity:
    """As the operator knows it."""
    waiting, flying = s.told
    return Activity(int(flying), int(waiting), moment(s.delegated) if s.delegated is not None else None)


def lease(s: State) -> Object:
    """As the API server has it."""
    return _lease(s.working) if s.works else {"metadata": {"name": "workspace-w"}}


def _lease(works: bool) -> Object:
    annotations = {meta.ACTIVE_TASKS_ANNOTATION: str(int(works))}
    return {
        "metadata": {"name": "workspace-w", "annotations": annotations},
        "spec": {"renewTime": "2030-01-01T00:00:00.000000Z"},
    }


def sent(s: State) -> list[Object]:
    """The delegations to the workspace, as the API server has them."""
    found = []
    if s.waiting:
        found.append(delegation("waits", "w", claimed=False))
    if s.flying:
        found.append(delegation("flies", "w", claimed=True))
    return found


def delegation(name: str, to: str, *, claimed: bool) -> dict[str, Any]:
    """One that waits and may wake its target, or one that was sent to it."""
    accepted = {"type": "Accepted", "status": "True", "reason": "Permitted", "message": "Permitted."}
    return {
        "metadata": {
            "name": name,
            "namespace": "n",
            "uid": name,
            "finalizers": [meta.CLAIM_FINALIZER] if claimed else [],
        },
        "spec": {"from": {"name": "other"}, "to": {"name": to}, "message": {"text": "do"}},
        "status": {
            "phase": "Working" if claimed else "Queued",
            "conditions": [{**accepted, "lastTransitionTime": "2030-01-01T00:00:00Z", "observedGeneration": 1}],
        },
    }
