"""The base of all resource models, and the field types with their schema and CEL rules."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic.alias_generators import to_camel

from workspace_operator.api.quantity import DURATION_PATTERN


class Model(BaseModel):
    """A frozen value whose fields are camelCase on the wire.

    Unknown fields are ignored when reading, so that an object stored by a newer release still loads; writing them is
    refused by the API server, whose schema comes from the same model.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


def rule(expression: str, message: str, **more: str | bool) -> JsonValue:
    """One CEL rule (``x-kubernetes-validations``): ``message`` tells the user what to write instead."""
    return {"rule": expression, "message": message, **more}


def rules(*items: JsonValue, **extra: JsonValue) -> dict[str, JsonValue]:
    """Schema extras that carry CEL rules, for ``Field(json_schema_extra=...)`` or ``model_config``."""
    return {"x-kubernetes-validations": list(items), **extra}


def _quantity(what: str, least: str, most: str, example: str) -> dict[str, Any]:
    inside = (
        f"isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('{least}')) >= 0"
        f" && quantity(string(self)).compareTo(quantity('{most}')) <= 0"
    )
    message = f"{what} must be a quantity from {least} to {most}, for example {example}"
    return {
        "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 32,
        "x-kubernetes-validations": [rule(inside, message)],
    }


Cpu = Annotated[str | int, WithJsonSchema(_quantity("cpu", "10m", "1024", "500m"))]
Memory = Annotated[str | int, WithJsonSchema(_quantity("memory", "6Mi", "24Ti", "512Mi"))]  # 6 MiB: Docker's minimum
StorageSize = Annotated[str | int, WithJsonSchema(_quantity("a volume's size", "1Mi", "64Ti", "20Gi"))]


def duration_field(least: str, most: str) -> Any:
    """The type of a duration string between two bounds, both inclusive."""
    message = f"write a duration from {least} to {most}, for example 90s, 5m or 1h30m"
    bounds = rule(f"duration(self) >= duration('{least}') && duration(self) <= duration('{most}')", message)
    return Annotated[
        str, Field(pattern=DURATION_PATTERN, max_length=32, json_schema_extra={"x-kubernetes-validations": [bounds]})
    ]


class NamespacedRef(Model):
    """A reference to a Secret by namespace and name."""

    namespace: str = Field(description="Namespace of the Secret.", min_length=1, max_length=63)
    name: str = Field(description="Name of the Secret.", min_length=1, max_length=253)


class Condition(Model):
    """One aspect of the object's state, in the form that kubectl wait and GitOps tools read."""

    type: str = Field(description="Name of the aspect.", max_length=316)
    status: str = Field(
        description="True, False (a real problem) or Unknown (in progress or unreadable).",
        json_schema_extra={"enum": ["True", "False", "Unknown"]},
    )
    reason: str = Field(description="CamelCase constant that says why.", max_length=1024)
    message: str = Field(default="", description="A sentence a person can act on.", max_length=32768)
    observed_generation: int = Field(description="Generation of the spec that this condition speaks of.")
    last_transition_time: str = Field(
        description="When status last changed (RFC 3339, UTC).", json_schema_extra={"format": "date-time"}
    )


CONDITIONS_SCHEMA: dict[str, JsonValue] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
