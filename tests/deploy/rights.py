"""What the operator's role grants, one right at a time, and what the API server was truly asked."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.helm import BASE, NAMESPACE, Object

USER = f"system:serviceaccount:{NAMESPACE}:workspace-operator"
_FILES, _ROLES = ("rbac.yaml", "rbac-pods.yaml"), ("workspace-operator", "workspace-operator-pods")
#: One line per right that was taken away: the right, its play, and what the API server said.
TABLE = pytest.StashKey[list[str]]()


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource; `name` where the rule names objects."""

    group: str
    resource: str
    verb: str
    name: str = ""

    def __str__(self) -> str:
        where = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {where}{f'/{self.name}' if self.name else ''}"


def roles() -> list[Object]:
    """The operator's ClusterRoles as in deploy/base: its own, and that of pods, which also stands alone elsewhere."""
    documents = [each for name in _FILES for each in yaml.safe_load_all((BASE / name).read_text())]
    found = [each for each in documents if each["kind"] == "ClusterRole" and each["metadata"]["name"] in _ROLES]
    assert len(found) == len(_ROLES)
    return found


def rights(of: Object) -> list[Right]:
    """Every right of a role; one that two rules grant is there twice."""
    return [right for rule in of["rules"] for right in _explode(rule)]


def _explode(rule: Object) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for name in rule.get("resourceNames", [""]):
                yield from (Right(group, resource, verb, name) for verb in rule["verbs"])


def without(of: Object, gone: Right) -> Object:
    """A copy of the role that lacks one right and nothing else, but for a wider one that contains it."""
    reduced = copy.deepcopy(of)
    reduced["rules"] = [_rule(right) for right in rights(of) if right not in (gone, replace(gone, name=""))]
    return reduced


def _rule(right: Right) -> Object:
    rule: Object = {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
    return {**rule, "resourceNames": [right.name]} if right.name else rule


@dataclass(frozen=True)
class Request:
    """One request of the operator, as the API server noted it."""

    right: Right
    code: int
    message: str

    def uses(self, right: Right) -> bool:
        """Whether this right is what allowed it, or its lack what refused it."""
        mine = self.right
        same = (mine.group, mine.resource, mine.verb) == (right.group, right.resource, right.verb)
        return same and right.name in ("", mine.name)

    @property
    def refused(self) -> bool:
        return self.code == 403


class Audit:
    """Reads the API server's audit log, from a place in it onwards."""

    def __init__(self, log: Path) -> None:
        self._log, self._offset = log, 0

    def mark(self) -> None:
        """What comes from now on counts."""
        self._offset = self._log.stat().st_size if self._log.exists() else 0

    def requests(self) -> list[Request]:
        if not self._log.exists():
            return []
        with self._log.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")[:-1]  # the last one may be half written
        return [found for line in lines if (found := _request(json.loads(line))) is not None]


def _request(event: dict[str, Any]) -> Request | None:
    target, status = event.get("objectRef"), event.get("responseStatus") or {}
    if target is None:
        return None
    resource = "/".join(part for part in (target.get("resource"), target.get("subresource")) if part)
    right = Right(target.get("apiGroup", ""), resource, event["verb"], target.get("name", ""))
    return Request(right, int(status.get("code", 0)), status.get("message", ""))


def used(right: Right, requests: Iterable[Request]) -> bool:
    return any(request.uses(right) and not request.refused for request in requests)


def refusal(right: Right, requests: Iterable[Request]) -> str:
    """The API server's sentence for the lack of this right, if it said one.

    Also that it may not be granted on: whoever writes a Role must hold what is in it.
    """
    for request in requests:
        if request.refused and (request.uses(right) or _not_held(right, request.message)):
            return request.message
    return ""


def _not_held(right: Right, message: str) -> bool:
    _, _, missing = message.partition("permissions not currently held:")
    group = f'APIGroups:["{right.group}"]'
    return group in missing and f'Resources:["{right.resource}"]' in missing and f'"{right.verb}"' in missing
