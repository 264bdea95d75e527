"""A backend with manners: every verb gets a deadline, a metric and a log context, and starts are rate-limited."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TypeVar

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability
from workspace_operator.api.workspaceclass import ClassLimits
from workspace_operator.backends.protocol import (
    Backend,
    Instance,
    Progress,
    ProvisionRequest,
    StopRequest,
    Wake,
    WorkspaceRef,
)
from workspace_operator.backends.rate import PerMinute
from workspace_operator.errors import BackendUnreachable, OperatorError
from workspace_operator.telemetry import metrics
from workspace_operator.telemetry.logs import about

log = logging.getLogger(__name__)
T = TypeVar("T")

DEADLINE = 60.0  # seconds for any verb; backends have shorter ones per call
QUEUED_RETRY = timedelta(seconds=1)


class MeteredBackend:
    """Wraps a backend; itself keeps the Backend protocol."""

    def __init__(self, kind: str, backend: Backend, limits: ClassLimits, may_act: Callable[[], bool]) -> None:
        self.kind = kind
        self._backend = backend
        self._may_act = may_act
        self._starting = asyncio.Semaphore(limits.concurrent_starts)
        self._rate = PerMinute(limits.starts_per_minute)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._backend.capabilities

    async def check(self) -> str:
        return await self._call("check", self._backend.check())

    async def list_owned(self) -> tuple[Instance, ...]:
        return await self._call("list", self._backend.list_owned())

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        return await self._call("observe", self._backend.observe(ref))

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        if not self._starting_allowed():
            return Progress(Reason.START_QUEUED, Reason.START_QUEUED.meaning, QUEUED_RETRY)
        async with self._starting:
            return await self._verb("provision", lambda: self._backend.provision(request))

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        return await self._verb("stop", lambda: self._backend.stop(request))

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        async with self._starting:
            return await self._verb("restart", lambda: self._backend.restart(request, grace))

    async def deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        await self._verb("deliver", lambda: self._backend.deliver(ref, incarnation, files))

    async def delete_data(self, ref: WorkspaceRef) -> bool:
        return await self._verb("delete_data", lambda: self._backend.delete_data(ref))

    async def logs(self, ref: WorkspaceRef, tail: int) -> str:
        return await self._call("logs", self._backend.logs(ref, tail))

    async def watch(self, wake: Wake) -> None:
        await self._backend.watch(wake)

    async def close(self) -> None:
        await self._backend.close()

    def _starting_allowed(self) -> bool:
        return not self._starting.locked() and self._rate.take()

    async def _verb(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        if not self._may_act():
            raise BackendUnreachable(Reason.BACKEND_UNREACHABLE, "This operator no longer leads and does not act.")
        with about(verb=verb):
            return await self._call(verb, call())

    async def _call(self, verb: str, work: Awaitable[T]) -> T:
        started = time.perf_counter()
        outcome, failure_class = "ok", ""
        try:
            async with asyncio.timeout(DEADLINE):
                return await work
        except TimeoutError as error:
            outcome, failure_class = "timeout", BackendUnreachable.failure_class
            text = f"The {self.kind} backend did not answer within {DEADLINE:.0f} s."
            raise BackendUnreachable(Reason.BACKEND_UNREACHABLE, text) from error
        except OperatorError as error:
            outcome, failure_class = "error", error.failure.failure_class
            log.info("%s on %s failed: %s", verb, self.kind, error)
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception:
            outcome, failure_class = "bug", "Internal"
            raise
        finally:
            metrics.VERB_SECONDS.labels(self.kind, verb).observe(time.perf_counter() - started)
            metrics.VERBS.labels(self.kind, verb, outcome, failure_class).inc()
