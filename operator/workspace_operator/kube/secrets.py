"""Secrets that a class names: what its backend logs in with."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import BadRequest
from workspace_operator.kube.client import KubeClient, KubeError, NotFound, path


async def read_secret(client: KubeClient, namespace: str, name: str) -> Mapping[str, bytes]:
    """The decoded keys of a Secret. Raises BadRequest when it does not exist, KubeError when it cannot be read."""
    what = f"Secret {name!r} in namespace {namespace!r}, which the class needs to reach its backend"
    try:
        found = await client.get(path("v1/secrets", namespace, name))
    except NotFound as error:
        raise BadRequest(Reason.REFERENCE_NOT_FOUND, f"{what}, does not exist; create it.") from error
    except KubeError as error:
        if error.status != 403:
            raise
        raise KubeError(error.status, f"The right to get {what}, is missing.") from error
    return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
