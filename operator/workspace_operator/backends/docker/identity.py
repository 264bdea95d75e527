"""Identity files inside a container, through the engine's archive calls. Used inside backends/docker only.

The engine unpacks an archive by removing a file and writing it anew, so a reader could see half a token. Each
file is therefore a link into one of two slots: the new content goes to the slot that is not in use, then the link is
turned over. A reader sees the old content, the new content or, for the instant between removing and making the
link, no file; never a part of one.
"""

from __future__ import annotations

import base64
import io
import json
import posixpath
import tarfile
from collections.abc import Mapping
from typing import Any, Final

from docker.errors import APIError, NotFound

from workspace_operator.api.meta import IDENTITY_DIRECTORY
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.docker import faults
from workspace_operator.backends.docker.engine import Client
from workspace_operator.errors import BackendError

_SLOTS: Final = ("..a", "..b")


def write(client: Client, container: str, files: Mapping[str, bytes]) -> None:
    """Write the files of a container that does not run."""
    _put(client, container, files, dict.fromkeys(files, _SLOTS[0]))


def refresh(client: Client, container: str, files: Mapping[str, bytes]) -> None:
    """Replace the files of a running container."""
    slots = {}
    for name in files:
        target = _link_target(client, container, f"{IDENTITY_DIRECTORY}/{name}") or ""
        in_use = posixpath.basename(posixpath.dirname(target))
        slots[name] = _SLOTS[1] if in_use == _SLOTS[0] else _SLOTS[0]
    _put(client, container, files, slots)


def refused_as_read_only(exc: APIError) -> bool:
    """Whether the engine took the identity directory for a part of the read-only root."""
    return "read-only" in faults.explanation(exc)


def resolve_directory(client: Client, container: str) -> str:
    """The identity directory with links resolved, e.g. /run/secrets/... where /var/run is one."""
    resolved = "/"
    for part in IDENTITY_DIRECTORY.strip("/").split("/"):
        path = posixpath.join(resolved, part)
        resolved = _link_target(client, container, path) or path
    return resolved


def _put(client: Client, container: str, files: Mapping[str, bytes], slots: Mapping[str, str]) -> None:
    try:
        client.put_archive(container, IDENTITY_DIRECTORY, _archive(files, slots))
    except NotFound as exc:
        if "could not find the file" not in faults.explanation(exc):
            raise
        raise BackendError(
            Reason.IDENTITY_FAILED,
            "The container was made without an identity directory; change spec.restartToken for a new one.",
        ) from exc


def _archive(files: Mapping[str, bytes], slots: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for slot in sorted(set(slots.values())):
            archive.addfile(_entry(slot, tarfile.DIRTYPE, 0o755))
        for name, content in files.items():
            if "/" in name or name.startswith("."):
                raise ValueError("an identity file is a plain name")
            entry = _entry(f"{slots[name]}/{name}", tarfile.REGTYPE, 0o444)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name in files:
            link = _entry(name, tarfile.SYMTYPE, 0o777)
            link.linkname = f"{slots[name]}/{name}"
            archive.addfile(link)
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _link_target(client: Client, container: str, path: str) -> str | None:
    """Where a link leads, as the engine resolves it; None for what is no link or does not exist."""
    # The SDK has no call for the engine's stat (HEAD); its base class, a requests session, does.
    url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
    response = client.head(url, params={"path": path}, timeout=client.timeout, allow_redirects=False)
    header = response.headers.get("X-Docker-Container-Path-Stat")
    if response.status_code != 200 or not header:
        return None
    stat: dict[str, Any] = json.loads(base64.b64decode(header))
    return str(stat.get("linkTarget") or "") or None
