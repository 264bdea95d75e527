"""Where an answer goes: a preview into the status, a long one into a ConfigMap that the Delegation owns."""

from __future__ import annotations

import logging
from typing import Any

from workspace_operator.a2a.values import Answer
from workspace_operator.api import meta
from workspace_operator.api.delegation import ANSWER_KEY, KeyRef, ResultStatus, answer_name
from workspace_operator.api.workspace import ObjectMeta
from workspace_operator.kube.client import Conflict, KubeClient, KubeError, NotFound, path
from workspace_operator.lifecycle.delegation.report import cut, preview

log = logging.getLogger(__name__)

KEPT_BYTES = 900_000  # a ConfigMap holds 1 MiB in all (1,048,576 bytes of data)
_REFUSED = (400, 403, 409, 413, 422)


async def keep_answer(client: KubeClient, about: ObjectMeta, answer: Answer) -> ResultStatus:
    """The result as the status shows it. Never cut without saying so. Raises KubeError when the API may answer later.

    When the API server refuses to keep a long answer, for good, the preview alone is kept and said to be incomplete.
    """
    result = preview(answer.data, answer.media_type)
    if result.complete:
        return result
    text = cut(answer.data, KEPT_BYTES)
    name = answer_name(about.name)
    try:
        await _create(client, about, name, text)
    except KubeError as error:
        if error.status not in _REFUSED:
            raise
        log.warning("the answer of %s/%s is kept as a preview only: %s", about.namespace, about.name, error)
        return result
    whole = len(text.encode()) == len(answer.data)
    ref = KeyRef(name=name, key=ANSWER_KEY)
    return result.model_copy(update={"complete": whole, "config_map_key_ref": ref})


async def _create(client: KubeClient, about: ObjectMeta, name: str, text: str) -> None:
    owner = {"apiVersion": meta.API_VERSION, "kind": "Delegation", "name": about.name, "uid": about.uid}
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": about.namespace,
            "labels": {meta.MANAGED_BY_LABEL: meta.MANAGED_BY},
            "ownerReferences": [owner],
        },
        "data": {ANSWER_KEY: text},
        "immutable": True,
    }
    try:
        await client.create(path("v1/configmaps", about.namespace), body)
    except Conflict:
        if not await _is_ours(client, about, name):
            raise


async def _is_ours(client: KubeClient, about: ObjectMeta, name: str) -> bool:
    """A pass before this one has made it, and could not write the status any more."""
    try:
        found = await client.get(path("v1/configmaps", about.namespace, name))
    except NotFound:
        return False
    return any(owner.get("uid") == about.uid for owner in found["metadata"].get("ownerReferences", ()))
