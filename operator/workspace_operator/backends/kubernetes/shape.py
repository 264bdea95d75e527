"""What a pod of ours looks like: names, labels and the create call, as pure functions. Used inside backends/kubernetes
only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from workspace_operator.api import meta
from workspace_operator.api.quantity import duration
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import IdentityMode
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends import labels
from workspace_operator.backends.kubernetes.place import Place
from workspace_operator.backends.protocol import ProvisionRequest, WorkspaceRef
from workspace_operator.errors import BackendError
from workspace_operator.kube.client import Object
from workspace_operator.kube.owned import account_name

ROLE_SERVICE: Final = "service"
CONTAINER: Final = "workspace"
GATE: Final = f"{meta.GROUP}/start"
DELIVERED: Final = f"{meta.GROUP}/delivered"  # annotation: a change of the pod makes the kubelet look at its Secret
_ENVIRONMENT, _FILE = "env.", "file."  # what a key of the Secret is for
_TMP: Final = "/tmp"  # noqa: S108 - a path inside the container


def pod_name(uid: str, incarnation: int) -> str:
    """A function of the intent, so that asking twice cannot make two (I-05, I-06)."""
    return f"wsp-{uid}-{incarnation}"


def claim_name(uid: str) -> str:
    """The data volume outlives incarnations."""
    return f"wsp-{uid}-data"


def selector(**values: str) -> str:
    """Selects our pods of a cluster, and of a class or a workspace of it."""
    keys = {"cluster": meta.LABEL_CLUSTER, "class_name": meta.LABEL_CLASS, "uid": meta.LABEL_UID}
    wanted = {keys[key]: value for key, value in values.items()}
    return ",".join(f"{key}={value}" for key, value in {meta.LABEL_ROLE: labels.ROLE_INSTANCE, **wanted}.items())


def is_of(found: Object, ref: WorkspaceRef) -> bool:
    """Whether an object belongs to this workspace of this cluster."""
    return labels.is_of(found["metadata"].get("labels"), ref)


def refuse_foreign(found: Object, kind: str, ref: WorkspaceRef) -> None:
    """Nothing is adopted or removed by its name alone (I-11, I-15)."""
    if not is_of(found, ref):
        raise BackendError(
            Reason.PROVISION_FAILED,
            f"A {kind} named {found['metadata']['name']} exists in namespace {found['metadata'].get('namespace')} and"
            " does not carry this workspace's labels; it is left alone. Rename or remove it.",
        )


def seconds(grace: timedelta) -> int:
    """A grace period as a pod has it. Never 0: that would remove the object and not what it stands for."""
    return max(1, math.ceil(grace.total_seconds()))


def secret_data(environment: Mapping[str, str], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The content of the Secret beside a pod."""
    hidden = {f"{_ENVIRONMENT}{name}": value.encode() for name, value in environment.items() if not _is_ours(name)}
    return hidden | {f"{_FILE}{name}": content for name, content in files.items()}


def pod(request: ProvisionRequest, spec: WorkspaceClassSpec, place: Place) -> Object:
    """The body of the create call; it stays behind its gate."""
    block = spec.kubernetes
    assert block is not None
    has_account = place.at_home and spec.identity.mode is IdentityMode.TOKEN
    user = block.run_as_user
    content: Object = {
        "restartPolicy": "Never",  # the operator restarts, nobody else
        "schedulingGates": [{"name": GATE}],
        "automountServiceAccountToken": False,
        "serviceAccountName": account_name(request.ref.name) if has_account else "default",
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": seconds(duration(spec.stop_grace_period)),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",  # a large volume is not walked at each start
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(request, spec)],
        "volumes": _volumes(request, spec, has_account=has_account),
        "nodeSelector": dict(block.node_selector),
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in block.tolerations],
        "imagePullSecrets": [{"name": name} for name in block.image_pull_secrets],
        "runtimeClassName": block.runtime_class_name,
        "priorityClassName": block.priority_class_name,
    }
    metadata = {
        "name": pod_name(request.ref.uid, request.incarnation),
        "namespace": place.namespace(request.ref),
        "labels": labels.requested(request),
        "ownerReferences": place.owners(request.ref),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {key: value for key, value in content.items() if value not in (None, [], {})},
    }


def _container(request: ProvisionRequest, spec: WorkspaceClassSpec) -> Object:
    template, block = request.template, spec.kubernetes
    assert block is not None
    limits: Object = {}
    if template.cpu is not None:
        limits["cpu"] = f"{math.ceil(template.cpu * 1000)}m"
    if template.memory is not None:
        limits["memory"] = str(template.memory)
    content: Object = {
        "name": CONTAINER,
        "image": template.image,
        "imagePullPolicy": block.image_pull_policy.value,
        "command": [_literal(word) for word in template.command or ()],
        "args": [_literal(word) for word in template.args or ()],
        "env": _env(request),
        "ports": [{"name": "agent", "containerPort": template.port}] if template.port is not None else [],
        "resources": {"limits": limits, "requests": limits} if limits else {},
        "volumeMounts": _mounts(request, spec),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": block.read_only_root_filesystem,
        },
    }
    return {key: value for key, value in content.items() if value not in (None, [], {})}


def _env(request: ProvisionRequest) -> list[Object]:
    """The operator's own variables hold no secret and are shown; any other may, and comes out of the Secret."""
    secret = pod_name(request.ref.uid, request.incarnation)
    entries: list[Object] = []
    for name, value in request.environment.items():
        if _is_ours(name):
            entries.append({"name": name, "value": _literal(value)})
        else:
            reference = {"name": secret, "key": f"{_ENVIRONMENT}{name}"}
            entries.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return entries


def _literal(text: str) -> str:
    """The kubelet expands $(NAME) and takes $$ for a dollar sign; other backends do neither."""
    return text.replace("$", "$$")


def _is_ours(variable: str) -> bool:
    return variable.startswith(meta.RESERVED_ENV_PREFIXES)


def _mounts(request: ProvisionRequest, spec: WorkspaceClassSpec) -> list[Object]:
    path, block = request.template.mount_path, spec.kubernetes
    assert block is not None
    mounts: list[Object] = []
    if path is not None:
        mounts.append({"name": "data", "mountPath": path})
    if block.read_only_root_filesystem and path != _TMP:
        mounts.append({"name": "tmp", "mountPath": _TMP})
    if request.files:
        mounts.append({"name": "identity", "mountPath": meta.IDENTITY_DIRECTORY, "readOnly": True})
    return mounts


def _volumes(request: ProvisionRequest, spec: WorkspaceClassSpec, *, has_account: bool) -> list[Object]:
    volumes: list[Object] = []
    for mount in _mounts(request, spec):
        source: Object
        if mount["name"] == "data":
            source = {"persistentVolumeClaim": {"claimName": claim_name(request.ref.uid)}}
        elif mount["name"] == "tmp":
            source = {"emptyDir": {}}
        else:
            source = {"projected": _identity(request, spec, has_account=has_account)}
        volumes.append({"name": mount["name"], **source})
    return volumes


def _identity(request: ProvisionRequest, spec: WorkspaceClassSpec, *, has_account: bool) -> Object:
    """The files that were handed over; and where none of them is a token, one that the kubelet gets and renews."""
    secret = pod_name(request.ref.uid, request.incarnation)
    items = [{"key": f"{_FILE}{name}", "path": name} for name in sorted(request.files)]
    sources: list[Object] = [{"secret": {"name": secret, "items": items}}]
    if has_account and "token" not in request.files:
        lifetime = int(duration(spec.identity.token_lifetime).total_seconds())
        sources.append({"serviceAccountToken": {"path": "token", "expirationSeconds": lifetime}})
    return {"sources": sources, "defaultMode": 0o440}
