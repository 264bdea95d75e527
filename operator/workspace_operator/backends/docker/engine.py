"""One Docker engine as the driver uses it: connection, threads, deadlines. Used inside backends/docker only.

The SDK is synchronous, so calls run in a bounded pool of threads of this driver alone: a hanging engine uses up
its own threads and nobody else's. A caller may be cancelled while its thread is inside a call. Such a job is
abandoned: it ends at its next step, and whoever looks at or changes the same workspace next waits for that.
Without this a stop could see nothing, and the abandoned create would succeed afterwards (I-07).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import docker
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.tls import TLSConfig
from docker.utils import version_lt
from requests.adapters import HTTPAdapter

from workspace_operator.api.reasons import Reason
from workspace_operator.api.workspaceclass import DockerBackend
from workspace_operator.backends.docker import faults
from workspace_operator.backends.docker.transport import SocketFileAdapter
from workspace_operator.backends.protocol import ResolveSecret
from workspace_operator.errors import BackendUnreachable, BadRequest

THREADS: Final = 16
CONNECTIONS: Final = THREADS + 8  # beside the pool: pulls and the event stream
DEADLINE: Final = 15.0  # seconds without a byte, for every request but pulls and the event stream

Client = Any  # docker.APIClient; the SDK is untyped
T = TypeVar("T")

_TLS_KEYS = ("ca.crt", "tls.crt", "tls.key")


class Job:
    """One change of a workspace under way in a thread."""

    def __init__(self) -> None:
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """Nobody waits for the result any more."""
        self._abandoned.set()

    def proceed(self) -> None:
        """Called before each step that changes something; raises when the job was abandoned."""
        if self._abandoned.is_set():
            raise BackendUnreachable(
                Reason.BACKEND_UNREACHABLE, "The call was given up before it was finished; it is tried again."
            )


class Engine:
    """Runs synchronous work against one engine. Constructing makes no call."""

    def __init__(self, spec: DockerBackend, resolve_secret: ResolveSecret, deadline: float = DEADLINE) -> None:
        self.host = spec.host
        self.deadline = deadline
        self._tls_ref = spec.tls_secret_ref
        self._resolve_secret = resolve_secret
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._tls: Mapping[str, bytes] | None = None
        self._jobs: dict[str, asyncio.Future[Any]] = {}
        self._abandoned: set[asyncio.Future[Any]] = set()

    async def read(self, doing: str, work: Callable[[Client], T], uid: str | None = None) -> T:
        """Run a look at the engine, after abandoned jobs (of one workspace, or all) have ended."""
        await self._settle(uid)
        await self._prepare()
        return await asyncio.wrap_future(self._submit(doing, work))

    async def change(
        self, uid: str, doing: str, work: Callable[[Client, Job], T], failed: Reason = Reason.PROVISION_FAILED
    ) -> T:
        """Run a change of one workspace; changes of one workspace never overlap."""
        await self._prepare()
        while (before := self._jobs.get(uid)) is not None:
            await asyncio.wait([before])
        job = Job()

        def steps(client: Client) -> T:
            job.proceed()
            return work(client, job)

        future = asyncio.wrap_future(self._submit(doing, steps, failed))
        self._jobs[uid] = future
        future.add_done_callback(lambda done: self._ended(uid, done))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            job.abandon()
            if not future.done():
                self._abandoned.add(future)
            raise

    def call(self, doing: str, work: Callable[[Client], T], failed: Reason | None = None) -> T:
        """Run work in the calling thread; ``failed`` is the reason of a refusal, None for a look."""
        client: Client | None = None
        try:
            client = self._connect()
            return work(client)
        except Exception as exc:
            error = faults.translate(exc, doing, failed, self.host, self.deadline)
            if error is exc:
                raise
            if isinstance(error, BackendUnreachable) and client is not None:
                self._forget(client)
            raise error from exc

    async def prepare(self) -> None:
        """Resolve what connecting needs from the API server, for callers of :meth:`call`."""
        await self._prepare()

    def close(self) -> None:
        """Release threads and connections; a call under way ends by its deadline."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            _discard(client)

    def _submit(self, doing: str, work: Callable[[Client], T], failed: Reason | None = None) -> Future[T]:
        try:
            return self._executor.submit(self.call, doing, work, failed)
        except RuntimeError as exc:
            raise BackendUnreachable(
                Reason.BACKEND_UNREACHABLE, "The connection to the Docker engine is closed on our side."
            ) from exc

    def _ended(self, uid: str, future: asyncio.Future[Any]) -> None:
        self._jobs.pop(uid, None)
        self._abandoned.discard(future)
        if not future.cancelled():
            future.exception()  # an abandoned job's error has no other reader

    async def _settle(self, uid: str | None) -> None:
        if uid is None:
            waiting = set(self._abandoned)
        else:
            waiting = {job for job in (self._jobs.get(uid),) if job in self._abandoned}
        if waiting:
            await asyncio.wait(waiting)

    async def _prepare(self) -> None:
        """Read the TLS Secret; anew after the connection was lost, since certificates rotate."""
        if self._tls_ref is None or self._tls is not None:
            return
        secret = await self._resolve_secret(self._tls_ref.namespace, self._tls_ref.name)
        if missing := [key for key in _TLS_KEYS if not secret.get(key)]:
            raise BadRequest(
                Reason.MISCONFIGURED,
                f"docker.tlsSecretRef: Secret {self._tls_ref.namespace}/{self._tls_ref.name} lacks"
                f" {', '.join(missing)}.",
            )
        self._tls = {key: secret[key] for key in _TLS_KEYS}

    def _connect(self) -> Client:
        """The client, made on first use. Two threads may both make one; the first is kept.

        Connecting under the lock would let callers of a hanging engine wait for one deadline after another.
        """
        with self._lock:
            if self._client is not None:
                return self._client
        made = self._open()
        with self._lock:
            if self._client is None:
                self._client = made
                return made
            kept = self._client
        _discard(made)
        return kept

    def _forget(self, client: Client) -> None:
        with self._lock:
            if self._client is client:
                self._client = None
                self._tls = None
        _discard(client)

    def _open(self) -> Client:
        tls = self._tls
        if tls is None and self._tls_ref is not None:  # another thread has just lost the connection
            raise BackendUnreachable(
                Reason.BACKEND_UNREACHABLE,
                f"The connection to the Docker engine at {self.host} was lost; it is made anew.",
            )
        files = None if tls is None else _TlsFiles(tls)
        try:
            oldest = self._client_of("1.24", files)
            try:
                # Not version="auto": that asks before trust_env can be switched off.
                speaks = str(oldest.version(api_version=False)["ApiVersion"])
            except KeyError as exc:
                raise docker.errors.DockerException("not a Docker engine") from exc
            finally:
                oldest.close()
            newest = DEFAULT_DOCKER_API_VERSION
            client = self._client_of(speaks if version_lt(speaks, newest) else newest, files)
        except BaseException:
            self._tls = None  # perhaps they are the wrong ones: read anew for the next attempt
            if files is not None:
                files.close()
            raise
        client.workspace_tls = files
        return client

    def _client_of(self, version: str, files: _TlsFiles | None) -> Client:
        host, tls = self.host, False if files is None else files.config()
        if tls:
            host = host.replace("tcp://", "https://", 1)
        client = docker.APIClient(
            base_url=host, version=version, timeout=self.deadline, tls=tls, max_pool_size=CONNECTIONS
        )
        client.trust_env = False  # no proxy and no .netrc of the operator's environment between us and the engine
        if self.host.startswith("unix://"):
            path = self.host.removeprefix("unix://")
            client.mount("http+docker://", SocketFileAdapter(path, self.deadline, max_pool_size=CONNECTIONS))
        else:
            for scheme in ("http://", "https://"):
                client.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
        return client


class _TlsFiles:
    """The SDK takes paths only and reads them on each connection. These lead to memory of this process, so that a key
    is on no disk and a kill leaves nothing of it."""

    def __init__(self, secret: Mapping[str, bytes]) -> None:
        self._files = {key: os.memfd_create(key) for key in _TLS_KEYS}
        for key, file in self._files.items():
            os.write(file, secret[key])

    def config(self) -> TLSConfig:
        ca, cert, key = (f"/proc/self/fd/{self._files[name]}" for name in _TLS_KEYS)
        return TLSConfig(client_cert=(cert, key), ca_cert=ca, verify=True)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


def _discard(client: Client) -> None:
    client.close()
    if (files := getattr(client, "workspace_tls", None)) is not None:
        files.close()
