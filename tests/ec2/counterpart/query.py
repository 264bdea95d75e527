"""One request as the proxy sees it, and the EC2 Query protocol's way of writing lists."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

CREDENTIAL = re.compile(r"Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request")
HUSHED = ("UserData", "SecretAccessKey", "SessionToken", "Password")


@dataclass
class Request:
    """``params`` is flat, as on the wire: ``Filter.1.Value.2``. For JSON services it holds the top level only."""

    action: str
    service: str
    region: str
    access_key: str
    params: dict[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    path: str = "/"

    def get(self, name: str, default: str = "") -> str:
        return self.params.get(name, default)

    def flag(self, name: str) -> bool:
        return self.get(name).lower() == "true"

    def listed(self, name: str) -> list[str]:
        """``InstanceId.1``, ``InstanceId.2`` … in their order."""
        found = [(int(k[len(name) + 1 :]), v) for k, v in self.params.items() if re.fullmatch(rf"{name}\.\d+", k)]
        return [value for _, value in sorted(found)]

    def structures(self, prefix: str) -> list[dict[str, str]]:
        """``Tag.1.Key`` … as one flat dict for each number."""
        made: dict[int, dict[str, str]] = {}
        for key, value in self.params.items():
            if found := re.fullmatch(rf"{re.escape(prefix)}\.(\d+)\.(.+)", key):
                made.setdefault(int(found[1]), {})[found[2]] = value
        return [made[number] for number in sorted(made)]

    def filters(self) -> dict[str, list[str]]:
        return {
            each["Name"]: [value for key, value in sorted(each.items()) if key.startswith("Value.")]
            for each in self.structures("Filter")
        }

    def tags_for(self, resource: str) -> dict[str, str]:
        """Tags that the create call gives to a type of resource."""
        for spec in self.structures("TagSpecification"):
            if spec.get("ResourceType") == resource:
                return {
                    value: spec.get(f"{key[:-4]}.Value", "")
                    for key, value in spec.items()
                    if re.fullmatch(r"Tag\.\d+\.Key", key)
                }
        return {}

    def summary(self) -> dict[str, str]:
        """Parameters fit to be shown: no secrets, no version."""
        return {
            key: "…" if key.endswith(HUSHED) else value
            for key, value in self.params.items()
            if key not in ("Action", "Version")
        }


def read(headers: Mapping[str, str], path: str, body: bytes, region: str) -> Request:
    """Understand a request of any of the services that the operator uses."""
    scope = CREDENTIAL.search(headers.get("Authorization", ""))
    key, _, where, service = scope.groups() if scope else ("", "", region, "ec2")
    if target := headers.get("X-Amz-Target"):
        params = {k: str(v) for k, v in json.loads(body or b"{}").items()}
        return Request(target.rpartition(".")[2], service, where, key, params, headers, body, path)
    query = path.partition("?")[2]
    params = dict(parse_qsl(body.decode("utf-8", "replace") or query, keep_blank_values=True))
    return Request(params.get("Action", ""), service, where, key, params, headers, body, path)
