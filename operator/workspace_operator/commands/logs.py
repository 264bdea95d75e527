"""``workspace-operator logs``: the newest instance's output, read from the backend at the moment of asking.

Nothing of it is stored by the operator and nothing goes through it: the command opens the class's backend by the same
door, from the machine and with the rights of whoever runs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial

from kubernetes.aio import config as kube_config
from pydantic import ValidationError

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability, ConditionType
from workspace_operator.api.workspace import Workspace
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.backends.door import Create, Door
from workspace_operator.backends.door import drivers as drivers_of
from workspace_operator.backends.protocol import WorkspaceRef
from workspace_operator.commands.session import CommandError
from workspace_operator.errors import Failure, OperatorError
from workspace_operator.kube.client import (
    KubeClient,
    KubeError,
    NotFound,
    read_cluster_id,
    workspace_classes,
    workspaces,
)
from workspace_operator.kube.secrets import read_secret
from workspace_operator.reconcile.store import Store

_WHERE = {
    "process": "A process class keeps its output in files of the operator's own machine: run this command there, as"
    " the operator's user.",
    "docker": "The engine is asked from this machine: run this command where the class's docker.host leads to the"
    " same engine as for the operator.",
}
_DELAYED = {"ec2": "EC2 shows console output with delay; ask again later."}


async def show(client: KubeClient, namespace: str | None, name: str, tail: int) -> None:
    """Print the last lines to stdout. Raises CommandError, or KubeError when the API server refuses."""
    text = await read(client, namespace or _default_namespace(), name, tail)
    try:
        sys.stdout.buffer.write(text.encode())  # whatever the terminal's encoding is: the output is not ours
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # `| head`; the interpreter would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def read(
    client: KubeClient, namespace: str, name: str, tail: int, drivers: Mapping[str, Create] | None = None
) -> str:
    """The last ``tail`` lines of a workspace. Raises CommandError, or KubeError when the API server refuses."""
    workspace = await _workspace(client, namespace, name)
    class_ = await _class_of(client, workspace)
    cluster = await read_cluster_id(client)  # part of every name that a backend knows
    ref = WorkspaceRef(cluster, workspace.metadata.uid, namespace, name, class_.metadata.name)
    door = Door(cluster, partial(read_secret, client), may_act=lambda: False, drivers=drivers or drivers_of(client))
    try:
        await door.open(class_)
        text = await _ask(door, ref, tail)
    except KubeError:
        raise  # about the Secret, by way of the backend
    except OperatorError as error:
        silent = error.failure.reason == Reason.BACKEND_UNREACHABLE
        raise CommandError(f"{error} {_WHERE.get(class_.spec.backend, '') if silent else ''}".rstrip()) from error
    finally:
        await door.close_all()
    return text or _explain_silence(workspace, class_.spec.backend)


async def _ask(door: Door, ref: WorkspaceRef, tail: int) -> str:
    backend = door.find(ref.class_name)
    if isinstance(backend, Failure):
        raise CommandError(backend.message)
    if Capability.LOGS not in backend.capabilities:
        raise CommandError(f"The {backend.kind} backend keeps no logs; look where the workspace itself sends them.")
    return await backend.logs(ref, tail)


def _explain_silence(workspace: Workspace, backend: str) -> str:
    """Raise when there is no instance; an instance that has written nothing is no error."""
    who, status = _told(workspace), workspace.status
    if status.instance is None or status.instance.id is None:
        ready = next((c for c in status.conditions if c.type == ConditionType.READY), None)
        said = f": {ready.message}" if ready is not None else "."
        raise CommandError(
            f"{who} has no instance, and so no logs; it is {status.phase or 'not seen by an operator yet'}{said}"
            " Wait until it runs, or set spec.desiredState to Running."
        )
    hint = {**_WHERE, **_DELAYED}.get(backend, "")
    sys.stderr.write(f"{who} has written nothing that can be seen from here. {hint}".rstrip() + "\n")
    return ""


async def _workspace(client: KubeClient, namespace: str, name: str) -> Workspace:
    try:
        return Workspace.model_validate(await client.get(workspaces(namespace, name)))
    except NotFound as error:
        text = f"There is no workspace {name!r} in namespace {namespace!r}; choose another namespace with -n."
        raise CommandError(text) from error
    except ValidationError as error:
        raise CommandError(_other_schema(f"Workspace {name!r}")) from error


async def _class_of(client: KubeClient, workspace: Workspace) -> WorkspaceClass:
    """Resolved as the operator does."""
    store, misfits = Store(), set()
    async for body in client.list(workspace_classes()):
        try:
            store.classes[body["metadata"]["name"]] = WorkspaceClass.model_validate(body)
        except ValidationError:
            misfits.add(body["metadata"]["name"])
    named, recorded = workspace.spec.class_name, workspace.status.class_name
    class_ = store.class_for(named, recorded)
    if class_ is not None:
        return class_
    name = named or recorded
    if name in misfits:
        raise CommandError(_other_schema(f"WorkspaceClass {name!r}"))
    if name is None:
        raise CommandError(f"{_told(workspace)} names no class and none is the default; mark one as the default.")
    raise CommandError(f"WorkspaceClass {name!r} of {_told(workspace)} does not exist; create it.")


def _default_namespace() -> str:
    """As kubectl chooses it; in a pod without a kubeconfig, ``default``."""
    try:
        _, current = kube_config.list_kube_config_contexts()
    except kube_config.ConfigException:
        return "default"
    return str(current["context"].get("namespace") or "default")


def _other_schema(what: str) -> str:
    return f"{what} does not fit the schema of this version; use the version of the operator that runs."


def _told(workspace: Workspace) -> str:
    return f"Workspace {workspace.metadata.name!r} in namespace {workspace.metadata.namespace!r}"
