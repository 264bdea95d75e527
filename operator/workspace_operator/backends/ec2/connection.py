"""The connection to AWS: SDK clients, threads, turns, deadlines and repeated calls. Used inside backends/ec2 only.

Retries are ours, not botocore's adaptive mode. Botocore sleeps inside the call, so each waiting call would hold a
thread of the pool; it knows no deadline of the verb; and it cannot tell "refused" from "perhaps done", which decides
here whether an instance may exist. Ours sleeps on the event loop with full jitter (AWS Architecture Blog, "Exponential
Backoff And Jitter"), gives up in time, and is adaptive by its token buckets.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

from workspace_operator.api.ec2 import Ec2Backend
from workspace_operator.api.quantity import duration
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.ec2 import faults
from workspace_operator.backends.ec2.buckets import Bucket, Busy
from workspace_operator.backends.ec2.faults import Kind
from workspace_operator.backends.ec2.operations import ALL, Operation
from workspace_operator.backends.protocol import ResolveSecret
from workspace_operator.errors import BackendUnreachable, BadRequest

Answer = dict[str, Any]

PATIENCE: Final = 25.0  # seconds for one call with its turns and repetitions; verbs have 60
_DIAL_FOR: Final = 3.0  # seconds; an endpoint that accepts no connection is not worth a verb's whole time
_THREADS: Final = 16
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_models = botocore.loaders.create_loader()  # EC2's model takes a third of a second to read; once is enough


class Connection:
    """AWS for one class. Makes its clients on first use, and anew when their credentials are refused."""

    def __init__(self, config: Ec2Backend, resolve_secret: ResolveSecret) -> None:
        self.config = config
        self._resolve_secret = resolve_secret
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ec2")
        # AWS meters each action by itself, with the rates of its family.
        self._buckets = {each: Bucket(getattr(config.rates, each.family)) for each in ALL}
        self._session: boto3.Session | None = None
        self._opened_with: Mapping[str, str] = {}
        self._clients: dict[str, Any] = {}
        self._opening = asyncio.Lock()
        self._closed = False

    async def call(
        self,
        operation: Operation,
        doing: str,
        *,
        sending: Callable[[], None] | None = None,
        patience: float | None = None,
        **parameters: Any,
    ) -> Answer:
        """One API call, repeated until there is an answer or ``patience`` seconds are over.

        ``sending`` is called right before something first leaves for AWS. Raises Throttled when there was certainly no
        effect, Unanswered when there may have been one, and otherwise what the refusal means. A repetition is the same
        request to the byte, so that a client token makes it safe.
        """
        began = time.monotonic()
        deadline = began + (PATIENCE if patience is None else patience)
        lost: Exception | None = None  # an attempt that may have had an effect
        pause = _FIRST_PAUSE
        while True:
            left = deadline - time.monotonic()
            try:
                await self._buckets[operation].take(left)
            except Busy:
                raise self._given_up(lost, doing) from lost
            client = await self._client(operation.service)
            if sending is not None:
                sending()
            try:
                answer = await self._send(client, operation, parameters)
            except Exception as exc:
                kind = self._judge(exc, operation, doing, lost)
                lost = exc if kind is Kind.ASK_AGAIN else lost
                if kind is Kind.DIAL_AGAIN:
                    deadline = min(deadline, began + _DIAL_FOR)
                wait = random.uniform(0, pause)  # noqa: S311 - full jitter
                if time.monotonic() + wait > deadline:
                    raise self._given_up(exc if kind is Kind.DIAL_AGAIN and lost is None else lost, doing) from exc
                await asyncio.sleep(wait)
                pause = min(_LONGEST_PAUSE, pause * 2)
            else:
                self._buckets[operation].speed_up()
                return answer

    async def pages(self, operation: Operation, doing: str, key: str, **parameters: Any) -> list[Answer]:
        """All pages of a listing, or an error: never a part of it."""
        found: list[Answer] = []
        while True:
            answer = await self.call(operation, doing, **parameters)
            found += answer.get(key) or ()
            token = answer.get("NextToken")
            if not token:
                return found
            parameters["NextToken"] = token

    def close(self) -> None:
        """Ends calls that have not begun."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    async def _send(self, client: Any, operation: Operation, parameters: Answer) -> Answer:
        """One request.

        Keys that AWS refuses may have been replaced in their Secret: then the new ones are used at once, so that a
        rotation is not seen.
        """
        try:
            answer: Answer = await self._in_thread(partial(getattr(client, operation.method), **parameters))
        except Exception as exc:
            if faults.code_of(exc) not in faults.CREDENTIALS or not await self._replaced(client, operation.service):
                raise
            client = await self._client(operation.service)
            answer = await self._in_thread(partial(getattr(client, operation.method), **parameters))
        return answer

    async def _replaced(self, refused: Any, service: str) -> bool:
        """Whether there are other keys than those of this client; it is forgotten then."""
        if self._clients.get(service) is refused:
            if await self._keys() == self._opened_with:
                return False
            self._forget()
        return True

    def _forget(self) -> None:
        self._session = None
        self._clients.clear()

    def _judge(self, exc: Exception, operation: Operation, doing: str, lost: Exception | None) -> Kind:
        """Raise what is final; say what to do about the rest."""
        kind = faults.kind_of(exc)
        if kind is Kind.SLOW_DOWN:
            self._buckets[operation].slow_down()
        if kind is Kind.REFUSED:
            if faults.code_of(exc) in faults.CREDENTIALS:
                self._forget()  # there may be new ones by the next call
            error = faults.translate(exc, doing, operation.action, looking=operation.looks)
            if lost is not None and isinstance(error, faults.Denied):
                raise self._given_up(lost, doing) from exc
            raise error from exc
        return kind

    def _given_up(self, lost: Exception | None, doing: str) -> BackendUnreachable:
        if lost is None:
            return faults.throttled(doing)
        return faults.unanswered(lost, doing, self.config.region, self.config.endpoint_url)

    async def _client(self, service: str) -> Any:
        client = self._clients.get(service)
        if client is not None:
            return client
        async with self._opening:
            if service not in self._clients:
                try:
                    if self._session is None:
                        self._opened_with = await self._keys()
                        self._session = await self._in_thread(partial(_open, self.config, self._opened_with))
                    session = self._session
                    client = await self._in_thread(partial(_make, session, self.config, service))
                except Exception as exc:
                    raise faults.translate(exc, "Connecting to AWS", "sts:AssumeRole", looking=False) from exc
                if self._session is not session:
                    return client  # its keys were refused meanwhile: it is not kept, so that others get new ones
                self._clients[service] = client
            return self._clients[service]

    async def _keys(self) -> Mapping[str, str]:
        """The SDK's names for the keys of the class's Secret; empty for the default chain."""
        ref = self.config.credentials_secret_ref
        if ref is None:
            return {}
        secret = await self._resolve_secret(ref.namespace, ref.name)
        missing = [name for name in ("aws_access_key_id", "aws_secret_access_key") if not secret.get(name)]
        if missing:
            raise BadRequest(
                Reason.MISCONFIGURED,
                f"Secret {ref.name!r} in namespace {ref.namespace!r}, ec2.credentialsSecretRef of the class, has no"
                f" {' and no '.join(missing)}; add it.",
            )
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        return {name: secret[name].decode().strip() for name in names if secret.get(name)}

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        if self._closed:
            raise BackendUnreachable(Reason.BACKEND_UNREACHABLE, "The connection to this backend was closed.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _open(config: Ec2Backend, keys: Mapping[str, str]) -> boto3.Session:
    """One session for all services, so that a role is assumed once."""
    core = botocore.session.Session()
    core.register_component("data_loader", _models)
    session = boto3.Session(botocore_session=core, region_name=config.region, **keys)
    if config.assume_role_arn:
        _assume_role(session, core, config)
    return session


def _make(session: boto3.Session, config: Ec2Backend, service: str) -> Any:
    """One SDK client. It resolves credentials with its first call, not here."""
    return session.client(service, endpoint_url=config.endpoint_url, config=_options(config))  # type: ignore[call-overload]


def _options(config: Ec2Backend) -> Config:
    seconds = duration(config.call_timeout).total_seconds()
    return Config(
        connect_timeout=min(seconds, 5.0),
        read_timeout=seconds,
        retries={"total_max_attempts": 1},
        max_pool_connections=_THREADS,
        user_agent_extra="workspace-operator",
    )


def _assume_role(session: boto3.Session, core: Any, config: Ec2Backend) -> None:
    """Put the role's credentials, which the SDK renews by itself, in the place of the session's own."""

    def sts(service: str, **keys: Any) -> Any:
        made: Callable[..., Any] = core.create_client
        return made(
            service, region_name=config.region, endpoint_url=config.endpoint_url, config=_options(config), **keys
        )

    extra = {"RoleSessionName": "workspace-operator"}
    if config.assume_role_external_id:
        extra["ExternalId"] = config.assume_role_external_id
    source = session.get_credentials()
    if source is None:
        raise BadRequest(
            Reason.MISCONFIGURED,
            "There are no AWS credentials to assume ec2.assumeRoleArn with; set ec2.credentialsSecretRef, or give the"
            " operator's ServiceAccount a role.",
        )
    fetcher = AssumeRoleCredentialFetcher(sts, source, config.assume_role_arn or "", extra_args=extra)
    core._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
