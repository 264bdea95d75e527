"""Ending containers without waiting for them. Used inside backends/docker only.

The engine's own stop call blocks for the whole grace period. Here the first stop sends the container's stop
signal and remembers when, and a later one kills. The memory is this process's: after a restart of the operator a
container gets its signal, and its grace period, once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta

from docker.errors import APIError

from workspace_operator.backends.docker import faults
from workspace_operator.backends.docker.engine import Client
from workspace_operator.backends.docker.readings import Seen
from workspace_operator.backends.protocol import LIVE, Reading, StopRequest

_DONE = (
    304,
    404,
    409,
)  # already so, gone, or no longer in the state that the call is for: seen by the next look


class Endings:
    """The containers that were told to stop, and what to do with one next."""

    def __init__(self) -> None:
        self.since: dict[str, datetime] = {}  # wall clock, for readers
        self._signalled: dict[str, float] = {}  # monotonic, for the grace period

    def end(self, client: Client, seen: Seen, request: StopRequest) -> None:
        """One step towards what the request asks for."""
        reading = seen.instance.reading
        if seen.state == "removing":
            return
        if reading in LIVE:
            if request.freeze and not request.release and reading is not Reading.HALTING:
                self._freeze(client, seen)
                return
            killed = self._halt(client, seen, request.grace)
            if not (request.release and killed):
                return
        if request.release:
            _tolerant(client.remove_container, seen.id, v=True, force=False)
            self.forget(seen.id)

    def forget(self, container: str) -> None:
        """The container does not run any more, or was started anew."""
        self._signalled.pop(container, None)
        self.since.pop(container, None)

    def keep_only(self, running: Collection[str], listed_at: float) -> None:
        """Drop the memory of containers that a listing, begun at ``listed_at``, showed not running."""
        for container, at in list(self._signalled.items()):
            if at < listed_at and container not in running:
                self.forget(container)

    def _freeze(self, client: Client, seen: Seen) -> None:
        if seen.instance.reading is not Reading.FROZEN:
            _tolerant(client.pause, seen.id)

    def _halt(self, client: Client, seen: Seen, grace: timedelta) -> bool:
        """Signal, or kill once the grace period is over; True after a kill."""
        if seen.instance.reading is Reading.FROZEN:
            _tolerant(client.unpause, seen.id)  # a frozen process gets no signal
        signalled = self._signalled.get(seen.id)
        started = time.monotonic() if signalled is None else signalled
        if time.monotonic() - started >= grace.total_seconds():
            _tolerant(client.kill, seen.id, signal="SIGKILL")
            return True
        if signalled is None:
            _tolerant(client.kill, seen.id, signal=_stop_signal(client, seen.id))
            self._signalled[seen.id] = started
            self.since[seen.id] = datetime.now(UTC)
        return False


def _stop_signal(client: Client, container: str) -> str:
    """The image may ask for another signal than SIGTERM."""
    try:
        return str(client.inspect_container(container)["Config"].get("StopSignal") or "SIGTERM")
    except APIError as exc:
        if faults.has_status(exc, 404):
            return "SIGTERM"
        raise


def _tolerant(call: Callable[..., object], container: str, **options: object) -> None:
    """Do it, unless it is done already or the container changed meanwhile."""
    try:
        call(container, **options)
    except APIError as exc:
        if not faults.has_status(exc, *_DONE):
            raise
