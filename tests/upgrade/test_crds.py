"""CRDs of one API version: what the release before let in, this one lets in and keeps. No server is asked."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.operator import ROOT
from tests.upgrade.compatibility import broken

RELEASED = Path(__file__).parent / "released"
CRDS = sorted(path.name for path in RELEASED.glob("*.workspace-operator.dev.yaml"))

#: What is narrower all the same, and why nobody loses anything by it. Goes with the next release.
DECIDED = {
    "v1alpha1: a new rule: oldSelf.hasValue() || !self.metadata.name.contains('.')": "asked at creation only",
    "v1alpha1.spec: a new rule: [has(self.docker), has(self.ec2), has(self.kubernetes), has(self.process)]"
    ".filter(set, set).size() == 1": "one more backend to choose; those of before count as they did",
    "v1alpha1.spec: a new rule: has(self.docker) == has(oldSelf.docker) && has(self.ec2) == has(oldSelf.ec2)"
    " && has(self.kubernetes) == has(oldSelf.kubernetes) && has(self.process) == has(oldSelf.process)": "the same",
    "v1alpha1.spec.storage: a new rule: has(self.size) == has(oldSelf.size) && (!has(self.size)"
    " || isQuantity(string(self.size))"
    " && quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) == 0)": "about a new field",
}


def load(file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text()))


def test_no_crd_is_gone() -> None:
    """A CRD that is deleted takes its objects with it."""
    assert CRDS
    assert {path.name for path in (ROOT / "crds").glob("*.workspace-operator.dev.yaml")} >= set(CRDS)


@pytest.mark.parametrize("name", CRDS)
def test_what_was_let_in_still_is(name: str) -> None:
    found = broken(load(RELEASED / name), load(ROOT / "crds" / name))
    assert [line for line in found if line not in DECIDED] == []


def test_a_decision_is_about_something() -> None:
    found = {line for name in CRDS for line in broken(load(RELEASED / name), load(ROOT / "crds" / name))}
    assert set(DECIDED) <= found


def _workspace_schema(crd: dict[str, Any]) -> dict[str, Any]:
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return dict(spec)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["properties"].pop("image"), "spec.image is gone"),
        (lambda s: s["required"].append("command"), "spec.command is required now"),
        (lambda s: s["properties"]["desiredState"]["enum"].remove("Paused"), "fewer values"),
        (lambda s: s["properties"]["desiredState"].update(default="Stopped"), "the default changed"),
        (lambda s: s["properties"]["image"].update(maxLength=9), "maxLength is tighter"),
        (lambda s: s["properties"]["image"].update(pattern="x"), "pattern changed"),
        (lambda s: s["properties"]["image"].update(type="integer"), "type changed"),
        (lambda s: s["x-kubernetes-validations"].append({"rule": "false"}), "a new rule: false"),
    ],
)
def test_each_way_to_break_a_user_is_found(change: Any, said: str) -> None:
    """The rule is worth something only when it sees what it is there for."""
    old = load(ROOT / "crds" / "workspaces.workspace-operator.dev.yaml")
    new = copy.deepcopy(old)
    schema = _workspace_schema(new)
    schema.setdefault("x-kubernetes-validations", [])
    new["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = schema
    change(schema)
    assert any(said in line for line in broken(old, new))
    assert broken(old, old) == []


def test_what_may_change_may() -> None:
    """More room, a new optional field, a rule less, another description."""
    old = load(ROOT / "crds" / "workspaces.workspace-operator.dev.yaml")
    new = copy.deepcopy(old)
    schema = _workspace_schema(new)
    schema["properties"]["image"]["maxLength"] *= 2
    schema["properties"]["image"]["description"] = "Another one."
    schema["properties"]["fresh"] = {"type": "string"}
    schema["properties"]["desiredState"]["enum"].append("Hibernated")
    schema.pop("x-kubernetes-validations", None)
    assert broken(old, new) == []
