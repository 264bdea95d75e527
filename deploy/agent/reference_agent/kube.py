"""The Kubernetes API as the agent uses it: with the identity of the moment, and no token in any error."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

Object = dict[str, Any]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
FORBIDDEN, NOT_FOUND, CONFLICT = 403, 404, 409
# Worth another try: no answer, a revoked token that may soon be new, too busy. So is everything from 500 on.
_PASSING = frozenset({0, 401, 408, 410, 429})
_EXPLANATION = 300  # characters of the API server's own words


class ApiError(Exception):
    """A failed call in words safe to log: made of types, status codes and the API server's own explanation."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def passing(self) -> bool:
        return self.status in _PASSING or self.status >= 500


@dataclass(frozen=True)
class Identity:
    """One reading of the identity directory; never kept, because the operator rewrites the files."""

    token: str
    server: str
    namespace: str
    lease: str
    ca: str | None

    @classmethod
    def read(cls, directory: Path) -> Identity | None:
        if not directory.is_dir():
            return None
        try:
            values = {
                name: (directory / name).read_text().strip() for name in ("token", "server", "lease", "namespace")
            }
            ca = directory / "ca.crt"
            return cls(ca=ca.read_text() if ca.exists() else None, **values)
        except (OSError, UnicodeError) as error:
            raise ApiError(f"cannot read {directory}: {type(error).__name__}") from None

    def url(self, group: str, plural: str, name: str | None = None) -> str:
        """Of objects in the workspace's namespace. `group` is as in `/apis/apps/v1` or `/api/v1`."""
        parts = [self.server.rstrip("/") + group, "namespaces", self.namespace, plural, *([name] if name else [])]
        return "/".join(parts)

    def __repr__(self) -> str:
        return f"Identity({self.namespace}/{self.lease})"


class Api:
    """Calls with one identity each, over one connection for as long as the certificate authority stays."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._ca: str | None = None

    async def call(
        self, identity: Identity, method: str, url: str, body: Object | None = None, content_type: str = JSON
    ) -> Object:
        """Returns the object that the API server answers with. Raises ApiError."""
        headers = {**_headers(identity), "Content-Type": content_type}
        try:
            client = await self._client_for(identity)
            response = await client.request(method, url, headers=headers, json=body)
        except Exception as error:
            # Only the type: the text of an error about a header can quote the token in that header.
            raise ApiError(type(error).__name__) from None
        if not response.is_success:
            raise ApiError(f"the Kubernetes API answered {_explained(response)}", response.status_code)
        return _decoded(response.content)

    async def watch(
        self, identity: Identity, url: str, name: str, version: str, seconds: int
    ) -> AsyncGenerator[Object, None]:
        """The changes of one object since a version, for at most so long; ends early when it is deleted."""
        # With the name as the field selector, the right to watch this one object is enough.
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "resourceVersion": version}
        query["timeoutSeconds"] = str(seconds)
        try:
            client = await self._client_for(identity)
            timeout = httpx.Timeout(5, read=seconds + 15)
            async with client.stream("GET", url, params=query, headers=_headers(identity), timeout=timeout) as stream:
                if not stream.is_success:
                    await stream.aread()
                    raise ApiError(f"the Kubernetes API answered {_explained(stream)}", stream.status_code)
                async for line in stream.aiter_lines():
                    event = _decoded(line.encode())
                    if event.get("type") not in ("ADDED", "MODIFIED"):
                        return
                    yield event["object"]
        except ApiError:
            raise
        except Exception as error:
            raise ApiError(type(error).__name__) from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _client_for(self, identity: Identity) -> httpx.AsyncClient:
        """A handshake costs both sides."""
        if self._client is not None and self._ca == identity.ca:
            return self._client
        await self.close()
        context = ssl.create_default_context(cadata=identity.ca) if identity.ca else ssl.create_default_context()
        # The operator's way to its API server is not the user's HTTP_PROXY.
        self._client = httpx.AsyncClient(verify=context, timeout=5, trust_env=False)
        self._ca = identity.ca
        return self._client


def _headers(identity: Identity) -> dict[str, str]:
    return {"Authorization": f"Bearer {identity.token}", "Accept": JSON}


def _decoded(data: bytes) -> Object:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ApiError("the Kubernetes API answered with something that is not an object")
    return value


def _explained(response: httpx.Response) -> str:
    """`403: deployments is forbidden`: the status, and what the API server's own Status object says of it."""
    try:
        message = str(response.json().get("message", ""))[:_EXPLANATION]
    except (ValueError, AttributeError):
        message = ""
    return f"{response.status_code}: {message}" if message else str(response.status_code)
