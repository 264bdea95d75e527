"""The backends that the measured operator uses: one that does nothing, and a stop-watch around the real one."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from workspace_operator.api.states import Capability
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends.door import DRIVERS, Create
from workspace_operator.backends.protocol import (
    Backend,
    Instance,
    Progress,
    ProvisionRequest,
    Reading,
    ResolveSecret,
    StopRequest,
    Wake,
    WorkspaceRef,
)


class Recorder:
    """Counts backend calls; with a file, also writes when each verb was called (CLOCK_MONOTONIC is system-wide)."""

    def __init__(self, stamps: Path | None) -> None:
        self.calls: Counter[str] = Counter()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(stamps, flags, 0o644) if stamps is not None else None

    def count(self, call: str) -> None:
        self.calls[call] += 1

    def verb(self, verb: str, ref: WorkspaceRef) -> None:
        at = time.monotonic()
        self.calls[verb] += 1
        if self._file is not None:
            os.write(self._file, json.dumps({"name": ref.name, "verb": verb, "at": at}).encode() + b"\n")


#: Variable of a workspace that says where its agent really is, for those that need one.
ADDRESS = "BENCH_ADDRESS"


class NoopBackend:
    """Keeps the Backend protocol in memory: a start runs at once, a stop is over at once."""

    capabilities: frozenset[Capability] = frozenset({Capability.HALT})

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._instances: dict[str, Instance] = {}

    async def check(self) -> str:
        self._recorder.count("check")
        return "does nothing"

    async def list_owned(self) -> tuple[Instance, ...]:
        self._recorder.count("list_owned")
        return tuple(self._instances.values())

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        self._recorder.count("observe")
        return self._of(ref)

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        self._recorder.verb("provision", request.ref)
        made = Instance(
            ref=request.ref,
            incarnation=request.incarnation,
            reading=Reading.RUNNING,
            id=f"{request.ref.uid}-{request.incarnation}",
            parameters=request.parameters,
            address=request.environment.get(ADDRESS),
        )
        self._instances[request.ref.uid] = made
        return made

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        self._recorder.verb("stop", request.ref)
        uid = request.ref.uid
        if uid in self._instances:
            if request.release:
                del self._instances[uid]
            else:
                self._instances[uid] = replace(self._instances[uid], reading=Reading.HALTED)
        return self._of(request.ref)

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        self._recorder.count("restart")
        return await self.provision(request)

    async def deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        self._recorder.verb("deliver", ref)

    async def delete_data(self, ref: WorkspaceRef) -> bool:
        self._recorder.verb("delete_data", ref)
        return True

    async def logs(self, ref: WorkspaceRef, tail: int) -> str:
        return ""

    async def watch(self, wake: Wake) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing is open."""

    def _of(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        found = self._instances.get(ref.uid)
        return (found,) if found is not None else ()


class Stamped:
    """A real backend whose verbs are recorded right before it is called; all else goes straight through."""

    def __init__(self, backend: Backend, recorder: Recorder) -> None:
        self._backend, self._recorder = backend, recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def list_owned(self) -> tuple[Instance, ...]:
        self._recorder.count("list_owned")
        return await self._backend.list_owned()

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        self._recorder.count("observe")
        return await self._backend.observe(ref)

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        self._recorder.verb("provision", request.ref)
        return await self._backend.provision(request)

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        self._recorder.verb("stop", request.ref)
        return await self._backend.stop(request)

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        self._recorder.verb("restart", request.ref)
        return await self._backend.restart(request, grace)


def drivers(kind: str, recorder: Recorder, stamps: Path | None) -> Mapping[str, Create] | None:
    """The drivers of the measured operator: classes keep the block ``process``, whatever serves it, or ``ec2``; None
    are the operator's own, with nothing between.
    """

    def noop(name: str, spec: WorkspaceClassSpec, cluster: str, resolve: ResolveSecret) -> Backend:
        return NoopBackend(recorder)

    def process(name: str, spec: WorkspaceClassSpec, cluster: str, resolve: ResolveSecret) -> Backend:
        made: Any = Stamped(DRIVERS["process"](name, spec, cluster, resolve), recorder)
        return made  # type: ignore[no-any-return]  # __getattr__ supplies the rest of the protocol

    if kind == "own":
        return None
    if kind == "ec2":
        return {"ec2": _ec2(stamps)}
    return {"process": {"noop": noop, "process": process}[kind]}


def _ec2(stamps: Path | None) -> Create:
    from tests.bench.ec2.stopwatch import Stopwatch, TimedBackend  # the SDK is in no other measurement's memory

    assert stamps is not None
    stopwatch = Stopwatch(stamps)

    def ec2(name: str, spec: WorkspaceClassSpec, cluster: str, resolve: ResolveSecret) -> Backend:
        made: Any = TimedBackend(DRIVERS["ec2"](name, spec, cluster, resolve), stopwatch)
        return made  # type: ignore[no-any-return]  # as above

    return ec2
