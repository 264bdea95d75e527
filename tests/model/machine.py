"""One pass of the real reconciler against the model's world; every call may go well, fail, or be the operator's last.

Nothing of the operator is copied here: ``WorkspaceReconciler`` runs with its real steps, plan and report. What it
calls is replaced by fakes that change a :class:`State` and ask a script what happens next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

from tests.model.backend import Crash, Fate, ModelBackend, Violation, shown
from tests.model.nature import begins
from tests.model.tasks import Leases, activity, lease, sent
from tests.model.world import LIFETIME, State, body, moment, ready

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Reading
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.backends.protocol import Instance, WorkspaceRef
from workspace_operator.errors import BackendUnreachable, Failure, FailureClass
from workspace_operator.kube.client import Conflict, KubeError, NotFound, Object
from workspace_operator.kube.identity import Credentials
from workspace_operator.lifecycle.facts import Serving
from workspace_operator.reconcile.queue import Overtaken
from workspace_operator.reconcile.serving import SERVES, WAITING
from workspace_operator.reconcile.store import Store
from workspace_operator.reconcile.workspace import WorkspaceReconciler
from workspace_operator.reconcile.world import Memory, World

AWAY = Failure(FailureClass.BACKEND, Reason.BACKEND_UNREACHABLE, "The model's backend did not answer.")


def class_for(freeze: bool, credentials: bool) -> WorkspaceClass:
    spec = {
        "process": {"directory": "/model", "images": [{"name": "image", "command": ["agent"]}]},
        "pauseMode": "Freeze" if freeze else "Stop",
        "stopGracePeriod": "10s",
        "identity": {"mode": "Token" if credentials else "None"},
    }
    return WorkspaceClass.model_validate({"metadata": {"name": "c", "uid": "c-uid"}, "spec": spec})


class Pass:
    """Carries out one pass on a copy of a state. ``self`` stands in for client, observer, identities and prober."""

    def __init__(self, machine: Machine, state: State, fate: Fate, late: State | None) -> None:
        self.machine, self.s, self.fate = machine, state, fate
        self.backend = ModelBackend(state, fate, self)
        self.unseen: Failure | None = None
        self.stale = False
        self.wrote = False
        self.wake_in: timedelta | None = None
        self._raw, self._late = body(state), late

    def run(self) -> State:
        """The state after the pass."""
        s = self.s
        self._list()
        world = self._world()
        s_memory = world.memory("u")
        s_memory.ran, s_memory.data_gone, s_memory.credentials = s.ran, s.data_gone, s.issued
        s_memory.last_task, s_memory.not_idle_before = s.last_task, s.not_idle_before
        if self._late is not None:
            self._edited(self._late)
        reconciler = WorkspaceReconciler(world, self._let_go)
        try:
            self.wake_in = self.machine.loop.run_until_complete(reconciler("n/w"))
        except (Crash, Overtaken):
            self.wake_in = timedelta(0)
        except KubeError:
            self.wake_in = timedelta(seconds=1)  # the queue's back-off
        if self.fate.dead:
            s.forget()
        else:
            memory = world.memory("u")
            s.ran, s.data_gone, s.issued = cast(Any, memory.ran), memory.data_gone, memory.credentials
            s.last_task, s.not_idle_before = memory.last_task, memory.not_idle_before
            self._check_wake_up()
        return s

    def _world(self) -> World:
        s = self.s
        store = Store()
        store.put(self._raw)
        if s.class_there:
            store.classes["c"] = self.machine.class_
        no_class = Failure(FailureClass.BAD_REQUEST, Reason.CLASS_NOT_FOUND, "WorkspaceClass 'c' does not exist.")
        fakes: Any = self
        return World(
            cluster="model",
            client=fakes,
            store=store,
            door=cast(Any, SimpleNamespace(find=lambda name: self.backend if s.class_there else no_class)),
            observer=fakes,
            identities=fakes,
            events=cast(Any, SimpleNamespace(post=lambda *args, **kwargs: None)),
            leases=cast(Any, Leases(s)),
            prober=cast(Any, SimpleNamespace(forget=lambda uid: None, serving=self.serving)),
            wake=lambda key: None,
            wake_class=lambda name: None,
            activity=lambda key: activity(s),
            clock=cast(Any, SimpleNamespace(now=lambda: moment(s.now))),
            memories={"u": Memory(written=-1e18)},
        )

    def _edited(self, late: State) -> None:
        """The user's edit arrives right after the operator read the object."""
        for name in ("desired", "deleted", "token", "template", "idles", "generation", "version", "edits"):
            setattr(self.s, name, getattr(late, name))
        for name in ("cycles_from", "bound", "token_edits"):
            setattr(self.s, name, getattr(late, name))

    # -- observer ------------------------------------------------------------------------------------------------------

    def _list(self) -> None:
        s = self.s
        options = ["look: no answer"] if "look" in s.config.faults else []
        if "stale" in s.config.faults and s.view is not None and s.view != s.units:
            options.append("look: stale")
        outcome = self.fate.fault(*options)
        if outcome == "look: no answer":
            self.unseen = AWAY
        elif outcome == "look: stale":
            self.stale = True
        else:
            s.view = s.units

    def look(self, class_name: str, uid: str) -> tuple[tuple[Instance, ...], Failure | None]:
        return tuple(shown(unit) for unit in self.s.view or ()), self.unseen

    def problem(self, class_name: str) -> Failure | None:
        return self.unseen

    def is_stale(self, class_name: str, uid: str) -> bool:
        return False

    async def look_closely(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        self.fate.alive()
        if self.fate.fault(*(["fresh look: no answer"] if "look" in self.s.config.faults else [])) is not None:
            raise BackendUnreachable(AWAY.reason, AWAY.message)
        self.s.view, self.stale = self.s.units, False
        return self.look("", "")[0]

    def note(self, ref: WorkspaceRef, instances: tuple[Instance, ...]) -> None:
        noted = {instance.incarnation for instance in instances}
        self.s.view = tuple(unit for unit in self.s.units if unit.incarnation in noted)

    async def serving(self, uid: str, key: str, address: str | None, probe: object) -> Serving:
        return SERVES if self.s.serves and address is not None else WAITING

    # -- Kubernetes ----------------------------------------------------------------------------------------------------

    async def get(self, url: str) -> dict[str, Any]:
        self.fate.alive()
        if "/configmaps/" in url:
            if not self.s.references_there:
                raise NotFound(404, "The ConfigMap does not exist.")
            return {"data": {"A": "b"}}
        if "/leases/" in url:
            self._read_tasks()
            return lease(self.s)
        return body(self.s)

    async def list(self, url: str, labels: str | None = None, fields: str | None = None) -> AsyncIterator[Object]:
        """All delegations to the workspace."""
        self.fate.alive()
        self._read_tasks()
        for each in sent(self.s):
            yield each

    def _read_tasks(self) -> None:
        """A fresh read of what tells of tasks; one may begin right before it."""
        options = begins(self.s)
        outcome = self.fate.fault(*(["fresh read: no answer"] if "read" in self.s.config.faults else []))
        if outcome is not None:
            raise KubeError(500, "The model's API server failed.")
        if not options:
            return
        begun = self.fate.free("nothing begins", *(label for label, _ in options))
        for label, after in options:
            if label == begun:
                for name in ("own", "waiting", "flying", "tasks"):
                    setattr(self.s, name, getattr(after, name))

    async def merge(self, url: str, patch: dict[str, Any]) -> dict[str, Any]:
        """The write of a status."""
        self.fate.alive()
        s = self.s
        if patch["metadata"]["resourceVersion"] != str(s.version):
            raise Conflict(409, "The object has been modified.")
        outcome = self.fate.fault(*self._crash("write: crash before"), *self._crash("write: crash after"))
        if outcome == "write: crash before":
            self.fate.die()
        before = s.status
        s.status = merged(s.status, patch["status"])
        s.version += 1
        self.wrote = self.wrote or set(patch["status"]) != {"idle"} or "pausedTime" in patch["status"]["idle"]
        self._check_status(before)
        if outcome == "write: crash after":
            self.fate.die()
        return body(s)

    async def issue(self, workspace: Any, lifetime: timedelta, server: str | None, *, fresh_start: bool) -> Credentials:
        self.fate.alive()
        outcome = self.fate.fault(*self._call("token: refused"), *self._crash("token: issued, crash"))
        if outcome == "token: refused":
            raise KubeError(500, "The model's API server failed.")
        self.s.secret = True
        if outcome == "token: issued, crash":
            self.fate.die()
        return Credentials("workspace-w", moment(self.s.now + LIFETIME), {"token": b"t"})

    async def revoke(self, workspace: Any) -> None:
        self.fate.alive()
        outcome = self.fate.fault(*self._call("revoke: refused"), *self._crash("revoke: done, crash"))
        if outcome == "revoke: refused":
            raise KubeError(500, "The model's API server failed.")
        self.s.secret = self.s.delivered = False
        if outcome == "revoke: done, crash":
            self.fate.die()

    def _call(self, option: str) -> tuple[str, ...]:
        return (option,) if "verb" in self.s.config.faults else ()

    def _crash(self, option: str) -> tuple[str, ...]:
        return (option,) if "crash" in self.s.config.faults else ()

    # -- promises ------------------------------------------------------------------------------------------------------

    def _check_status(self, before: dict[str, Any]) -> None:
        s, status = self.s, self.s.status
        phase, verdict = status["phase"], ready(s)
        if phase == "Failed" and not (status.get("failures", {}).get("message") and verdict["message"].strip()):
            raise Violation("Failed without a failure that has a message (I-81)")
        if before.get("incarnation", 0) > status.get("incarnation", 0):
            raise Violation("the incarnation went back")
        failed = status.get("failures", {}).get("reason")
        if failed == Reason.INSTANCE_EXITED and not (s.config.faults or s.config.edits):
            raise Violation("what was told to stop is said to have ended by itself")
        self._check_idle(before)
        if phase in ("Paused", "Stopped") and verdict["status"] == "True" and not self.stale:
            self._check_stopped(phase, verdict["reason"] == Reason.FROZEN)

    def _check_idle(self, before: dict[str, Any]) -> None:
        s = self.s
        if s.status.get("instance", {}).get("served") and not before.get("instance", {}).get("served"):
            s.worked = s.now
        if not s.idle_paused or "pausedTime" in before.get("idle", {}):
            return
        exact = 3 / 4 if "crash" in s.config.faults else 1
        if s.now - s.worked < s.config.pause_after * exact:
            raise Violation(f"paused for being idle {s.now - s.worked} s after its last task")

    def _check_stopped(self, phase: str, frozen: bool) -> None:
        s = self.s
        allowed = {Reading.FROZEN} if frozen else set()
        if any(unit.reading not in allowed for unit in s.live):
            raise Violation(f"{phase} was claimed while compute runs (I-01, I-23)")
        if s.units and (phase == "Stopped" or not s.config.halts):
            raise Violation(f"{phase} was claimed while an instance exists")
        if s.secret and not frozen and not s.unrecorded:
            raise Violation(f"the Secret of a token is left in reached {phase} (I-51)")

    def _check_wake_up(self) -> None:
        if self.wake_in is not None or self.s.finished:
            return
        if ready(self.s).get("status") != "True" and not (self.s.serves is False and self.reached_running):
            raise Violation(f"no wake-up although {self.s.status.get('phase')} is not reached")

    @property
    def reached_running(self) -> bool:
        """Running, and only the agent is silent: its prober or Lease wakes the pass."""
        return self.s.status.get("phase") == "Running"

    @property
    def wishes_running(self) -> bool:
        """As this pass has read it."""
        return self._raw["spec"]["desiredState"] == "Running" and "deletionTimestamp" not in self._raw["metadata"]

    def _let_go(self, uid: str) -> None:
        s = self.s
        if s.units:
            raise Violation("the finalizer goes while an instance exists (I-10)")
        if s.config.delete_data and s.data:
            raise Violation("the finalizer goes while data that is to be deleted exists")
        if s.delivered and not s.unrecorded:
            raise Violation("the finalizer goes while a delivered token is valid (I-51)")
        s.finished = True


class Machine:
    """Runs passes; holds what they have in common."""

    def __init__(self, freeze: bool, credentials: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.class_ = class_for(freeze, credentials)

    def close(self) -> None:
        self.loop.close()

    def outcomes(self, s: State, late: tuple[str, State] | None = None) -> Iterator[tuple[str, State, Pass]]:
        """Every way in which one pass from ``s`` may come out."""
        script: list[int] = []
        while True:
            fate = Fate(s.copy(), list(script))
            done = Pass(self, fate.state, fate, late[1] if late else None)
            try:
                after = done.run()
            except Violation as violation:
                raise Violation(f"{violation}", *fate.told) from None
            said = "; ".join(fate.told) or "nothing to do"
            yield f"pass{f', while the user edits ({late[0]})' if late else ''}: {said}", after, done
            script = fate.next_script()
            if not script:
                return

    def calm_pass(self, s: State) -> tuple[State, Pass]:
        """The one pass in which everything goes well."""
        fate = Fate(s.copy(), [])
        done = Pass(self, fate.state, fate, None)
        try:
            return done.run(), done
        except Violation as violation:
            raise Violation(str(violation), *fate.told) from None


def merged(before: Any, patch: Any) -> Any:
    """RFC 7386, as the API server applies it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
