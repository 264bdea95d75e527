"""Begin and end of each backend verb and of each AWS SDK call, written as JSON lines by the process that makes them.

A call's time is that of the SDK's client method, from its parameters to its parsed answer: what any program that uses
boto3 spends on it. It is taken by botocore's own events, in the thread that makes the call. ``about`` holds the
workspace UIDs and instance ids that a call names, so that a call can be told to be a verb's, although many verbs are
under way at once and one call may serve several.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore

from workspace_operator.backends.protocol import Backend, Instance, Progress, ProvisionRequest, StopRequest

_NAMED = re.compile(r"\bi-[0-9a-f]{17}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_BEGAN = "bench_began"


def named(parameters: Mapping[str, Any]) -> set[str]:
    """Instance ids and UIDs among the parameters of a call; the user data is not searched."""
    searched = {key: value for key, value in parameters.items() if not key.startswith("UserData")}
    return set(_NAMED.findall(json.dumps(searched, default=str)))


class Stopwatch:
    """Appends to a file; times are seconds of the wall clock, which the counterpart's console uses, too."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        botocore.register_initializer(self._listen)

    def write(self, what: str, name: str, began: float, about: set[str]) -> None:
        line = {"what": what, "name": name, "began": began, "ended": time.time(), "about": sorted(about)}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    @contextmanager
    def verb(self, name: str, uid: str) -> Iterator[None]:
        """Around one verb; one that fails is not written."""
        began = time.time()
        yield
        self.write("verb", name, began, {uid})

    def _listen(self, session: Any) -> None:
        session.register("provide-client-params", self._begin)
        session.register("after-call", self._end)
        session.register("after-call-error", self._end)

    def _begin(self, params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[_BEGAN] = time.time(), named(params)

    def _end(self, context: dict[str, Any], event_name: str, **_: Any) -> None:
        began, about = context[_BEGAN]
        self.write("call", event_name.rpartition(".")[2], began, about)


class TimedBackend:
    """A real backend whose starts and stops are timed; all else goes straight through."""

    def __init__(self, backend: Backend, stopwatch: Stopwatch) -> None:
        self._backend, self._stopwatch = backend, stopwatch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        with self._stopwatch.verb("provision", request.ref.uid):
            return await self._backend.provision(request)

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        with self._stopwatch.verb("stop", request.ref.uid):
            return await self._backend.stop(request)
