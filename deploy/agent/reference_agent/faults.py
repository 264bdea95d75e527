"""The ways in which this agent can be told to misbehave, and which of them are on right now."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

CRASH_CODE = 3

RUNTIME_MODES = frozenset({"slow", "busy", "wedged", "crash", "exit", "silent", "ignore-sigterm"})
START_MODES = frozenset({"start-delay", "crash-on-start"})
NONE = "none"


class FaultError(ValueError):
    """A request for a fault that does not exist, told in a sentence."""


def parse(text: str, allowed: frozenset[str] = RUNTIME_MODES) -> dict[str, float]:
    """`slow=2,silent` → `{"slow": 2.0, "silent": 0.0}`; `none` or nothing → no fault."""
    faults: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        mode, _, seconds = item.partition("=")
        if mode == NONE:
            continue
        if mode not in allowed:
            raise FaultError(f"There is no fault {mode!r} here; use one of {', '.join(sorted(allowed))} or none.")
        try:
            faults[mode] = float(seconds or 0)
        except ValueError:
            raise FaultError(f"The seconds of {mode} must be a number, not {seconds!r}.") from None
    return faults


class Faults:
    """The faults in force. Whoever depends on one asks, or waits with `wait_until`."""

    def __init__(self, text: str = "", *, on_exit: Callable[[], None] = lambda: None) -> None:
        self._active = parse(text, RUNTIME_MODES | START_MODES)
        self._on_exit = on_exit
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: list[Callable[[], None]] = []

    def __contains__(self, mode: str) -> bool:
        return mode in self._active

    def seconds(self, mode: str) -> float:
        return self._active.get(mode, 0.0)

    def as_dict(self) -> dict[str, object]:
        return {"mode": ",".join(sorted(self._active)) or NONE, "faults": dict(sorted(self._active.items()))}

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def request(self, body: Mapping[str, object]) -> None:
        """Replaces the active faults by what `POST /faults` asks for."""
        mode, seconds = body.get("mode"), body.get("seconds", 0)
        if not isinstance(mode, str) or not isinstance(seconds, int | float):
            raise FaultError('Send {"mode": "slow", "seconds": 2}: mode a string, seconds a number.')
        wanted = parse(mode)
        self._active = {name: value or float(seconds) for name, value in wanted.items()}
        self.arm()
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in self._listeners:
            listener()

    def arm(self) -> None:
        """Starts the faults that end the process; called once at start and again after each change."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        if "crash" in self._active:
            # "At once" means before the answer to the request that asked for it is written.
            if self.seconds("crash") <= 0:
                crash()
            self._timer = loop.call_later(self.seconds("crash"), crash)
        elif "exit" in self._active:
            self._timer = loop.call_later(self.seconds("exit"), self._on_exit)

    async def wait_while(self, mode: str) -> None:
        while mode in self._active:
            await self._changed.wait()


def crash() -> None:
    """Ends the process without any clean-up, as a segmentation fault would."""
    os._exit(CRASH_CODE)
