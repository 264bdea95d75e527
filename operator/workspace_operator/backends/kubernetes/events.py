"""Following the pods of a class. Used inside backends/kubernetes only."""

from __future__ import annotations

from workspace_operator.api import meta
from workspace_operator.backends.kubernetes import faults
from workspace_operator.backends.protocol import Wake
from workspace_operator.kube.client import KubeClient


async def follow(client: KubeClient, url: str, selector: str, wake: Wake) -> None:
    """Call ``wake`` for each change until cancelled; raises BackendUnreachable when the stream breaks."""
    with faults.told("Following the pods"):
        version = await client.version(url, selector)
        while True:
            async for change in client.watch(url, selector, version):
                metadata = change["object"]["metadata"]
                version = metadata.get("resourceVersion", version)
                uid = (metadata.get("labels") or {}).get(meta.LABEL_UID)
                if uid and change["type"] != "BOOKMARK":
                    wake(uid)
