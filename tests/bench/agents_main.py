"""Reference agents, many in one process and each on a port of its own; every message that starts work is stamped.

Fifty agents as fifty processes would measure this machine's memory. The first stamp holds the addresses.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import time
from pathlib import Path

import uvloop
from a2a.server.agent_execution.context import RequestContext
from a2a.server.events import EventQueue
from tests.bench.operator_main import die_with_parent

from reference_agent.delegate import Delegator
from reference_agent.executor import EchoExecutor
from reference_agent.faults import Faults
from reference_agent.memory import Memory
from reference_agent.server import Server
from reference_agent.settings import Settings
from reference_agent.status import Status

NAMES = "agent-{:02}"


class Counted(EchoExecutor):
    """Writes down each message before the work on it begins, with how many are worked on then (itself included)."""

    def __init__(self, settings: Settings, faults: Faults, status: Status, stamps: int) -> None:
        super().__init__(settings, Memory(None), faults, status, Delegator(settings))
        self._agent, self._stamps, self._at_work = settings.name, stamps, 0

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        at, message = time.monotonic(), context.message
        assert message is not None
        self._at_work += 1
        stamp = {"name": self._agent, "text": context.get_user_input(), "id": message.message_id, "at": at}
        os.write(self._stamps, json.dumps({**stamp, "at_work": self._at_work}).encode() + b"\n")
        try:
            await super().execute(context, event_queue)
        finally:
            self._at_work -= 1


async def serve(number: int, first: int, work: float, stamps: int) -> None:
    """Agents ``first`` and following, each with a task that takes ``work`` seconds."""
    addresses, serving = {}, []
    for name in (NAMES.format(first + n) for n in range(number)):
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        addresses[name] = f"127.0.0.1:{listener.getsockname()[1]}"
        environment = {"WORKSPACE_NAME": name, "WORKSPACE_PORT": str(listener.getsockname()[1])}
        settings = Settings.from_environ(environment)
        faults = Faults(f"slow={work}")
        executor = Counted(settings, faults, Status(faults), stamps)
        serving.append(Server(settings, executor, faults, on_started=lambda: None).serve([listener]))
    os.write(stamps, json.dumps({"addresses": addresses}).encode() + b"\n")
    await asyncio.gather(*serving)


def main() -> int:
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--work", type=float, default=0.0, help="seconds that a task takes")
    parser.add_argument("--counts", type=Path, help="not used: all is in the stamps")
    parser.add_argument("--stamps", type=Path, required=True)
    arguments = parser.parse_args()
    stamps = os.open(arguments.stamps, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.agents, arguments.first, arguments.work, stamps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
