"""A GitOps tool's part in a test: applies what is declared, and says where what is stored differs from it."""

from __future__ import annotations

import json
from typing import Any

import yaml
from tests.support.fleet import Fleet, Object

_KINDS = "workspaces,delegations,serviceaccounts,secrets,leases,roles,rolebindings,configmaps"


class Pipeline:
    """Applies on the server's side under a tool's name. ``declared`` is what Git has."""

    def __init__(self, fleet: Fleet, manager: str) -> None:
        self._fleet = fleet
        self._options = ("--server-side", "--force-conflicts", f"--field-manager={manager}")
        self.declared: dict[tuple[str, str], Object] = {}

    def sync(self, *objects: Object) -> None:
        """Commit and apply."""
        self.declared |= {(each["kind"], each["metadata"]["name"]): each for each in objects}
        self._fleet.kubectl("apply", *self._options, "-f", "-", input=yaml.safe_dump_all(objects))

    def edit(self, kind: str, name: str, **spec: Any) -> None:
        """Commit and apply another spec; None takes a field away."""
        before = self.declared[kind, name]
        wish = {key: value for key, value in {**before["spec"], **spec}.items() if value is not None}
        self.sync({**before, "spec": wish})

    def drift(self) -> str:
        """What a tool would see and heal: by the server's answer to applying it all again, and field by field."""
        manifests = yaml.safe_dump_all(list(self.declared.values()))
        said = self._fleet.kubectl("diff", *self._options, "-f", "-", input=manifests, check=False)
        live = json.loads(self._fleet.kubectl("get", "-f", "-", "-o", "json", input=manifests))
        items = live.get("items", [live])
        found = {(each["kind"], each["metadata"]["name"]): each for each in items}
        return said + "".join(
            f"{key} is not as declared: {found.get(key)}\n"
            for key, each in self.declared.items()
            if not _holds(each["spec"], found.get(key, {}).get("spec"))
        )

    def live(self) -> list[Object]:
        """All that is declared, as it is stored, with who wrote what."""
        manifests = yaml.safe_dump_all(list(self.declared.values()))
        more = ("-o", "json", "--show-managed-fields")
        return list(json.loads(self._fleet.kubectl("get", "-f", "-", *more, input=manifests))["items"])

    def others(self) -> list[Object]:
        """What is in the namespace beside: made by the operator, and by Kubernetes itself."""
        items = json.loads(self._fleet.kubectl("get", _KINDS, "-o", "json"))["items"]
        return [each for each in items if (each["kind"], each["metadata"]["name"]) not in self.declared]


def _holds(wish: Any, actual: Any) -> bool:
    """Whether everything declared is there; what is not declared is not compared."""
    if isinstance(wish, dict):
        return isinstance(actual, dict) and all(_holds(value, actual.get(key)) for key, value in wish.items())
    if isinstance(wish, list):
        return isinstance(actual, list) and len(wish) == len(actual) and all(map(_holds, wish, actual))
    return bool(wish == actual)


def written(item: Object, manager: str) -> set[str]:
    """The fields of an object that others than ``manager`` wrote: ``spec``, ``status``, ``metadata.finalizers`` …"""
    found: set[str] = set()
    for entry in item["metadata"]["managedFields"]:
        if entry["manager"] != manager:
            fields = entry["fieldsV1"]
            found |= {name.removeprefix("f:") for name in fields if name != "f:metadata"}
            found |= {f"metadata.{name.removeprefix('f:')}" for name in fields.get("f:metadata", {}) if name != "."}
    return found
