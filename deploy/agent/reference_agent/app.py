"""Wires the parts of the agent and runs them until it is asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket

from reference_agent.delegate import Delegator
from reference_agent.executor import EchoExecutor
from reference_agent.faults import Faults
from reference_agent.lease import LeaseRenewer
from reference_agent.memory import Memory
from reference_agent.server import Server
from reference_agent.settings import Settings
from reference_agent.status import Status

log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serves until told to stop, and returns the exit code."""
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        log.error("The agent cannot serve on port %s: %s", settings.port, error)
        return 4
    return 0


async def serve(settings: Settings) -> None:
    stop = asyncio.Event()
    faults = Faults(settings.faults, on_exit=stop.set)
    _obey_signals(stop, faults)
    faults.arm()
    status = Status(faults)
    delegator = Delegator(settings)
    executor = EchoExecutor(settings, Memory(settings.data), faults, status, delegator)
    server = Server(settings, executor, faults, on_started=status.serving)
    # The Lease first: a slow start is then seen as Starting instead of as silence.
    renewing = asyncio.create_task(LeaseRenewer(settings, status, faults).run())
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), faults.seconds("start-delay"))
        if not stop.is_set():
            await _listen(settings, server, stop)
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await server.close()
        await delegator.close()


async def _listen(settings: Settings, server: Server, stop: asyncio.Event) -> None:
    family = socket.AF_INET6 if ":" in settings.bind_address else socket.AF_INET
    # Bound here and not by uvicorn, which ends the process by itself when the port is taken.
    listener = socket.create_server((settings.bind_address, settings.port), family=family, backlog=512)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio leaves it off on such a socket: 40 ms each
    serving = asyncio.create_task(server.serve([listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.stop()
        await serving
    finally:
        stopping.cancel()


def _obey_signals(stop: asyncio.Event, faults: Faults) -> None:
    def obey(name: str) -> None:
        if "ignore-sigterm" in faults:
            log.warning("Ignoring %s because the fault 'ignore-sigterm' is on.", name)
            return
        log.info("Stopping on %s.", name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, obey, number.name)
