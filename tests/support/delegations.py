"""Delegations of one namespace, in sentences."""

from __future__ import annotations

import json
from typing import Any

from tests.support.fleet import API_VERSION, Fleet, Object, until

TERMINAL = ("Completed", "Failed", "Cancelled")


def delegation(name: str, sender: str, receiver: str, text: str = "hello", **spec: Any) -> Object:
    """A Delegation manifest; ``message`` may replace the text."""
    wish = {"from": {"name": sender}, "to": {"name": receiver}, "message": {"text": text}, **spec}
    wish = {key: value for key, value in wish.items() if value is not None}
    return {"apiVersion": API_VERSION, "kind": "Delegation", "metadata": {"name": name}, "spec": wish}


class Tasks:
    """Speaks kubectl about the delegations of a fleet's namespace."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def give(self, name: str, sender: str, receiver: str, text: str = "hello", **spec: Any) -> None:
        self._fleet.apply(delegation(name, sender, receiver, text, **spec))

    def get(self, name: str) -> Object:
        return dict(json.loads(self._fleet.kubectl("get", "delegation", name, "-o", "json")))

    def all(self) -> list[Object]:
        return list(json.loads(self._fleet.kubectl("get", "delegations", "-o", "json"))["items"])

    def status(self, name: str) -> Object:
        return dict(self.get(name).get("status") or {})

    def phase(self, name: str) -> str | None:
        return self.status(name).get("phase")

    def condition(self, name: str, kind: str = "Finished") -> Object | None:
        return next((c for c in self.status(name).get("conditions", ()) if c["type"] == kind), None)

    def desire(self, name: str, state: str) -> None:
        patch = json.dumps({"spec": {"desiredState": state}})
        self._fleet.kubectl("patch", "delegation", name, "--type=merge", "-p", patch)

    def wait_phase(self, name: str, *phases: str, seconds: float = 60) -> Object:
        """Until it is in one of the phases; its status."""
        return dict(
            until(
                lambda: (status := self.status(name)).get("phase") in phases and status,
                seconds,
                lambda: f"{name}: {self.status(name)}",
            )
        )

    def wait_reason(self, name: str, reason: str, seconds: float = 60) -> Object:
        return dict(
            until(
                lambda: (c := self.condition(name)) is not None and c["reason"] == reason and c,
                seconds,
                lambda: f"{name}: {self.condition(name)}",
            )
        )

    def wait_over(self, *names: str, seconds: float = 60) -> None:
        """As a person waits."""
        targets = [f"delegation/{name}" for name in names] or ["delegation", "--all"]
        self._fleet.kubectl(
            "wait", "--for=condition=Finished", *targets, f"--timeout={seconds:.0f}s", timeout=seconds + 10
        )
