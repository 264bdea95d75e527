"""The engine's event stream, as wake-ups. Used inside backends/docker only.

The stream lives in a thread of its own, since it would occupy one of the pool for ever. Reading has a time
limit: after some silence the engine is asked whether it lives and the stream is opened again from the last event, so an
engine that died without a word is noticed within that limit. Losing an event only costs time; the caller's
listing is the truth.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests
from docker.types import CancellableStream
from urllib3.exceptions import ReadTimeoutError

from workspace_operator.api import meta
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.docker.engine import Client, Engine
from workspace_operator.backends.protocol import Wake
from workspace_operator.errors import BackendUnreachable

SILENCE: Final = 60.0  # seconds after which a quiet engine is asked whether it lives
_CHANGES: Final = ("start", "die", "oom", "pause", "unpause", "destroy")  # what changes a reading


class Events:
    """Remembers how far the stream was read, across broken connections."""

    def __init__(self, engine: Engine, cluster: str, class_name: str, silence: float = SILENCE) -> None:
        self._engine = engine
        self._labels = [f"{meta.LABEL_CLUSTER}={cluster}", f"{meta.LABEL_CLASS}={class_name}"]
        self._silence = silence
        self._last: int | None = None  # nanoseconds, by the engine's clock

    async def follow(self, wake: Wake) -> None:
        """Call ``wake`` for each change until cancelled; raises BackendUnreachable when the stream breaks."""
        await self._engine.prepare()
        follower = _Follower(self._listen, wake)
        follower.thread.start()
        try:
            await asyncio.wrap_future(follower.ended)
        finally:
            follower.stop()

    def _listen(self, follower: _Follower) -> None:
        while not follower.stopped.is_set():
            self._engine.call("Following the engine's events", lambda client: self._one_stream(client, follower))

    def _one_stream(self, client: Client, follower: _Follower) -> None:
        """Read until it has been quiet for long; any other end is a broken stream."""
        params: dict[str, Any] = {
            "filters": json.dumps({"type": ["container"], "label": self._labels, "event": list(_CHANGES)})
        }
        if self._last is not None:
            params["since"] = f"{self._last // 10**9}.{self._last % 10**9:09d}"
        # The SDK's own call would wait for ever between two events.
        url = f"{client.base_url}/v{client.api_version}/events"
        response = client.get(url, params=params, stream=True, timeout=(self._engine.deadline, self._silence))
        follower.opened(response)
        with response:
            response.raise_for_status()
            if self._last is None:
                self._last = int(parsedate_to_datetime(response.headers["Date"]).timestamp()) * 10**9
            try:
                for line in response.iter_lines(chunk_size=None):
                    if line:
                        self._take(json.loads(line), follower.wake)
            except Exception as exc:
                if follower.stopped.is_set():
                    return  # the stream was shut down under the reader
                if not (exc.args and isinstance(exc.args[0], ReadTimeoutError)):
                    raise
                client.ping()
                return
        if not follower.stopped.is_set():
            raise BackendUnreachable(
                Reason.BACKEND_UNREACHABLE,
                f"The event stream of the Docker engine at {self._engine.host} ended.",
            )

    def _take(self, event: dict[str, Any], wake: Wake) -> None:
        self._last = max(self._last or 0, int(event.get("timeNano") or 0))
        uid = event.get("Actor", {}).get("Attributes", {}).get(meta.LABEL_UID)
        if uid:
            wake(uid)


class _Follower:
    """A thread on the stream, and the means to end it from the event loop."""

    def __init__(self, listen: Callable[[_Follower], None], wake: Wake) -> None:
        self.wake = wake
        self.ended: Future[None] = Future()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(listen,), name="docker-events", daemon=True)
        self._response: requests.Response | None = None

    def opened(self, response: requests.Response) -> None:
        self._response = response
        if self.stopped.is_set():
            self._close()

    def stop(self) -> None:
        self.stopped.set()
        self._close()

    def _close(self) -> None:
        response = self._response
        if response is None:
            return
        try:
            # Only shutting the socket down wakes the thread that reads from it; the SDK knows how to find it.
            CancellableStream(None, response).close()
        except (AttributeError, OSError):
            return  # closed already

    def _run(self, listen: Callable[[_Follower], None]) -> None:
        self.ended.set_running_or_notify_cancel()
        try:
            listen(self)
        except BaseException as exc:
            self.ended.set_exception(exc)
        else:
            self.ended.set_result(None)
