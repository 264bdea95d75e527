"""The engine as a person at its command line sees it: which containers a workspace has, and what is in them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
from docker.models.containers import Container

from workspace_operator.api import meta


class Containers:
    """Talks to one engine directly, past the operator."""

    def __init__(self, host: str) -> None:
        self.client = docker.DockerClient(base_url=host, timeout=30)

    def of(self, workspace: dict[str, Any]) -> list[Container]:
        """All containers that carry this workspace's labels, whatever their state."""
        return self._labelled(f"{meta.LABEL_UID}={workspace['metadata']['uid']}")

    def of_namespace(self, namespace: str) -> list[Container]:
        return self._labelled(f"{meta.LABEL_NAMESPACE}={namespace}")

    def only(self, workspace: dict[str, Any]) -> Container:
        """The workspace's one container; any other number is a failure."""
        found = self.of(workspace)
        assert len(found) == 1, f"{workspace['metadata']['name']}: {[(c.name, c.status) for c in found]}"
        return found[0]

    def files(self, container: Container, directory: str) -> dict[str, str]:
        """Names and contents of the regular files below a directory of a container."""
        stream, _ = container.get_archive(directory)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            return {m.name.rsplit("/", 1)[1]: archive.extractfile(m).read().decode() for m in members}  # type: ignore[union-attr]

    def _labelled(self, label: str) -> list[Container]:
        filters = {"label": [label, f"{meta.LABEL_ROLE}=instance"]}
        return list(self.client.containers.list(all=True, filters=filters, ignore_removed=True))


@contextmanager
def containers_on(host: str) -> Iterator[Containers]:
    found = Containers(host)
    try:
        yield found
    finally:
        found.client.close()
