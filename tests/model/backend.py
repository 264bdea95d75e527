"""The model's backend, and the script of fate that decides how each call comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.model.world import GRACE, State, Unit, moment, seconds

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import LIVE, Capability, Reading
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.backends.protocol import Instance, Progress, ProvisionRequest, StopRequest, WorkspaceRef
from workspace_operator.errors import BackendError, BackendUnreachable

LOST = BackendUnreachable(Reason.BACKEND_UNREACHABLE, "The model's backend did not answer.")
REFUSED = BackendError(Reason.PROVISION_FAILED, "The model's backend refused.")


class Violation(AssertionError):
    """A promise is broken; the explorer adds how it came to that."""


class Crash(BaseException):
    """The operator's process ends here."""


class Fate:
    """Chooses among what may happen; ``next_script`` goes on to the next way, depth first."""

    def __init__(self, state: State, script: list[int]) -> None:
        self.state, self._script = state, script
        self._taken: list[tuple[int, int]] = []  # choice, number of options
        self.told: list[str] = []
        self.dead = False

    def fault(self, *options: str) -> str | None:
        """One of the faults at the cost of the budget, or None."""
        if not options or not self.state.faults:
            return None
        chosen = self._choose(len(options) + 1)
        if not chosen:
            return None
        self.state.faults -= 1
        self.told.append(options[chosen - 1])
        return options[chosen - 1]

    def free(self, *options: str) -> str:
        """One of several normal outcomes."""
        chosen = options[self._choose(len(options))]
        self.told.append(chosen)
        return chosen

    def die(self) -> None:
        """The operator crashes here."""
        self.dead = True
        raise Crash

    def alive(self) -> None:
        """Nothing is called by a dead process."""
        if self.dead:
            raise Crash

    def next_script(self) -> list[int]:
        taken = list(self._taken)
        while taken and taken[-1][0] + 1 >= taken[-1][1]:
            taken.pop()
        if not taken:
            return []
        return [choice for choice, _ in taken[:-1]] + [taken[-1][0] + 1]

    def _choose(self, options: int) -> int:
        index = len(self._taken)
        chosen = self._script[index] if index < len(self._script) else 0
        self._taken.append((chosen, options))
        return chosen


def shown(unit: Unit) -> Instance:
    """A unit as the backend shows it."""
    halting = unit.reading is Reading.HALTING
    return Instance(
        ref=WorkspaceRef("model", "u", "n", "w", "c"),
        incarnation=unit.incarnation,
        reading=unit.reading,
        id=f"i-{unit.incarnation}",
        parameters=unit.parameters,
        address="127.0.0.1:8080" if unit.reading is Reading.RUNNING else None,
        halting_since=moment(unit.since) if halting else None,
    )


def _never_made(s: State) -> bool:
    return s.config.hopeless in ("is refused", "gets no answer")


class ModelBackend(MeteredBackend):
    """Keeps the contract of backends/protocol.py on a :class:`State`; it protects nobody from a second instance."""

    def __init__(self, state: State, fate: Fate, eyes: Any) -> None:
        self.kind = "process"
        self.s, self.fate, self._eyes = state, fate, eyes
        self.starts = 0

    @property
    def capabilities(self) -> frozenset[Capability]:
        halt = {Capability.HALT} if self.s.config.halts else set[Capability]()
        return frozenset({Capability.FREEZE, Capability.DELIVER} | halt)

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        self._begin(f"provision #{request.incarnation}")
        half_way = () if self.s.config.halts else ("crash half-way",)
        outcome = self._outcome("refused", "answer lost", "crash after", *half_way)
        if outcome == "refused":
            raise REFUSED
        if outcome == "crash half-way":
            self._make(request)
            self.fate.die()
        self.starts += _never_made(self.s)
        if _never_made(self.s):
            raise REFUSED if self.s.config.hopeless == "is refused" else LOST
        result = self._make_run(request)
        self._end(outcome)
        return result

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        how = "release" if request.release else "freeze" if request.freeze else "halt"
        self._begin(how if request.only_before is None else f"{how} before #{request.only_before}")
        outcome = self._outcome("refused", "answer lost", "crash after")
        if outcome == "refused":
            raise REFUSED
        if not request.release and self._eyes.wishes_running and self.s.works and (self.s.working or self.s.flying):
            raise Violation("it is paused for being idle while a task is known (I-22)")
        self._stop(request)
        self._end(outcome)
        return tuple(shown(unit) for unit in self.s.units)

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        self._begin(f"restart to #{request.incarnation}")
        outcome = self._outcome("refused", "answer lost", "crash after", "crash half-way")
        if outcome == "refused":
            raise REFUSED
        self._stop(StopRequest(request.ref, grace, release=True, only_before=request.incarnation))
        if outcome == "crash half-way":
            self.fate.die()
        left = any(unit.incarnation < request.incarnation for unit in self.s.units)
        result = None if left else self._make_run(request)
        self._end(outcome)
        return result

    async def deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        self._begin("deliver")
        outcome = self._outcome("refused", "answer lost", "crash after")
        if outcome == "refused":
            raise REFUSED
        self.s.delivered = True
        self._end(outcome)

    async def delete_data(self, ref: WorkspaceRef) -> bool:
        self._begin("delete data")
        if self.s.units:
            raise Violation("data is deleted while an instance exists")
        outcome = self._outcome("refused", "crash after", "not gone yet")
        if outcome == "refused":
            raise REFUSED
        if outcome == "not gone yet":
            return False
        self.s.data = False
        self._end(outcome)
        return True

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _begin(self, what: str) -> None:
        self.fate.alive()
        self.fate.told.append(what)
        if self._eyes.unseen is not None:
            raise Violation(f"{what}: a verb without a reading (I-40)")

    def _outcome(self, *options: str) -> str | None:
        faults = self.s.config.faults
        allowed = [o for o in options if ("crash" if o.startswith("crash") else "verb") in faults]
        return self.fate.fault(*allowed)

    def _end(self, outcome: str | None) -> None:
        if outcome == "answer lost":
            raise LOST
        if outcome == "crash after":
            self.fate.die()

    def _make_run(self, request: ProvisionRequest) -> Instance:
        s = self.s
        self.starts += 1
        self._check_back_off()
        unit = self._make(request)
        if unit.reading in (Reading.HALTING, Reading.FAILED):
            raise REFUSED
        if unit.reading in (Reading.HALTED, Reading.FROZEN):
            s.own, s.heard, s.counted = s.own and unit.reading is Reading.FROZEN, None, None
            slow = unit.reading is Reading.HALTED and self.fate.free("at once", "slowly") == "slowly"
            unit = replace(unit, reading=Reading.STARTING if slow else Reading.RUNNING)
        self._put(unit)
        if len(s.live) > 1:
            raise Violation(f"{len(s.live)} live instances (I-06)")
        if s.config.credentials and not request.files:
            raise Violation("an instance is started without its token (I-50)")
        if s.config.hopeless == "ends at once":
            s.units = (replace(unit, reading=Reading.HALTED),)
            unit = s.units[0]
        s.data, s.delivered = True, s.delivered or bool(request.files)
        if s.config.credentials and not s.secret:
            raise Violation("an instance is started with a revoked token (I-50)")
        return shown(unit)

    def _make(self, request: ProvisionRequest) -> Unit:
        """Find the instance, or create it without starting it."""
        s = self.s
        unit = next((unit for unit in s.units if unit.incarnation == request.incarnation), None)
        if unit is None:
            if request.incarnation in s.released and not s.wiped:  # a wiped status remembers no number
                raise Violation("an incarnation is provisioned again after its release (I-08)")
            unit = Unit(request.incarnation, Reading.HALTED, request.parameters)
            self._put(unit)
        return unit

    def _put(self, unit: Unit) -> None:
        self.s.units = (*(u for u in self.s.units if u.incarnation != unit.incarnation), unit)

    def _check_back_off(self) -> None:
        failures = self.s.status.get("failures")
        if not failures or failures["observedGeneration"] != self.s.generation:
            return
        if self.s.now < seconds(failures["retryAfter"]):
            raise Violation("a start is tried again during its back-off (I-26)")

    def _stop(self, request: StopRequest) -> None:
        s = self.s
        if not s.config.halts:
            request = replace(request, release=True, freeze=False)
        targets = [u for u in s.units if request.only_before is None or u.incarnation < request.only_before]
        if not targets:
            return
        executing = any(u.reading in (Reading.STARTING, Reading.RUNNING) for u in targets) and not request.freeze
        slow = executing and self.fate.free("at once", "slowly") == "slowly"
        kept = [u for u in s.units if u not in targets]
        for unit in targets:
            left = self._stopped(unit, request, slow)
            if left is not None:
                kept.append(left)
            else:
                s.released |= {unit.incarnation}
        s.units = tuple(kept)

    def _stopped(self, unit: Unit, request: StopRequest, slow: bool) -> Unit | None:
        if unit.reading is Reading.HALTING:
            release = unit.released or request.release
            if self.s.now < unit.since + GRACE:
                return replace(unit, released=release)
            return None if release else replace(unit, reading=Reading.HALTED)
        if unit.reading not in LIVE:
            return None if request.release else unit
        if request.freeze and not request.release and unit.reading in (Reading.RUNNING, Reading.FROZEN):
            return replace(unit, reading=Reading.FROZEN)
        if slow and unit.reading is not Reading.FROZEN:
            return replace(unit, reading=Reading.HALTING, since=self.s.now, released=request.release)
        return None if request.release else replace(unit, reading=Reading.HALTED)
