"""Hands a task to another workspace: creates a Delegation with the workspace's own token, and waits for its end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from reference_agent.kube import CONFLICT, FORBIDDEN, MERGE_PATCH, NOT_FOUND, Api, ApiError, Identity, Object
from reference_agent.settings import Settings

T = TypeVar("T")
log = logging.getLogger(__name__)

DELEGATIONS = "/apis/workspace-operator.dev/v1alpha1"
FINISHED = frozenset({"Completed", "Failed", "Cancelled"})
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 5.0  # seconds
WATCH_SECONDS = 60
_WISH = re.compile(r"ask\s+([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)\s*:\s*(\S.*)", re.DOTALL)


class DelegationFailed(Exception):
    """Why there is no answer, in a sentence for whoever asked."""


def parse(text: str) -> tuple[str, str] | None:
    """`ask writer: hello` → `("writer", "hello")`; None for every other text."""
    found = _WISH.fullmatch(text)
    return (found[1], found[2]) if found else None


def key_of(message_id: str) -> str:
    """The idempotency key: the same for the same message, so that one sent again finds the Delegation it led to."""
    return "m-" + hashlib.sha256(message_id.encode()).hexdigest()[:16]


class Delegator:
    """Asks other workspaces. Nothing is kept here: the Delegation remembers, over any crash of this agent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._api = Api()
        self._open: dict[str, str] = {}  # task → the Delegation that it waits for
        self._cancelling: set[asyncio.Task[None]] = set()

    async def ask(self, task_id: str, message_id: str, target: str, text: str) -> str:
        """The answer of the target. Raises DelegationFailed."""
        key = key_of(message_id)
        name = f"{self._settings.name}.{key}"
        spec: Object = {
            "from": {"name": self._settings.name},
            "to": {"name": target},
            "message": {"text": text},
            "idempotencyKey": key,
        }
        self._open[task_id] = name
        try:
            await self._create(name, spec)
            return await self._answer(await self._end_of(name, spec), target)
        except ApiError as error:
            raise DelegationFailed(f"The task for {target} cannot be delegated or followed: {error}.") from error
        finally:
            del self._open[task_id]

    def cancel(self, task_id: str) -> None:
        """The task was cancelled, so what it waits for is cancelled too; in the background, as nobody waits for it."""
        name = self._open.get(task_id)
        if name is not None:
            cancelling = asyncio.create_task(self._stop(name))
            self._cancelling.add(cancelling)
            cancelling.add_done_callback(self._cancelling.discard)

    async def close(self) -> None:
        for cancelling in self._cancelling:
            cancelling.cancel()
        await asyncio.gather(*self._cancelling, return_exceptions=True)
        await self._api.close()

    async def _create(self, name: str, spec: Object) -> None:
        manifest = {
            "apiVersion": "workspace-operator.dev/v1alpha1",
            "kind": "Delegation",
            "metadata": {"name": name},
            "spec": spec,
        }

        async def create() -> None:
            try:
                await self._call("POST", DELEGATIONS, "delegations", body=manifest)
            except ApiError as error:
                if error.status != CONFLICT:
                    raise
                log.info("%s exists: its message was sent before.", name)

        # A refusal is final here: the right to create is there from the start.
        await self._persist(create, patience=0)

    async def _end_of(self, name: str, spec: Object) -> Object:
        """The Delegation when it is over."""
        while True:
            found = await self._read(DELEGATIONS, "delegations", name)
            if any(found["spec"].get(field) != spec[field] for field in ("to", "message")):
                raise DelegationFailed(f"The Delegation {name} of the same message id asks for something else.")
            if _is_over(found):
                return found
            over = await self._watch(found)
            if over is not None:
                return over
            await asyncio.sleep(FIRST_BACKOFF)

    async def _watch(self, found: Object) -> Object | None:
        """None when it is better read again: the watch ended, it broke, or the Delegation was deleted."""
        name, version = found["metadata"]["name"], found["metadata"]["resourceVersion"]
        try:
            identity = self._identity()
            url = identity.url(DELEGATIONS, "delegations")
            async with aclosing(self._api.watch(identity, url, name, version, WATCH_SECONDS)) as changes:
                async for change in changes:
                    if _is_over(change):
                        return change
        except ApiError as error:
            log.info("Waiting for %s: %s; looking again.", name, error)
            await asyncio.sleep(1)
        return None

    async def _answer(self, over: Object, target: str) -> str:
        status, name = over["status"], over["metadata"]["name"]
        if status["phase"] != "Completed":
            finished = (each for each in status.get("conditions", ()) if each["type"] == "Finished")
            why = next((str(each["message"]) for each in finished), "")
            raise DelegationFailed(f"The task for {target} ended as {status['phase']} ({name}). {why}".strip())
        result = status.get("result") or {}
        answer = str(result.get("preview", ""))
        reference = result.get("configMapKeyRef")
        if reference is not None:
            kept = await self._read("/api/v1", "configmaps", reference["name"])
            answer = str((kept.get("data") or {}).get(reference["key"], ""))
        if not result.get("complete", True):
            answer += f" [cut: the whole answer of {target} has {result['bytes']} bytes]"
        return answer

    async def _stop(self, name: str) -> None:
        async def stop() -> None:
            await self._call("PATCH", DELEGATIONS, "delegations", name, {"spec": {"desiredState": "Stopped"}})

        try:
            await self._persist(stop, self._settings.grant_wait)
        except (ApiError, DelegationFailed) as error:
            if getattr(error, "status", None) != NOT_FOUND:
                log.warning("%s is not cancelled: %s", name, error)

    async def _read(self, group: str, plural: str, name: str) -> Object:
        async def read() -> Object:
            return await self._call("GET", group, plural, name)

        return await self._persist(read, self._settings.grant_wait)

    async def _persist(self, ask: Callable[[], Awaitable[T]], patience: float) -> T:
        """Ask until the API server answers.

        The right to read an own Delegation comes a moment after it, so a refusal is waited out for `patience` seconds.
        """
        delay, refused_until, told = FIRST_BACKOFF, None, ""
        while True:
            try:
                return await ask()
            except ApiError as error:
                now = time.monotonic()
                if error.status == FORBIDDEN:
                    refused_until = refused_until or now + patience
                    if now >= refused_until:
                        raise
                elif not error.passing:
                    raise
                elif str(error) != told:
                    told = str(error)
                    log.warning("Delegating is delayed: %s; trying again.", told)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_BACKOFF)

    async def _call(
        self, method: str, group: str, plural: str, name: str | None = None, body: Object | None = None
    ) -> Object:
        identity = self._identity()
        content_type = MERGE_PATCH if method == "PATCH" else "application/json"
        return await self._api.call(identity, method, identity.url(group, plural, name), body, content_type)

    def _identity(self) -> Identity:
        identity = Identity.read(self._settings.identity)
        if identity is None:
            raise DelegationFailed("This workspace has no identity (its class gives none), so it cannot delegate.")
        return identity


def _is_over(delegation: Object) -> bool:
    return (delegation.get("status") or {}).get("phase") in FINISHED
