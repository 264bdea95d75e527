"""The state of one pass over one workspace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from workspace_operator.api.quantity import duration
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Probe, Reading
from workspace_operator.api.workspace import Workspace, WorkspaceStatus
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.backends.protocol import Progress, WorkspaceRef
from workspace_operator.errors import Failure, OperatorError
from workspace_operator.kube.client import Conflict, workspaces
from workspace_operator.lifecycle.facts import Goal, Seen, Serving, Sight, Wish
from workspace_operator.lifecycle.idle import UNKNOWN, Work
from workspace_operator.lifecycle.plan import Decision, Situation
from workspace_operator.lifecycle.report import report
from workspace_operator.lifecycle.table import Step
from workspace_operator.reconcile import idling
from workspace_operator.reconcile.serving import NO_PROBE
from workspace_operator.reconcile.sight import NOT_SERVING, current, see, unknown
from workspace_operator.reconcile.world import Memory, World


@dataclass
class Run:
    """Lives for one pass. ``record`` is the status as it is going to be."""

    world: World
    key: str
    workspace: Workspace
    class_: WorkspaceClass | None
    backend: MeteredBackend | Failure
    wish: Wish
    record: WorkspaceStatus
    memory: Memory
    write: Callable[[Run, WorkspaceStatus], Awaitable[None]]
    environment: dict[str, str] | None = None
    problem: Failure | None = None  # a verb failed in a way that leaves its effect unknown
    progress: Progress | None = None
    verb_done: bool = False
    last_step: Step | None = None
    looked: bool = False
    provisioned: bool = False
    finished: bool = False
    renewal_failed: bool = False
    confirmed: bool = False  # a request of this pass has proved that the object is as it was read

    @property
    def uid(self) -> str:
        return self.workspace.metadata.uid

    @property
    def ref(self) -> WorkspaceRef:
        metadata = self.workspace.metadata
        class_name = self.wish.class_name or ""
        return WorkspaceRef(self.world.cluster, metadata.uid, metadata.namespace, metadata.name, class_name)

    @property
    def too_early(self) -> bool:
        """The class exists and its backend is just being opened and listed for the first time: nothing to say yet."""
        if self.class_ is None:
            return False
        if isinstance(self.backend, Failure):
            return self.backend.reason == Reason.NOT_OBSERVED
        problem = self.world.observer.problem(self.class_.metadata.name)
        return problem is not None and problem.reason == Reason.NOT_OBSERVED

    async def persist(self, s: Situation, decision: Decision) -> None:
        """Put the record on the object now, because what follows must not be forgotten in a crash."""
        await self.write(self, report(replace(s, record=self.record), decision))

    async def confirm(self) -> None:
        """Before anything is created: the object is still there, and as this pass has read it (I-11).

        A listing may be of the past, and a start that is on record already needs no write that would fail. Raises
        Conflict or NotFound when it is not, KubeError when nobody knows.
        """
        if self.confirmed:
            return
        metadata = self.workspace.metadata
        found = await self.world.client.get(workspaces(metadata.namespace, metadata.name))
        if found["metadata"]["resourceVersion"] != metadata.resource_version:
            raise Conflict(409, "The workspace has changed since it was read.")
        self.confirmed = True

    def note_started(self) -> None:
        """A verb has started the instance: from now on, its end is an end."""
        self.memory.ran = self._start_mark()

    def block(self, failure: Failure) -> None:
        """Nothing may be started in this pass."""
        self.wish = replace(self.wish, blocked=failure)

    async def situation(self) -> Situation:
        """Everything that the plan needs, as of now."""
        seen = await self._seen()
        lifetime = duration(self.class_.spec.identity.token_lifetime) if self.class_ is not None else timedelta(hours=1)
        return Situation(self.wish, self.record, seen, self.world.clock.now(), lifetime, self._work())

    async def ask_for_work(self) -> Work:
        """Fresh reads of all that tells of the agent's tasks (I-22)."""
        return await idling.asked(self.world, self.workspace, self.class_, self.memory)

    def _work(self) -> Work:
        if self.wish.pause_after is None or self.wish.goal is not Goal.RUNNING:
            return UNKNOWN
        return idling.known(self.world, self.workspace, self.class_, self.memory)

    async def look_closely(self) -> None:
        """Ask the backend about this workspace; a failure makes the sight unknown."""
        self.looked = True
        try:
            await self.world.observer.look_closely(self.ref)
        except OperatorError as error:
            self.problem = error.failure

    async def _seen(self) -> Seen:
        if isinstance(self.backend, Failure):
            return self._seen_without_backend(self.backend)
        observer, name = self.world.observer, self.ref.class_name
        if observer.is_stale(name, self.uid) or self._is_ending():
            await self.look_closely()
        instances, problem = observer.look(name, self.uid)
        problem = self.problem or problem
        if problem is not None:
            return unknown(problem)
        mark = self._start_mark()
        newest = current(instances)
        serving = await self._serving(newest.address if newest is not None else None)
        seen = see(instances, self.record, serving, ran=mark is not None and self.memory.ran == mark)
        if seen.sight is Sight.RUNNING and mark is not None:
            self.memory.ran = mark
        return replace(seen, data_gone=self.memory.data_gone)

    def _is_ending(self) -> bool:
        """Told to stop in an earlier pass: this one was woken to see whether it has."""
        instances, _ = self.world.observer.look(self.ref.class_name, self.uid)
        return not self.looked and not self.verb_done and any(i.reading is Reading.HALTING for i in instances)

    def _seen_without_backend(self, why: Failure) -> Seen:
        """With no recorded compute there is nothing to stop; with some, nothing may be claimed (DESIGN section 3)."""
        if self.record.instance is None:
            return Seen(Sight.ABSENT, NOT_SERVING, data_gone=self.memory.data_gone)
        return unknown(self.wish.blocked or why)

    def _start_mark(self) -> tuple[int, str] | None:
        instance = self.record.instance
        return (instance.incarnation, instance.since) if instance is not None and instance.since else None

    async def _serving(self, address: str | None) -> Serving:
        agent = self.workspace.spec.agent
        if self.wish.goal is not Goal.RUNNING:
            self.world.prober.forget(self.uid)
            return NOT_SERVING
        if agent is None or agent.probe is Probe.NONE:
            return NO_PROBE
        if agent.probe is Probe.LEASE:
            return self.world.leases.serving(self.workspace)
        return await self.world.prober.serving(self.uid, self.key, address, agent.probe)
