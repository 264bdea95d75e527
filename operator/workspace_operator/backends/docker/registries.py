"""Registry credentials out of a pull Secret. Used inside backends/docker only."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from docker.auth import resolve_repository_name
from docker.errors import InvalidRepository
from docker.utils import parse_repository_tag

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import BadRequest

KEY: Final = ".dockerconfigjson"


def credentials(secret: Mapping[str, bytes], image: str, secret_name: str) -> Mapping[str, str]:
    """The SDK's auth_config for this image's registry and for no other; empty when the Secret has none."""
    try:
        registry, _ = resolve_repository_name(parse_repository_tag(image)[0])
    except InvalidRepository as exc:
        raise BadRequest(
            Reason.IMAGE_NOT_FOUND, f"Image {image} is not a valid reference; write it as registry/name:tag."
        ) from exc
    for host, entry in _entries(secret, secret_name).items():
        if _normal(host) == _normal(registry):
            return {**_user(entry, secret_name), "serveraddress": registry}
    return {}


def check(secret: Mapping[str, bytes], secret_name: str) -> None:
    """Raise BadRequest when the Secret cannot be used."""
    for entry in _entries(secret, secret_name).values():
        _user(entry, secret_name)


def _entries(secret: Mapping[str, bytes], secret_name: str) -> Mapping[str, Any]:
    try:
        entries = json.loads(secret[KEY])["auths"]
        return {str(host): dict(entry) for host, entry in entries.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        # Not "from": the exception would carry a piece of the secret.
        raise _unusable(secret_name) from None


def _user(entry: Mapping[str, Any], secret_name: str) -> dict[str, str]:
    if entry.get("identitytoken"):
        return {"identitytoken": str(entry["identitytoken"])}
    try:
        name, password = entry.get("username"), entry.get("password")
        if name is None or password is None:
            name, password = base64.b64decode(entry["auth"]).decode().split(":", 1)
        return {"username": str(name), "password": str(password)}
    except (KeyError, ValueError, TypeError, binascii.Error):
        raise _unusable(secret_name) from None


def _unusable(secret_name: str) -> BadRequest:
    return BadRequest(
        Reason.MISCONFIGURED,
        f"docker.imagePullSecretRef: Secret {secret_name} has no usable key {KEY};"
        " make it of type kubernetes.io/dockerconfigjson.",
    )


def _normal(registry: str) -> str:
    host = registry.split("://", 1)[-1].split("/", 1)[0].lower()
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host
