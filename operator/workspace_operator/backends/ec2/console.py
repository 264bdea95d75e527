"""The serial console: the workload's output, and how it ended. Used inside backends/ec2 only.

EC2 keeps the last 64 KB, also of a stopped instance (API Reference, GetConsoleOutput). ``boot.py`` marks the lines of
the workload; without any (the machine did not get that far) the console itself is shown.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from workspace_operator.api.reasons import Reason
from workspace_operator.backends.ec2 import boot
from workspace_operator.backends.ec2.connection import Connection
from workspace_operator.backends.ec2.faults import NotFound
from workspace_operator.backends.ec2.operations import GET_CONSOLE_OUTPUT
from workspace_operator.backends.ec2.readings import Seen
from workspace_operator.backends.protocol import Instance, Reading
from workspace_operator.errors import BackendUnreachable

_ENDED: Final = re.compile(re.escape(boot.ENDED) + r"(\d{1,3})\s*$", re.MULTILINE)
_KEPT: Final = 1000
_NO_QUEUE: Final = 1.0  # seconds; EC2 tells of one instance per call, and a status must not hold up a reading


class Console:
    """Reads console output; the status of an ended instance is asked for once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._codes: dict[tuple[str, str], int] = {}  # instance and its last transition → status

    async def tail(self, instance: str, lines: int) -> str:
        """The last lines of the workload."""
        written = (await self._read(instance)).splitlines()
        own = [line.removeprefix(boot.OUTPUT) for line in written if line.startswith(boot.OUTPUT)]
        shown = (own or written)[-lines:] if lines > 0 else []
        return "".join(f"{line}\n" for line in shown)

    async def with_exit_code(self, seen: Seen) -> Instance:
        """The instance, if it is stopped with the status that its workload ended with."""
        if seen.instance.reading is not Reading.HALTED:
            return seen.instance
        key = seen.id, seen.transition
        if key not in self._codes:
            try:
                ended = _ENDED.findall(await self._read(seen.id, _NO_QUEUE))
            except BackendUnreachable:
                return seen.instance  # the reading counts; the next look asks for the status again
            if not ended:
                return seen.instance
            if len(self._codes) >= _KEPT:
                self._codes.clear()
            self._codes[key] = int(ended[-1])
        return replace(seen.instance, exit_code=self._codes[key])

    async def _read(self, instance: str, patience: float | None = None) -> str:
        """The SDK decodes it. The newest output is kept for machines of the Nitro system only."""
        doing = "Reading the console output"
        try:
            answer = await self._connection.call(
                GET_CONSOLE_OUTPUT, doing, patience=patience, InstanceId=instance, Latest=True
            )
        except NotFound:
            return ""
        except BackendUnreachable as error:
            if error.failure.reason != Reason.UNSUPPORTED:
                raise
            answer = await self._connection.call(GET_CONSOLE_OUTPUT, doing, patience=patience, InstanceId=instance)
        return str(answer.get("Output") or "")
