"""The published schema: generated, small, and teaching."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from workspace_operator.api import crds, meta, quantity
from workspace_operator.api.workspace import parse

ROOT = Path(__file__).parents[2]
LIMIT = 262_144  # of all annotations; kubectl's client-side apply stores the whole object in one


@pytest.fixture(params=crds.KINDS, ids=lambda kind: kind.plural)
def kind(request: pytest.FixtureRequest) -> crds.Kind:
    return request.param  # type: ignore[no-any-return]


def schema(kind: crds.Kind) -> dict[str, Any]:
    version = crds.definition(kind)["spec"]["versions"][0]
    return version["schema"]["openAPIV3Schema"]  # type: ignore[no-any-return]


def fields(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field at any depth, with its path."""
    for name, field in node.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
    if "items" in node:
        yield from fields(node["items"], f"{path}[]")


def test_what_is_committed_is_what_the_code_says() -> None:
    """I-28. When this fails: make generate."""
    committed = {file.name: file.read_text() for file in (ROOT / "crds").glob("*.yaml")}
    assert committed == crds.render()


def test_client_side_apply_has_room_to_spare(kind: crds.Kind) -> None:
    """I-88."""
    assert len(crds.render()[kind.file_name].encode()) < LIMIT / 4


def test_every_field_is_explained(kind: crds.Kind) -> None:
    silent = [
        path
        for path, field in fields(schema(kind))
        if not field.get("description") and path not in (".apiVersion", ".kind")
    ]
    assert not silent


def test_no_default_is_null_and_no_leftover_of_pydantic_is_published(kind: crds.Kind) -> None:
    text = yaml.safe_dump(crds.definition(kind))
    assert "default: null" not in text
    for word in ("$ref", "$defs", "anyOf:\n- $ref", "additionalProperties: false"):
        assert word not in text
    for path, field in fields(schema(kind)):
        assert "type" in field or "x-kubernetes-int-or-string" in field or "$ref" in field, path


def test_every_rule_says_what_to_write_instead(kind: crds.Kind) -> None:
    rules = [
        rule
        for _, field in [("", schema(kind)), *fields(schema(kind))]
        for rule in field.get("x-kubernetes-validations", ())
    ]
    assert rules
    assert not [rule for rule in rules if len(rule.get("message", "")) < 15]


def test_strings_and_lists_are_bounded_so_that_rules_have_a_price(kind: crds.Kind) -> None:
    unbounded = [
        path
        for path, field in fields(schema(kind)["properties"]["spec"], ".spec")
        if (field.get("type") == "array" and "maxItems" not in field)
        or (field.get("type") == "string" and not {"maxLength", "enum", "format"} & field.keys())
    ]
    assert not unbounded


def test_status_is_a_subresource_and_columns_show_what_is(kind: crds.Kind) -> None:
    version = crds.definition(kind)["spec"]["versions"][0]
    assert version["subresources"] == {"status": {}}
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    assert {"Ready", "Phase"} & set(columns)


def test_reserved_names_are_refused_by_the_schema() -> None:
    """I-55."""
    env = next(field for path, field in fields(schema(crds.KINDS[0])) if path == ".spec.env")
    rule = env["items"]["x-kubernetes-validations"][0]["rule"]
    assert all(prefix in rule for prefix in meta.RESERVED_ENV_PREFIXES)


def test_an_object_of_a_newer_release_still_loads() -> None:
    body = {"metadata": {"name": "w", "uid": "u", "new": 1}, "spec": {"image": "a", "invented": {"later": True}}}
    assert parse(body).spec.image == "a"


@pytest.mark.parametrize(("text", "cores"), [("250m", 0.25), (2, 2.0), ("1.5", 1.5)])
def test_cpu(text: str | int, cores: float) -> None:
    assert quantity.cpu(text) == cores


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("500ms", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert quantity.duration(text).total_seconds() == seconds
