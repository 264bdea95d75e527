"""The finalizer, where kopf gives up on it.

kopf puts it on and takes it off with one patch each. A patch that ends in a conflict is repeated only when the object
changes again, and on an object that nobody touches that is never: it would not be started, or not go, for good.
"""

from __future__ import annotations

from workspace_operator.api.meta import FINALIZER
from workspace_operator.api.workspace import Workspace
from workspace_operator.kube.client import KubeClient, Object, workspaces

PATIENCE = 5.0  # seconds that kopf has; without a conflict it needs one request


async def put_on(client: KubeClient, workspace: Workspace) -> Object:
    """Raises KubeError; Conflict when the object is not as it was read."""
    return await _write(client, workspace, [*workspace.metadata.finalizers, FINALIZER])


async def take_off(client: KubeClient, workspace: Workspace) -> Object:
    """The same the other way round; only after the plan let it go."""
    return await _write(client, workspace, [name for name in workspace.metadata.finalizers if name != FINALIZER])


async def _write(client: KubeClient, workspace: Workspace, finalizers: list[str]) -> Object:
    metadata = workspace.metadata
    body = {"metadata": {"resourceVersion": metadata.resource_version, "finalizers": finalizers}}
    return await client.merge(workspaces(metadata.namespace, metadata.name), body)
