"""Calls to the Kubernetes API: JSON in and out, with a deadline, a metric and one family of errors each.

The transport, credentials and their refresh are the kubernetes library's (its asyncio client); objects stay plain
dictionaries, because models for every kind would cost memory and time per object and buy nothing here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from urllib.request import getproxies

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from workspace_operator.api.meta import API_VERSION
from workspace_operator.api.reasons import Reason
from workspace_operator.errors import FailureClass, OperatorError
from workspace_operator.telemetry import metrics

Object = dict[str, Any]

T = TypeVar("T")
log = logging.getLogger(__name__)

MERGE_PATCH = "application/merge-patch+json"
PAGE = 500
DEADLINE = 15.0  # seconds per request; the API server's own limit is 60
CONNECTIONS = 32
WATCH = 60  # seconds of one watch


class KubeError(OperatorError):
    """The API server refused a request, or could not be asked (status 0)."""

    failure_class = FailureClass.BACKEND

    def __init__(self, status: int, message: str) -> None:
        super().__init__(Reason.API_REFUSED, message)
        self.status = status

    @property
    def ambiguous(self) -> bool:
        """Whether the request may have had an effect although it failed."""
        return self.status == 0 or self.status >= 500


class NotFound(KubeError):
    """404: the object does not exist."""


class Conflict(KubeError):
    """409: it exists already, or it changed since it was read."""


def path(resource: str, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """URL path of a resource such as ``v1/secrets`` or ``coordination.k8s.io/v1/leases``."""
    prefix, plural = resource.rsplit("/", 1)
    parts = ["/api" if "/" not in prefix else "/apis", prefix]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(plural)
    parts += [quote(part, safe="") for part in (name, sub) if part]
    return "/".join(parts)


_KUBE_SYSTEM = path("v1/namespaces", None, "kube-system")


def workspaces(namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """URL path of Workspaces."""
    return path(f"{API_VERSION}/workspaces", namespace, name, sub)


def delegations(namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """URL path of Delegations."""
    return path(f"{API_VERSION}/delegations", namespace, name, sub)


def workspace_classes(name: str | None = None, sub: str | None = None) -> str:
    """URL path of WorkspaceClasses."""
    return path(f"{API_VERSION}/workspaceclasses", None, name, sub)


async def load_configuration() -> Configuration:
    """Credentials from the pod's ServiceAccount, else from the kubeconfig ($KUBECONFIG)."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    # aiohttp would read ~/.netrc and the proxy variables anew for every request: 144 µs each time.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    try:
        kube_config.load_incluster_config(client_configuration=configuration)
    except kube_config.ConfigException:
        await kube_config.load_kube_config(client_configuration=configuration)
    return configuration


class KubeClient:
    """One pooled connection to one API server. All methods raise :class:`KubeError`."""

    def __init__(self, configuration: Configuration) -> None:
        self._api = ApiClient(configuration)

    @property
    def server(self) -> str:
        """Base URL of the API server."""
        return str(self._api.configuration.host)

    @property
    def ca_file(self) -> str | None:
        """File with the certificate authority of the API server."""
        return self._api.configuration.ssl_ca_cert or None

    def apart(self) -> KubeClient:
        """Another client of this API server, with connections of its own: a watch keeps one for as long as it lasts."""
        return KubeClient(self._api.configuration)

    async def close(self) -> None:
        await self._api.close()

    async def get(self, url: str) -> Object:
        return await self._request("GET", url)

    async def create(self, url: str, body: Mapping[str, Any]) -> Object:
        return await self._request("POST", url, body)

    async def update(self, url: str, body: Mapping[str, Any]) -> Object:
        """Replace an object; its resourceVersion is the precondition."""
        return await self._request("PUT", url, body)

    async def merge(self, url: str, body: Mapping[str, Any]) -> Object:
        """Merge-patch; put ``metadata.resourceVersion`` into the body to make it conditional."""
        return await self._request("PATCH", url, body, MERGE_PATCH)

    async def delete(self, url: str, uid: str | None = None, grace: int | None = None) -> None:
        """Delete an object, only if it has this UID when one is given; absent is fine. ``grace``: a pod's seconds."""
        body: Object = {"preconditions": {"uid": uid}} if uid else {}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._request("DELETE", url, body or None)
        except NotFound:
            return

    async def text(self, url: str) -> str:
        """What is no JSON: the output of a container."""
        return (await self._exchange("GET", url)).decode(errors="replace")

    async def list(self, url: str, labels: str | None = None, fields: str | None = None) -> AsyncIterator[Object]:
        """All items, page by page; a failure on any page raises, so a partial listing is never taken for whole."""
        token = ""
        while True:
            query = {
                "limit": str(PAGE),
                "continue": token,
                "labelSelector": labels or "",
                "fieldSelector": fields or "",
            }
            page = await self._request("GET", f"{url}?{urlencode({k: v for k, v in query.items() if v})}")
            for item in page.get("items", ()):
                yield item
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    async def version(self, url: str, labels: str) -> str:
        """The resourceVersion of a listing of this moment, from which a watch may begin."""
        page = await self.get(f"{url}?{urlencode({'labelSelector': labels, 'limit': '1'})}")
        return str(page.get("metadata", {}).get("resourceVersion", ""))

    async def watch(self, url: str, labels: str, version: str) -> AsyncIterator[Object]:
        """Changes after ``version``, and bookmarks, as they come. Ends after a minute: go on from the last version.

        So short because only its end tells a quiet stream from one that has died. Raises KubeError; 410: too old.
        """
        query = {
            **{"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH)},
            **{"labelSelector": labels, "resourceVersion": version},
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=DEADLINE, sock_read=WATCH + DEADLINE)
        address = f"{url}?{urlencode(query)}"
        code = "none"
        with _unanswered():
            try:
                response = await self._send("GET", address, None, "application/json", timeout)
                code = str(response.status)
            finally:
                metrics.KUBE_REQUESTS.labels("WATCH", _resource_of(url), code).inc()
            async with response.response as stream:
                if response.status >= 400:
                    raise _error(response.status, "WATCH", url, await stream.read())
                async for line in stream.content:
                    change = _decode(line)
                    if change.get("type") == "ERROR":
                        raise _error(int(change["object"].get("code", 0)), "WATCH", url, json.dumps(change["object"]))
                    yield change

    async def _request(
        self, method: str, url: str, body: Mapping[str, Any] | None = None, content: str = "application/json"
    ) -> Object:
        return _decode(await self._exchange(method, url, body, content))

    async def _exchange(
        self, method: str, url: str, body: Mapping[str, Any] | None = None, content: str = "application/json"
    ) -> bytes:
        started = time.perf_counter()
        code = "none"
        try:
            with _unanswered():
                response = await self._send(method, url, body, content, DEADLINE)
                code = str(response.status)
                data: bytes = await response.read()
        finally:
            metrics.KUBE_REQUESTS.labels(method, _resource_of(url), code).inc()
            metrics.KUBE_SECONDS.labels(method).observe(time.perf_counter() - started)
        if response.status >= 400:
            raise _error(response.status, method, url, data)
        return data

    async def _send(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None,
        content: str,
        timeout: float | aiohttp.ClientTimeout,
    ) -> Any:
        headers = {"Accept": "application/json", "Content-Type": content}
        serialized = await self._api.param_serialize(method, url, header_params=headers, auth_settings=["BearerToken"])
        return await self._api.call_api(serialized[0], serialized[1], serialized[2], body, _request_timeout=timeout)


@contextmanager
def _unanswered() -> Iterator[None]:
    """No answer, or half of one, is an error of ours."""
    try:
        yield
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        what = "did not answer in time" if isinstance(error, TimeoutError) else "cannot be reached"
        raise KubeError(0, f"The Kubernetes API {what}.") from error


def _decode(data: bytes) -> Object:
    try:
        decoded = json.loads(data) if data else {}
    except ValueError as error:
        raise KubeError(0, "The Kubernetes API answered with something that is not JSON.") from error
    return decoded if isinstance(decoded, dict) else {}


def _error(status: int, method: str, url: str, data: bytes | str) -> KubeError:
    where = f"{method} {url.partition('?')[0]}"
    kind = {404: NotFound, 409: Conflict}.get(status, KubeError)
    try:
        detail = str(json.loads(data).get("message", ""))[:500]
    except (ValueError, AttributeError):
        detail = ""  # not the API server's own words: a proxy's page is never shown
    return kind(status, f"The Kubernetes API answered {status} to {where}: {detail or 'no explanation'}.")


_GROUPED = 3  # /apis/<group>/<version>/...


def _resource_of(url: str) -> str:
    """The resource's plural, a metric label of bounded cardinality."""
    parts = url.partition("?")[0].strip("/").split("/")
    rest = parts[_GROUPED:] if parts[0] == "apis" else parts[2:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join(rest[::2][:1] + rest[2:3]) if rest else "root"


async def read_cluster_id(client: KubeClient) -> str:
    """Identity of the cluster: the UID of its kube-system namespace. Raises KubeError."""
    return str((await client.get(_KUBE_SYSTEM))["metadata"]["uid"])


async def cluster_id(client: KubeClient) -> str:
    """Identity of the cluster, waiting until the API server tells it."""
    return await persist("the identity of the cluster", lambda: read_cluster_id(client))


async def persist(what: str, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the API server answers.

    Refusals are ridden out as well: a starting API server has neither its keys nor its roles loaded, a brand-new one
    not even its namespaces, and rights may be granted later.
    """
    delay, told = 0.2, ""
    while True:
        try:
            return await ask()
        except KubeError as error:
            if str(error) != told:
                told = str(error)
                log.warning("waiting for %s: %s", what, told)
        await asyncio.sleep(delay)
        delay = min(5.0, delay * 2)
