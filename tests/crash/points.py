"""Inside the operator under test: the journal of calls, and the death at one of them.

The harness and the operator share a directory: the harness writes ``plan`` (which step is played, and where to die),
the operator appends to ``journal``. Both are read while the operator runs, so that one which took over after a death
can be the next to die, without another start.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BEFORE, AFTER = "before", "after"
KILLED, WATCH, CALL = "killed", "watch", "call"
_kill = os.kill  # the seams wrap os.kill


@dataclass(frozen=True)
class Plan:
    """Which step is played, and the point and side to die at, if any."""

    step: str
    point: str = ""
    side: str = ""

    def write(self, directory: Path) -> None:
        part = directory / "plan.part"
        part.write_text(json.dumps([self.step, self.point, self.side]))
        part.replace(directory / "plan")


class Switch:
    """Knows each call before and after it is made. Called from the event loop and from any thread."""

    def __init__(self, directory: Path) -> None:
        self._plan_file = directory / "plan"
        self._journal = os.open(directory / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._plan = Plan("")
        self._made: Counter[str] = Counter()

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        """Around a call to the outside; it may end in an error, too, and still have had its effect."""
        plan, point = self._enter(call)
        self._die_if(plan, point, BEFORE)
        try:
            yield
        finally:
            self._die_if(plan, point, AFTER)

    def watching(self, what: str) -> None:
        """A stream was opened. It is no step of a pass, but tells that the operator is up."""
        self._note(WATCH, what)

    def _enter(self, call: str) -> tuple[Plan, str]:
        with self._lock:
            plan = Plan(*json.loads(self._plan_file.read_text()))
            if plan != self._plan:
                self._plan = plan
                self._made.clear()
            self._made[call] += 1
            point = f"{call} #{self._made[call]}"
            self._note(CALL, f"{plan.step}\t{point}")
        return plan, point

    def _die_if(self, plan: Plan, point: str, side: str) -> None:
        if (plan.point, plan.side) != (point, side):
            return
        self._note(KILLED, f"{plan.step}\t{point} {side}")
        while True:  # nothing more happens in this thread, however long the signal takes
            _kill(os.getpid(), signal.SIGKILL)
            time.sleep(1)

    def _note(self, kind: str, text: str) -> None:
        os.write(self._journal, f"{kind}\t{text}\n".encode())


@dataclass(frozen=True)
class Journal:
    """What the harness reads of it."""

    file: Path

    def _rows(self, kind: str) -> list[str]:
        text = self.file.read_text() if self.file.exists() else ""
        rows = (line.partition("\t") for line in text.splitlines())
        return [rest for found, _, rest in rows if found == kind]

    def watches(self) -> set[str]:
        return set(self._rows(WATCH))

    def points(self, step: str | None = None) -> list[str]:
        """The points of a step, or all, in their order."""
        rows = (row.partition("\t") for row in self._rows(CALL))
        return [point for at, _, point in rows if step in (None, at)]

    def killed(self) -> bool:
        return bool(self._rows(KILLED))

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.file.read_text().splitlines()[-lines:]) if self.file.exists() else ""
