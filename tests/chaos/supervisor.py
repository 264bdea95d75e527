"""What a Deployment is to the operator: when it ends, for whatever reason, there is a new one."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from types import TracebackType

from tests.chaos.api import Api
from tests.support.operator import Operator

LEASE = "/apis/coordination.k8s.io/v1/namespaces/workspace-operator-system/leases/"
PAUSE = 1.0  # seconds until it is started again


class Supervisor:
    """Keeps one operator alive on a thread of its own."""

    def __init__(self, operator: Operator, api: Api, lease: str) -> None:
        self._operator, self._api, self._lease = operator, api, lease
        self.ends: Counter[str] = Counter()  # by how it ended
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        with self._lock:
            if self._operator.alive:
                self._operator.stop()

    def kill(self) -> None:
        """kill -9."""
        with self._lock:
            self._operator.kill()

    def tail(self, lines: int = 30) -> str:
        return self._operator.tail(lines)

    def _start(self) -> None:
        # The Lease of a dead one is taken away: to wait for its end proves nothing here (test_enemy_leaders does).
        self._api.delete(LEASE + self._lease)
        self._operator.start(wait=False)

    def _supervise(self) -> None:
        while not self._done.wait(PAUSE):
            with self._lock:
                if self._operator.alive:
                    continue
                code = self._operator.stop()
                self.ends["killed" if code == -signal.SIGKILL else f"exit code {code}"] += 1
                self._start()
