"""Whose something on a backend is: the labels (or tags) of every create call, and how they are read back.

They are part of the create call, so that nothing of ours exists without an owner (I-13), and the same on every backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from workspace_operator.api import meta
from workspace_operator.backends.protocol import ProvisionRequest, WorkspaceRef

ROLE_INSTANCE: Final = "instance"
ROLE_DATA: Final = "data"
OWNER: Final = frozenset({meta.LABEL_CLUSTER, meta.LABEL_UID, meta.LABEL_NAMESPACE, meta.LABEL_NAME, meta.LABEL_CLASS})


def of(ref: WorkspaceRef, role: str) -> dict[str, str]:
    """Of everything that is a workspace's."""
    return {
        meta.MANAGED_BY_LABEL: meta.MANAGED_BY,
        meta.LABEL_CLUSTER: ref.cluster,
        meta.LABEL_UID: ref.uid,
        meta.LABEL_NAMESPACE: ref.namespace,
        meta.LABEL_NAME: ref.name,
        meta.LABEL_CLASS: ref.class_name,
        meta.LABEL_ROLE: role,
    }


def of_instance(ref: WorkspaceRef, incarnation: int, parameters: str, role: str = ROLE_INSTANCE) -> dict[str, str]:
    """Of an incarnation: all that a later operator needs to know of it; never a secret."""
    return {
        **of(ref, role),
        meta.LABEL_INCARNATION: str(incarnation),
        meta.LABEL_PARAMETERS: parameters,
    }


def requested(request: ProvisionRequest) -> dict[str, str]:
    """Of the incarnation that a request asks for."""
    return of_instance(request.ref, request.incarnation, request.parameters)


def owner(found: Mapping[str, str]) -> WorkspaceRef:
    """Whose it is; what a spoilt label said is empty."""
    return WorkspaceRef(
        cluster=found.get(meta.LABEL_CLUSTER, ""),
        uid=found.get(meta.LABEL_UID, ""),
        namespace=found.get(meta.LABEL_NAMESPACE, ""),
        name=found.get(meta.LABEL_NAME, ""),
        class_name=found.get(meta.LABEL_CLASS, ""),
    )


def incarnation(found: Mapping[str, str]) -> int:
    """Zero, older than any real one, for a spoilt label: such an instance is released, not hidden."""
    label = found.get(meta.LABEL_INCARNATION, "")
    return int(label) if label.isdecimal() else 0


def is_of(found: Mapping[str, str] | None, ref: WorkspaceRef) -> bool:
    """Whether something belongs to this workspace of this cluster."""
    seen = found or {}
    return seen.get(meta.LABEL_CLUSTER) == ref.cluster and seen.get(meta.LABEL_UID) == ref.uid
