"""Playing a scenario: each step with a death in it or without, and what must be true at its end."""

from __future__ import annotations

import itertools
import json
from collections import Counter

from tests.crash.act import COLLECTED_WITHIN, Act, Chain, Kill, Notes, Outcome, Wrong
from tests.crash.lane import Lane, wait_for
from tests.crash.rigs import Rig
from tests.crash.scenario import End, How, Step, reached
from tests.support.fleet import Object

GONE_WITHIN = 5.0  # a check of the class may be using its directory at this moment

_serial = itertools.count(1)


class WorkspacePlayer:
    """Plays the workspaces of one backend on one lane."""

    def __init__(self, lane: Lane, rig: Rig) -> None:
        self._lane, self._rig = lane, rig
        self.points: dict[str, list[str]] = {}  # of the last chain, by step
        self.notes: Notes = Counter()
        self._deleted: list[str] = []

    def play(self, chain: Chain[Step], *, recording: bool = False) -> tuple[list[Outcome], str]:
        lane, outcomes = self._lane, list[Outcome]()
        self.points = {}
        lane.use(self._rig)
        life = _Life(lane, self._rig, f"{self._rig.name}-{next(_serial)}")
        for step in chain.steps:
            kill = chain.kills.get(step.name)
            try:
                died = life.step(step, kill, recording=recording)
                self.points[step.name] = life.points
            except Exception as error:
                problem = self._explain(life, step, error)
                lane.strip(life.name)
                if kill is None:
                    return outcomes, problem
                return [*outcomes, Outcome(kill, True, problem)], ""
            if kill is not None:
                outcomes.append(Outcome(kill, died))
            if step.end is End.GONE or (died and step.regret is End.GONE):
                break
        self._deleted.append(life.name)
        return outcomes, ""

    def close(self) -> list[str]:
        """What is left of all deleted workspaces in the Kubernetes API, once its garbage collector had its time."""
        left: list[str] = []

        def clean() -> bool:
            left[:] = self._lane.objects_of(*self._deleted)
            return not left

        wait_for(clean, COLLECTED_WITHIN)
        return left

    def _explain(self, life: _Life, step: Step, error: Exception) -> str:
        found = self._lane.workspaces.get(life.name)
        shown = json.dumps({k: (found or {}).get(k) for k in ("metadata", "status")}, indent=1, default=str)
        text = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
        return f"{life.name}, {step.name}: {text}\n--- the object\n{shown}\n{self._lane.tail()}"


class _Life:
    """One workspace from its creation to its end."""

    def __init__(self, lane: Lane, rig: Rig, name: str) -> None:
        self._lane, self._rig, self.name = lane, rig, name
        self._uid = ""
        self._incarnation = 0
        self._instance: str | None = None
        self.points: list[str] = []

    def step(self, step: Step, kill: Kill | None, *, recording: bool) -> bool:
        """Play it; whether the operator died as planned."""
        lane, act = self._lane, Act(self._lane, f"{self.name}/{step.name}", kill)
        act.begin(anew=step.how is How.TAKE_OVER)
        lane.wish(self.name, step)
        if step.how is How.CREATE:
            self._uid = self._found()["metadata"]["uid"]

        def regret() -> None:
            if step.regret is not None:
                lane.regret(self.name, step.regret)

        def at_end(died: bool) -> bool:
            return reached(step, step.regretted_end if died else step.end)(lane.workspaces.get(self.name))

        died = act.follow(at_end, recording=recording, on_death=regret)
        self.points = act.points
        end = step.regretted_end if died else step.end
        self._inspect(step, end, regretted=died and step.regret is not None)
        return died

    def _found(self) -> Object:
        found = self._lane.workspaces.get(self.name)
        if found is None:
            raise Wrong("the object is gone")
        return found

    # -- what must hold

    def _inspect(self, step: Step, end: End, *, regretted: bool) -> None:
        if end is not End.GONE:
            status = self._found()["status"]
            self._check_instance(step, end, status, regretted=regretted)
            self._incarnation = status.get("incarnation", 0)
            self._instance = (status.get("instance") or {}).get("id")
        most = self._rig.most_alive(self._uid)
        if most > 1:
            raise Wrong(f"{most} instances were alive at once")
        if end is End.GONE:
            self._check_gone()
        else:
            self._check_secrets(end)

    def _check_instance(self, step: Step, end: End, status: Object, *, regretted: bool) -> None:
        alive = self._rig.alive(self._uid)
        if end is not End.RUNNING:
            if alive:
                raise Wrong(f"{end}, and alive is {alive}")
            left = self._rig.compute(self._uid)
            if left and (end is End.STOPPED or not self._rig.halts):
                raise Wrong(f"{end}, and there is {left}")
            return
        if len(alive) != 1:
            raise Wrong(f"{end}, and alive is {alive}")
        starts = step.starts + (step.resumes and not self._rig.halts)
        if not regretted and status["incarnation"] != self._incarnation + starts:
            was = f"{self._incarnation} + {starts}"
            raise Wrong(f"incarnation {status['incarnation']} where {was} was wished")
        if step.keeps_instance and status["instance"]["id"] != self._instance:
            raise Wrong(f"instance {status['instance']['id']} in place of {self._instance}")
        if lacking := self._rig.lacks(self._uid):
            raise Wrong(f"{end}, and there is no {lacking}")

    def _check_secrets(self, end: End) -> None:
        wanted, found = set[str](), set[str]()
        if end is End.RUNNING:
            wanted = self._rig.secrets_of(self.name, self._uid, self._incarnation)

        def right() -> bool:
            found.clear()
            found.update(self._lane.secrets_of(self.name))
            return found == wanted

        if not wait_for(right, COLLECTED_WITHIN if self._rig.collects else 0):
            raise Wrong(f"{end}, and its Secrets are {sorted(found)} where {sorted(wanted)} should be")

    def _check_gone(self) -> None:
        """Objects of the Kubernetes API that the garbage collector removes are asked about later, by the caller."""
        left: list[str] = []

        def clean() -> bool:
            left[:] = self._rig.left(self._uid, self._lane.directory)
            return not left

        if not wait_for(clean, COLLECTED_WITHIN if self._rig.collects else GONE_WITHIN):
            raise Wrong(f"deleted, and there is still {left}")
