"""What the agent says about itself: its state, a sentence, and how many tasks it works on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reference_agent.faults import Faults

MESSAGE_LIMIT = 256


@dataclass(frozen=True)
class Report:
    """One reading of the agent, as it travels on the Lease."""

    state: str
    message: str
    active_tasks: int

    def annotations(self) -> dict[str, str]:
        return {
            "workspace-operator.dev/agent-state": self.state,
            "workspace-operator.dev/agent-message": self.message[:MESSAGE_LIMIT],
            "workspace-operator.dev/active-tasks": str(self.active_tasks),
        }


class Status:
    """Collects what happens in the agent and wakes whoever reports it when that is worth a report at once."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._serving = False
        self._active = 0
        # Two grades of news: a new state is reported at once, a change in activity soon.
        self.state_changed = asyncio.Event()
        self.activity_changed = asyncio.Event()
        faults.listen(self.state_changed.set)

    def serving(self) -> None:
        self._serving = True
        self.state_changed.set()

    @contextmanager
    def task(self) -> Iterator[None]:
        self._active += 1
        # Only idle ↔ at work is news; every further task would cost the API server a write.
        if self._active == 1:
            self.activity_changed.set()
        try:
            yield
        finally:
            self._active -= 1
            if self._active == 0:
                self.activity_changed.set()

    async def news(self, spacing: float) -> None:
        """Returns at a new state, or at a change in activity once `spacing` seconds have passed."""
        try:
            await asyncio.wait_for(self.state_changed.wait(), spacing)
        except TimeoutError:
            waits = {asyncio.ensure_future(event.wait()) for event in (self.state_changed, self.activity_changed)}
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    def report(self) -> Report:
        """The reading to send now; what changed until here is no longer news."""
        self.state_changed.clear()
        self.activity_changed.clear()
        state, message = self._judge()
        return Report(state, message, self._active)

    def _judge(self) -> tuple[str, str]:
        if "wedged" in self._faults:
            return "Wedged", "The agent does not answer cards or messages because the fault 'wedged' is on."
        if not self._serving:
            return "Starting", "The agent is starting and does not listen yet."
        if "busy" in self._faults:
            return "Busy", "The agent rejects new messages because the fault 'busy' is on."
        return "Ready", "The agent answers messages."
