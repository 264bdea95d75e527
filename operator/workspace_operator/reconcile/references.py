"""The environment of a workspace: Secrets and ConfigMaps by reference, literal values, and the operator's own names."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping

from workspace_operator.api import meta
from workspace_operator.api.reasons import Reason
from workspace_operator.api.workspace import EnvFromSource, Workspace
from workspace_operator.errors import BadRequest
from workspace_operator.kube.client import KubeClient, NotFound, path

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


async def environment(client: KubeClient, workspace: Workspace, incarnation: int) -> dict[str, str]:
    """All variables of one start. Either every reference resolves or nothing starts (I-54).

    Raises BadRequest naming the reference to fix, or KubeError when the API cannot be asked.
    """
    result: dict[str, str] = {}
    for source in workspace.spec.env_from:
        result.update(_checked(source, await _read(client, workspace.metadata.namespace, source)))
    result.update((variable.name, variable.value) for variable in workspace.spec.env)
    result.update(reserved(workspace, incarnation))
    return result


def reserved(workspace: Workspace, incarnation: int) -> dict[str, str]:
    """The operator's own variables (deploy/agent/CONTRACT.md). None of them is secret."""
    values = {
        "WORKSPACE_NAME": workspace.metadata.name,
        "WORKSPACE_NAMESPACE": workspace.metadata.namespace,
        "WORKSPACE_UID": workspace.metadata.uid,
        "WORKSPACE_INCARNATION": str(incarnation),
        "WORKSPACE_IDENTITY": meta.IDENTITY_DIRECTORY,
    }
    if workspace.spec.agent is not None:
        values["WORKSPACE_PORT"] = str(workspace.spec.agent.port)
    if workspace.spec.storage is not None:
        values["WORKSPACE_DATA"] = workspace.spec.storage.mount_path
    return values


async def _read(client: KubeClient, namespace: str, source: EnvFromSource) -> dict[str, str]:
    ref, kind = source.secret_ref, "Secret"
    if ref is None:
        ref, kind = source.config_map_ref, "ConfigMap"
    if ref is None:
        return {}
    plural = "v1/secrets" if kind == "Secret" else "v1/configmaps"
    try:
        found = await client.get(path(plural, namespace, ref.name))
    except NotFound as error:
        text = f"{kind} {ref.name!r} in spec.envFrom does not exist in namespace {namespace!r}; create it."
        raise BadRequest(Reason.REFERENCE_NOT_FOUND, text) from error
    data: Mapping[str, str] = found.get("data") or {}
    if kind == "ConfigMap":
        return dict(data)
    return {key: _text(value, key, ref.name) for key, value in data.items()}


def _text(encoded: str, key: str, secret: str) -> str:
    try:
        return base64.b64decode(encoded).decode()
    except ValueError:
        # "from None": the exception's text would quote the secret's bytes
        text = f"Key {key!r} of Secret {secret!r} is not text and cannot be an environment variable."
        raise BadRequest(Reason.REFERENCE_NOT_FOUND, text) from None


def _checked(source: EnvFromSource, values: dict[str, str]) -> Iterable[tuple[str, str]]:
    ref = source.secret_ref or source.config_map_ref
    for key, value in values.items():
        name = source.prefix + key
        if name.startswith(meta.RESERVED_ENV_PREFIXES):  # I-55
            text = (
                f"Key {key!r} of {ref.name if ref else ''!r} would set the reserved variable {name!r}; rename the key."
            )
            raise BadRequest(Reason.RESERVED_NAME, text)
        if not _ENV_NAME.fullmatch(name):
            text = f"Key {key!r} of {ref.name if ref else ''!r} is no variable name; rename it or set a prefix."
            raise BadRequest(Reason.RESERVED_NAME, text)
        yield name, value
