"""What may happen between two moments of a trace, as values that read well when hypothesis prints them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from tests.model.simulation import NAMES, Simulation

BACKEND = ("provision", "stop", "look", "list instances", "delete data")
API = (
    "write status",
    "get workspace",
    "list workspaces",
    "list delegations",
    "create identity",
    "delete identity",
    "write class",
)
KOPF = "patch of finalizers"
EDITS = (
    *("Running", "Running", "Running", "Paused", "Stopped", "restarts", "restarts", "deletes", "takes another image"),
    *("strips the finalizer of", "deletes by force", "replaces by force"),
)


@dataclass(frozen=True)
class User:
    """An edit, at once or right before the operator's n-th call from now on; a wish creates what is not there."""

    does: str
    who: str
    before_call: int = 0

    def happen(self, sim: Simulation) -> None:
        sim.user(self.does, self.who, self.before_call)


@dataclass(frozen=True)
class Instance:
    """What happens to an instance behind the operator's back."""

    number: int
    does: str

    def happen(self, sim: Simulation) -> None:
        sim.instance(self.number, self.does)


@dataclass(frozen=True)
class Copies:
    """Instances with the labels of workspaces that are gone, made by hand."""

    number: int

    def happen(self, sim: Simulation) -> None:
        sim.copies(self.number)


@dataclass(frozen=True)
class Next:
    """How the next calls of a kind come out."""

    call: str
    outcome: str
    times: int = 1

    def happen(self, sim: Simulation) -> None:
        sim.armed += [(self.call, self.outcome)] * self.times


@dataclass(frozen=True)
class Crash:
    """The operator ends at the next call of a kind, or at the n-th call from now on; ``down`` is in seconds."""

    at: str | int
    when: str
    down: float

    def happen(self, sim: Simulation) -> None:
        sim.restart_at = sim.loop.now + self.down
        if isinstance(self.at, int):
            sim.kill_at(self.at)
        else:
            sim.armed.append((self.at, f"crash {self.when}"))


@dataclass(frozen=True)
class Away:
    """The API server, the backend, or one kind of call does not answer for so many seconds."""

    what: str
    seconds: float

    def happen(self, sim: Simulation) -> None:
        sim.away[self.what] = sim.loop.now + self.seconds


@dataclass(frozen=True)
class Past:
    """For so many seconds, listings show what there is now: all of the backend's, a sweep's of the API server."""

    of: str
    seconds: float

    def happen(self, sim: Simulation) -> None:
        (sim.api if self.of == "api" else sim.cloud).freeze(self.seconds)


@dataclass(frozen=True)
class Silence:
    """The watch is silent for so many seconds, and then brings an event twice."""

    seconds: float

    def happen(self, sim: Simulation) -> None:
        sim.stall(self.seconds)


@dataclass(frozen=True)
class Late:
    """An older version of an object comes after a newer one."""

    who: str
    back: int

    def happen(self, sim: Simulation) -> None:
        sim.deliver_again(self.who, self.back)


@dataclass(frozen=True)
class Delegations:
    """To the workspace that may idle: so many wait, are sent, or are over."""

    does: str
    number: int = 1

    def happen(self, sim: Simulation) -> None:
        if self.does == "wait":
            sim.callers.wait(self.number)
        elif self.does == "are sent":
            sim.callers.go()
        elif self.does == "are over":
            sim.callers.end()
        else:
            sim.callers.leave()


@dataclass(frozen=True)
class Nothing:
    """Time passes."""

    def happen(self, sim: Simulation) -> None:
        return


Happening = User | Instance | Copies | Next | Crash | Away | Past | Silence | Late | Delegations | Nothing

_WHO = st.sampled_from((*NAMES, "a", "a", "b", "b"))  # more happens to fewer, so that it meets
_SECONDS = st.sampled_from((5.0, 30.0, 120.0, 120.0))
_DOWN = st.sampled_from((0.0, 30.0, 120.0))
_OUTCOMES = (
    *((call, outcome) for call in BACKEND for outcome in ("refused", "timed out", "answer lost", "hangs")),
    *((call, outcome) for call in API for outcome in ("refused", "timed out", "answer lost")),
    *(("provision", "carried out late"), ("provision", "sent twice"), ("stop", "sent twice")),
    *((KOPF, "answer lost"), (KOPF, "timed out"), (KOPF, "conflict"), ("write status", "somebody was faster")),
)

_NOW = st.builds(User, st.sampled_from(EDITS), _WHO)
_IN_BETWEEN = st.builds(User, st.sampled_from(EDITS), _WHO, st.integers(1, 12))
_INSTANCE = st.builds(
    Instance, st.integers(0, 4), st.sampled_from(("exits", "fails", "vanishes", "is started by hand"))
)
_NEXT = st.builds(lambda how, times: Next(how[0], how[1], times), st.sampled_from(_OUTCOMES), st.integers(1, 2))
_CRASH = st.one_of(
    st.builds(Crash, st.integers(1, 12), st.just("before"), _DOWN),
    st.builds(Crash, st.sampled_from((*BACKEND, *API, KOPF)), st.sampled_from(("before", "after")), _DOWN),
)
_DELEGATIONS = st.builds(
    Delegations, st.sampled_from(("wait", "are sent", "are sent", "are over", "leave")), st.sampled_from((1, 100))
)
_AWAY = st.builds(Away, st.sampled_from(("api", "backend", "stop", "provision", "write status")), _SECONDS)
_PAST = st.builds(Past, st.sampled_from(("backend", "backend", "api")), _SECONDS)

#: By weight: half of all that happens is done by people.
HAPPENINGS: st.SearchStrategy[Happening] = st.sampled_from(
    (
        *([_NOW] * 6 + [_IN_BETWEEN] * 4),
        *([_INSTANCE] * 2 + [st.builds(Copies, st.integers(1, 6))]),
        *([_NEXT] * 3 + [_CRASH] * 3),
        *([_AWAY] + [_PAST] * 5 + [_DELEGATIONS] * 3),
        *(st.builds(Silence, _SECONDS), st.builds(Late, _WHO, st.integers(0, 8))),
        st.builds(Nothing),
    )
).flatmap(lambda kind: kind)
