"""Pydantic models as structural OpenAPI v3 schemas, the dialect that a CustomResourceDefinition accepts."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
_DROPPED = ("title", "additionalProperties", "exclusiveMinimum", "exclusiveMaximum")


def structural(model: type[BaseModel]) -> Schema:
    """The model's schema with references inlined and ``null`` alternatives removed."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(node: Schema, definitions: dict[str, Schema]) -> Schema:
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    node = _without_null(node)
    if "$ref" in node:
        return _convert(node, definitions)
    result = {key: value for key, value in node.items() if key not in _DROPPED and key != "$defs"}
    if result.get("type") == "object" and isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(node["additionalProperties"], definitions)
    if "properties" in node:
        result["properties"] = {name: _convert(sub, definitions) for name, sub in node["properties"].items()}
    if "items" in node:
        result["items"] = _convert(node["items"], definitions)
    if isinstance(result.get("default"), dict):
        result["default"] = {key: value for key, value in result["default"].items() if value is not None}
    if result.get("default") in (None, [], (), {}):
        # An empty default says nothing; an empty object would also materialise in every stored spec.
        result.pop("default", None)
    return result


def _without_null(node: Schema) -> Schema:
    """``anyOf: [X, null]`` is how pydantic writes an optional field; in a CRD that is X, not required."""
    alternatives = node.get("anyOf")
    if not alternatives or "x-kubernetes-int-or-string" in node:
        return node
    real = [item for item in alternatives if item.get("type") != "null"]
    if len(real) != 1:
        raise TypeError(f"a structural schema cannot say {alternatives}")
    outer = {key: value for key, value in node.items() if key != "anyOf"}
    return {**real[0], **outer}
