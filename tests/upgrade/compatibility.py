"""When one version of a CRD may follow another: whatever the older one let in, the newer one lets in and keeps.

The API server itself allows any change of a schema. Objects that it stored before stay as they are and are refused, or
cut, when they are written next ("Specifying multiple versions" and "Pruning", Kubernetes documentation): that is what
may not happen between two releases of the same API version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_UPPER = ("maxLength", "maxItems", "maxProperties", "maximum")
_LOWER = ("minLength", "minItems", "minProperties", "minimum")
_SAME = ("type", "format", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type")
_MAY_BE_DROPPED = ("pattern", "nullable")


def broken(old: Schema, new: Schema) -> list[str]:
    """What the newer CRD takes away from users of the older one, a sentence each."""
    return [*_names(old["spec"], new["spec"]), *_versions(old["spec"], new["spec"])]


def _names(old: Schema, new: Schema) -> Iterator[str]:
    for key in ("group", "scope", "names"):
        if old[key] != new[key]:
            yield f"{key} changed from {old[key]} to {new[key]}"


def _versions(old: Schema, new: Schema) -> Iterator[str]:
    present = {version["name"]: version for version in new["versions"]}
    for version in old["versions"]:
        name = version["name"]
        after = present.get(name)
        if after is None or not after["served"]:
            yield f"{name} is no longer served"
            continue
        columns = {column["name"] for column in after.get("additionalPrinterColumns", ())}
        for column in version.get("additionalPrinterColumns", ()):
            if column["name"] not in columns:
                yield f"{name}: the column {column['name']} is gone"
        yield from narrower(name, version["schema"]["openAPIV3Schema"], after["schema"]["openAPIV3Schema"])


def narrower(at: str, old: Schema, new: Schema) -> Iterator[str]:
    """Where the newer schema refuses, drops or reads otherwise what the older one let in."""
    yield from _scalars(at, old, new)
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        if "default" not in new.get("properties", {}).get(name, {}):
            yield f"{at}.{name} is required now"
    known = {rule["rule"] for rule in old.get("x-kubernetes-validations", ())}
    for rule in new.get("x-kubernetes-validations", ()):
        if rule["rule"] not in known:
            yield f"{at}: a new rule: {rule['rule']}"
    for name, before in old.get("properties", {}).items():
        after = new.get("properties", {}).get(name)
        if after is None:
            yield f"{at}.{name} is gone"
        else:
            yield from narrower(f"{at}.{name}", before, after)
    for key, sign in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(old.get(key), Mapping):
            yield from narrower(at + sign, old[key], new.get(key) or {})


def _scalars(at: str, old: Schema, new: Schema) -> Iterator[str]:
    for key in _SAME:
        if old.get(key) != new.get(key):
            yield f"{at}: {key} changed from {old.get(key)} to {new.get(key)}"
    for key in _MAY_BE_DROPPED:
        if new.get(key, old.get(key)) != old.get(key):
            yield f"{at}: {key} changed from {old.get(key)} to {new[key]}"
    if "default" in old and _meant(old["default"]) != _meant(new.get("default")):
        yield f"{at}: the default changed from {old['default']} to {new.get('default')}"
    if "enum" in new and not set(new["enum"]) >= set(old.get("enum", [object()])):
        yield f"{at}: fewer values: {old.get('enum')} became {new['enum']}"
    for keys, tighter in ((_UPPER, lambda a, b: b < a), (_LOWER, lambda a, b: b > a)):
        for key in keys:
            if key in new and (key not in old or tighter(old[key], new[key])):
                yield f"{at}: {key} is tighter: {old.get(key)} became {new[key]}"


def _meant(default: Any) -> Any:
    """A null in a default is nothing: the API server prunes it."""
    if isinstance(default, Mapping):
        return {key: _meant(value) for key, value in default.items() if value is not None}
    return default
