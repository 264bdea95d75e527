"""A whole simulated world with one operator in it: what people do, what goes wrong, and what must hold all the time."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from tests.model.apiserver import CLUSTER, NAMESPACE, Api
from tests.model.backend import Violation
from tests.model.callers import IDLER, PAUSE_AFTER, Callers
from tests.model.cloud import Cloud, Origin, Unit
from tests.model.informer import LAG
from tests.model.life import Life, World
from tests.model.promises import CLASS, CLASS_URL, PERCENT
from tests.model.virtual import START, VirtualLoop

from workspace_operator.api.meta import FINALIZER, RELEASE_FUSE_ANNOTATION
from workspace_operator.api.states import Reading
from workspace_operator.backends.protocol import WorkspaceRef
from workspace_operator.kube.client import Object, workspace_classes, workspaces
from workspace_operator.reconcile.store import key_of

INTERVAL, STOP_GRACE, OBSERVE = 60, 10, 5  # seconds, of the class

#: Calls that come round and round; those of passes are counted when something is to happen at the n-th call.
ROUTINE = (
    *("list instances", "list workspaces", "list class", "list identity", "list delegations"),
    *("get cluster", "write class"),
)

#: Parent, and what becomes of the data volume (None: there is none).
NAMES: dict[str, tuple[str | None, str | None]] = {
    "a": (None, "Retain"),
    "b": ("a", "Delete"),
    "c": ("b", None),
    "d": (None, "Delete"),
}


@dataclass
class Covered:
    """What all examples together went through, for the line at the end of the run."""

    traces: int = 0
    steps: int = 0
    calls: int = 0
    lives: int = 0
    swept: int = 0  # orphans removed
    faults: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        return (
            f"several workspaces and the sweeper: {self.traces} traces of together {self.steps} steps, {self.calls} "
            f"calls; {sum(self.kills.values())} kills at {len(self.kills)} points, {sum(self.faults.values())} faults "
            f"of {len(self.faults)} kinds, {self.swept} orphans removed"
        )


COVERED = Covered()


@dataclass(frozen=True)
class Setting:
    """What stays as it is during one trace."""

    sweep: str = "Remove"  # Remove, Report or "Remove without a fuse"
    sweep_grace: int = 45  # seconds
    freeze: bool = False
    tokens: bool = True
    boots: float = 0.0
    ends: float | None = 0.0
    pace: float = 0.02


_NOT_RUNNING: Life | None = None


class Simulation(World):
    """Everything there is. People and fate act between the steps; the operator acts while time passes."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.loop = VirtualLoop()
        self._clock = mock.patch("time.monotonic", self.loop.time)
        self._clock.start()
        self.api, self.life = Api(self.loop), _NOT_RUNNING
        self.callers = Callers(self.api, self.loop.moment, lambda: self.loop.after(LAG, self._told_of_callers))
        super().__init__(Cloud(self.loop, self.broken, setting.boots, setting.ends))
        self.restart_at = START
        self.armed: list[tuple[str, str]] = []  # kind of call, outcome
        self.hooks: list[tuple[int, Callable[[], None]]] = []  # before which call from now on what happens
        self.away: dict[str, float] = {}  # side or kind of call → until when
        self._kind = ""  # of the call that is about to take effect
        self._tokens = itertools.count(1)
        self.api.create(workspace_classes(), _class(setting))
        self._plant_strangers()

    def close(self) -> None:
        if self.life is not None:
            self.loop.run_until_complete(self.life.bury())
        COVERED.swept += self.removed
        self._clock.stop()
        self.loop.close()

    # -- time ----------------------------------------------------------------------------------------------------------

    def passes(self, seconds: float) -> None:
        """Let time pass, and the operator act; one that was killed comes back when its time has come."""
        self.loop.run_until_complete(self._pass(seconds))
        if self.life is not None and self.life.supervisor.died.done():
            self.broken(f"the loop {self.life.supervisor.died.result()} ended by itself (I-44)")

    async def _pass(self, seconds: float) -> None:
        end = self.loop.now + seconds
        while True:
            if self.life is not None and self.life.dead:
                await self.life.bury()
                self.life = None
            if self.life is None and self.loop.now >= self.restart_at:
                self.told("the operator starts")
                self._begin()
                self.life = Life(self, self.setting.pace)
                COVERED.lives += 1
            until = end if self.life is not None else min(end, self.restart_at)
            if self.life is None:
                await asyncio.sleep(until - self.loop.now)
            else:
                await asyncio.wait([self.life.died], timeout=until - self.loop.now)
            if self.loop.now >= end and not (self.life is not None and self.life.dead):
                return

    # -- fate ----------------------------------------------------------------------------------------------------------

    def outcome(self, side: str, kind: str) -> str | None:
        """What becomes of a call that is about to take effect; things happen right before it."""
        COVERED.calls += 1
        self._kind = kind
        if kind not in ROUTINE:
            due = [action for left, action in self.hooks if left <= 1]
            self.hooks = [(left - 1, action) for left, action in self.hooks if left > 1]
            for action in due:
                action()
        if self.loop.now < max(self.away.get(side, 0.0), self.away.get(kind, 0.0)):
            return "timed out"
        for index, (wanted, outcome) in enumerate(self.armed):
            if wanted == kind:
                del self.armed[index]
                COVERED.faults[f"{kind}: {outcome}"] += 1
                self.told(f"{kind}: {outcome}")
                if outcome == "somebody was faster":
                    self._touch()
                    return None
                return outcome
        return None

    def _touch(self) -> None:
        """Everything was changed a moment ago, in a way that changes no wish."""
        for name, _ in self.api.workspaces():
            self.api.annotate(workspaces(NAMESPACE, name), "touched", f"{self.loop.now}")

    def killed(self, when: str, kind: str) -> None:
        COVERED.kills[f"{when} {kind}"] += 1
        self.told(f"the operator is killed {when}: {kind}")

    def kill_at(self, calls: int) -> None:
        """The process ends right before its n-th call from now on takes effect."""

        def kill() -> None:
            if self.life is not None:
                self.life.kill("before", self._kind)

        self.hooks.append((calls, kill))

    def _told_of_callers(self) -> None:
        if self.life is not None and not self.life.dead:
            self.life.runtime.wake(key_of(NAMESPACE, IDLER))

    def stall(self, seconds: float) -> None:
        """The watch is silent for so long, and then brings the next event twice."""
        if self.life is not None:
            self.life.informer.stalled_until, self.life.informer.twice = self.loop.now + seconds, True

    def deliver_again(self, who: str, back: int) -> None:
        """An older version of an object of this name, of those that this process may get to see, reaches it late."""
        if self.life is None:
            return
        begun = self.life.begun_after
        versions = [v for uid, all_ in self.api.versions.items() for v in all_[begun.get(uid, 0) :]]
        versions = [v for v in versions if v["metadata"]["name"] == who]
        if versions:
            body = versions[max(len(versions) - 1 - back, 0)]
            self.told(f"version {body['metadata']['resourceVersion']} of {body['metadata']['uid']} comes late")
            self.loop.run_until_complete(self._seen(self.life, deepcopy(body)))

    @staticmethod
    async def _seen(life: Life, body: dict[str, Any]) -> None:
        life.runtime.workspace_seen(body, deleted=False)

    def expect(self, fact: bool, otherwise: str) -> None:
        """A promise about the end of a trace."""
        if not fact:
            self.broken(otherwise)

    def calm(self) -> None:
        """From here on nothing goes wrong any more."""
        self.armed, self.hooks, self.away = [], [], {}
        self.restart_at = min(self.restart_at, self.loop.now)
        self.cloud.frozen = self.api.frozen = None
        if self.cloud.ends is None:
            self.told("from here on, what was told to stop is killed when it is told again")
        self.callers.end()
        if self.life is not None:
            self.life.informer.stalled_until = 0.0

    # -- people --------------------------------------------------------------------------------------------------------

    def user(self, does: str, who: str, before_call: int) -> None:
        """An edit, now or right before the operator's n-th call from now on takes effect."""
        if before_call:
            self.hooks.append((before_call, lambda: self._edit(does, who)))
        else:
            self._edit(does, who)

    def _edit(self, does: str, who: str) -> None:
        there = self.api.workspace(who)
        if does in ("Running", "Paused", "Stopped"):
            self._apply(who, does)
        elif there is None:
            return
        elif does == "restarts":
            self.api.edit(who, restartToken=f"token-{next(self._tokens)}")
        elif does == "takes another image":
            self.api.edit(who, image=f"image:{next(self._tokens)}")
        elif does == "deletes":
            self._delete(who)
        elif does == "strips the finalizer of":
            self._strip(who)
        else:  # by force
            self._delete(who)
            self._strip(who)
            if does == "replaces by force":
                self._apply(who, there["spec"]["desiredState"])

    def _apply(self, who: str, wish: str) -> None:
        if self.api.workspace(who) is not None:
            self.api.edit(who, desiredState=wish)
            return
        parent, when_deleted = NAMES[who]
        spec: dict[str, Any] = {"desiredState": wish, "className": CLASS, "image": "image:0"}
        if parent is not None:
            spec["parentRef"] = {"name": parent}
        if who == IDLER:
            spec["idle"] = {"pauseAfter": f"{PAUSE_AFTER}s"}
        if when_deleted is not None:
            spec["storage"] = {"whenDeleted": when_deleted}
        metadata = {"name": who, "namespace": NAMESPACE, "finalizers": []}
        self.api.create(workspaces(NAMESPACE), {"metadata": metadata, "spec": spec})

    def _delete(self, who: str) -> None:
        self.api.delete(workspaces(NAMESPACE, who))

    def _strip(self, who: str) -> None:
        if self.api.workspace(who) is not None:
            self.api.finalize(who, False)

    def release_fuse(self) -> bool:
        """A person looks whether the fuse is blown, and agrees."""
        fuse = self.fuse()
        if fuse is None:
            return False
        if self.api.get(CLASS_URL)["metadata"].get("annotations", {}).get(RELEASE_FUSE_ANNOTATION) != fuse["token"]:
            self.told("a person releases the fuse")
            self.api.annotate(CLASS_URL, RELEASE_FUSE_ANNOTATION, fuse["token"])
        return True

    def fuse(self) -> Object | None:
        """As the class's status shows it."""
        found: Object | None = ((self.api.get(CLASS_URL).get("status") or {}).get("sweep") or {}).get("fuse")
        return found

    # -- instances -----------------------------------------------------------------------------------------------------

    def ours(self) -> list[Unit]:
        """Instances of this cluster and class, oldest first."""
        return [u for u in self.cloud.units.values() if u.ref is not None and u.id not in self.strangers]

    def instance(self, number: int, does: str) -> None:
        """Something happens to one of them."""
        units = self.ours()
        if not units:
            return
        unit = units[number % len(units)]
        if does == "exits" and unit.reading is Reading.RUNNING:
            self.cloud.put(replace(unit, reading=Reading.HALTED))
        elif does == "fails" and unit.reading in (Reading.RUNNING, Reading.STARTING, Reading.HALTED):
            self.cloud.put(replace(unit, reading=Reading.FAILED))
        elif does == "vanishes":
            self.cloud.remove(unit)
        elif does == "is started by hand" and unit.reading is Reading.HALTED:
            self.cloud.put(replace(unit, reading=Reading.RUNNING, origin=Origin.HAND))

    def copies(self, number: int) -> None:
        """By hand, with the labels of workspaces that do not exist (any more)."""
        gone = [uid for uid in self.api.versions if uid not in self.api.uids] or ["never-there"]
        for index, uid in enumerate(itertools.islice(itertools.cycle(gone), number)):
            body = (self.api.versions.get(uid) or [{"metadata": {"name": "x"}}])[-1]
            ref = WorkspaceRef(CLUSTER, uid, NAMESPACE, body["metadata"]["name"], CLASS)
            self.cloud.put(Unit(ref, 1000 + index, Reading.RUNNING, self.cloud.new_id(), "p", Origin.HAND))

    def _plant_strangers(self) -> None:
        """What is not ours: of another cluster, of another class, without labels. It looks as ours otherwise."""
        for cluster, class_name in (("another-cluster", CLASS), (CLUSTER, "another-class")):
            for name, uid in (("a", "a-101"), ("b", "b-102"), ("x", "never-there")):
                ref = WorkspaceRef(cluster, uid, NAMESPACE, name, class_name)
                self.cloud.put(Unit(ref, 1, Reading.RUNNING, self.cloud.new_id(), "p", Origin.HAND))
        self.cloud.put(Unit(None, 0, Reading.RUNNING, self.cloud.new_id(), "", Origin.HAND))
        self.strangers = dict(self.cloud.units)

    # -- the state after a step ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises Violation with what happened before, when a promise was broken since the last check."""
        for id_, unit in self.strangers.items():
            if self.cloud.units.get(id_) != unit:
                self.broken(f"an instance that is not ours was changed: {unit} (I-15)")
        if self.violations:
            story = "\n".join(f"  {line}" for line in self.story[-120:])
            raise Violation(f"{self.violations[0]}\nWhat happened:\n{story}")


def _class(setting: Setting) -> Object:
    sweep = {
        "interval": f"{INTERVAL}s",
        "gracePeriod": f"{setting.sweep_grace}s",
        "mode": "Report" if setting.sweep == "Report" else "Remove",
        "maxPercent": 100 if setting.sweep == "Remove without a fuse" else PERCENT,
    }
    spec = {
        "process": {"directory": "/model", "images": [{"name": "image", "command": ["agent"]}]},
        "pauseMode": "Freeze" if setting.freeze else "Stop",
        "stopGracePeriod": f"{STOP_GRACE}s",
        "observeInterval": f"{OBSERVE}s",
        "identity": {"mode": "Token" if setting.tokens else "None", "tokenLifetime": "24h"},
        "sweep": sweep,
    }
    metadata = {"name": CLASS, "creationTimestamp": "2030-01-01T00:00:00Z", "finalizers": [FINALIZER]}
    return {"metadata": metadata, "spec": spec}
