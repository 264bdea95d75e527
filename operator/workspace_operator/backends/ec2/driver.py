"""The verbs of backends/protocol.py against EC2. Only backends/door.py may import this package."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

from workspace_operator.api.quantity import duration
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability, PauseMode
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends.ec2 import readings, userdata
from workspace_operator.backends.ec2.catalog import Catalog
from workspace_operator.backends.ec2.connection import Connection
from workspace_operator.backends.ec2.console import Console
from workspace_operator.backends.ec2.faults import Throttled
from workspace_operator.backends.ec2.following import Follower
from workspace_operator.backends.ec2.launching import Launcher
from workspace_operator.backends.ec2.ledger import Ledger
from workspace_operator.backends.ec2.looking import Looker
from workspace_operator.backends.ec2.power import Power, Stop
from workspace_operator.backends.ec2.readings import Seen
from workspace_operator.backends.ec2.volumes import Volumes
from workspace_operator.backends.protocol import (
    Backend,
    Instance,
    Progress,
    ProvisionRequest,
    Reading,
    ResolveSecret,
    StopRequest,
    Wake,
    WorkspaceRef,
    replace,
)
from workspace_operator.errors import BackendError, BackendUnreachable, BadRequest, QuotaExceeded

#: EC2 ends a healthy machine within a minute or two; one that still is "stopping" after this and the workload's own
#: grace period is forced (EC2 UG, "Troubleshoot Amazon EC2 instance stop issues").
FORCE_AFTER: Final = timedelta(minutes=5)
_DEADLINE: Final = 50.0  # seconds for any verb, within the caller's 60
_UNSETTLED: Final = (
    "EC2 shows no instance of it, but this operator has just started and EC2's listings may lag"
    " (ec2.consistencyWindow); it is looked at again."
)

_ledgers: dict[tuple[str, str], Ledger] = {}


def create(class_name: str, spec: WorkspaceClassSpec, cluster: str, resolve_secret: ResolveSecret) -> Backend:
    """The driver of one WorkspaceClass. Makes no call: a wrong class shows in check() and the verbs."""
    if spec.ec2 is None:
        raise BadRequest(Reason.MISCONFIGURED, f"WorkspaceClass {class_name} has no ec2 block; add one.")
    # An edited class gets a new driver, and that one must know what the old one has launched.
    ledger = _ledgers.setdefault((cluster, class_name), Ledger())
    return Ec2Driver(class_name, spec, cluster, resolve_secret, ledger=ledger)


class Ec2Driver:
    """Instances of one account and region, for one class of one cluster."""

    def __init__(
        self,
        class_name: str,
        spec: WorkspaceClassSpec,
        cluster: str,
        resolve_secret: ResolveSecret,
        *,
        ledger: Ledger | None = None,
    ) -> None:
        assert spec.ec2 is not None
        self._config = spec.ec2
        self._hibernates = spec.pause_mode is PauseMode.HIBERNATE and spec.ec2.hibernation
        self._grace = duration(spec.stop_grace_period)
        self._window = window = duration(spec.ec2.consistency_window).total_seconds()
        self._refused: set[str] = set()  # workspaces whose start was refused, until the look that follows
        self._cluster = cluster
        self._ledger = ledger or Ledger()
        self._connection = Connection(spec.ec2, resolve_secret)
        self._catalog = Catalog(self._connection)
        self._volumes = Volumes(self._connection, self._ledger, window)
        self._follower = Follower(self._volumes)
        self._looker = Looker(self._connection, self._ledger, cluster, class_name, window, self._follower.tell)
        self._launcher = Launcher(
            self._connection,
            self._ledger,
            self._catalog,
            self._volumes,
            self._looker,
            grace=self._grace,
            window=window,
        )
        self._power = Power(self._connection, self._ledger)
        self._console = Console(self._connection)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """No freeze and no delivery to a running machine; hibernation where the class says that it is possible."""
        always = {Capability.HALT, Capability.LOGS, Capability.VOLUMES, Capability.VOLUME_SIZE, Capability.LIMITS}
        return frozenset(always | {Capability.HIBERNATE} if self._config.hibernation else always)

    # -- looking

    async def check(self) -> str:
        """Credentials, subnets and image of the class."""
        async with _deadline("Checking the class"):
            return await self._catalog.check()

    async def list_owned(self) -> tuple[Instance, ...]:
        """One paged call for the whole class."""
        async with _deadline("Listing instances"):
            return _shown(await self._looker.all(status_checks=self._config.status_checks))

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        """A look at one workspace, sent together with those asked for at the same time.

        On this the plan calls a workspace lost or lets its finalizer go, so that a fresh process, which knows of no
        launch, does not take "not listed" for "not there" (I-10). After a refused start nothing depends on it.
        """
        async with _deadline("Observing a workspace"):
            seen = await self._looker.of(ref.uid)
            if not seen and ref.uid not in self._refused and self._ledger.unsettled(self._window) > 0:
                raise BackendUnreachable(Reason.BACKEND_UNREACHABLE, _UNSETTLED)
            self._refused.discard(ref.uid)
            return await self._examined(seen)

    async def logs(self, ref: WorkspaceRef, tail: int) -> str:
        """What the newest instance wrote on its serial console."""
        async with _deadline("Reading the console output"):
            seen = [one for one in await self._looker.of(ref.uid) if one.state]
            return await self._console.tail(seen[-1].id, tail) if seen else ""

    async def watch(self, wake: Wake) -> None:
        """Follow what is starting or halting. EC2 has no events: what ends by itself is found by the listing."""
        await self._follower.follow(wake, self._looker.of)

    # -- verbs

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        """Find, resume or launch the instance of this incarnation."""
        async with _deadline("Starting an instance"), self._lock(request.ref):
            try:
                own = self._launcher.find(request, await self._looker.of(request.ref.uid))
                if own is None or (not own.exists and self._ledger.open(request.ref.uid, request.incarnation)):
                    made = await self._launcher.launch(request)
                    if isinstance(made, Progress):
                        return made
                    own = self._told(made)
                if own.instance.reading is Reading.HALTED:
                    own = self._told(await self._resume(own, request))
                return own.instance
            except Throttled as error:
                return Progress(Reason.START_QUEUED, error.failure.message)
            except (BadRequest, QuotaExceeded):
                self._refused.add(request.ref.uid)
                raise

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        """One step towards the end of each instance that is meant."""
        async with _deadline("Stopping an instance"), self._lock(request.ref):
            seen = await self._looker.of(request.ref.uid)
            meant = [
                one for one in seen if request.only_before is None or one.instance.incarnation < request.only_before
            ]
            steps = await asyncio.gather(*(self._end(one, request) for one in meant))
            ended = {one.id: one for one in steps}
            return await self._examined([ended.get(one.id, one) for one in seen])

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        """Release older incarnations, then provision."""
        return await replace(self, request, grace)

    async def deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        """Not possible: user data can be changed only while the instance is stopped, and there is no agent inside."""
        del ref, incarnation, files
        raise BackendError(
            Reason.UNSUPPORTED,
            "EC2 cannot hand new identity files to a running machine; they are renewed by each start. Give the class a"
            " longer identity.tokenLifetime (up to 48h), and pause or restart the workspace before it ends.",
        )

    async def delete_data(self, ref: WorkspaceRef) -> bool:
        """Remove the data volume, if it is this workspace's; False while an instance still holds it."""
        async with _deadline("Deleting the data volume"), self._lock(ref):
            return await self._volumes.delete(ref)

    async def close(self) -> None:
        """Instances stay as they are."""
        self._follower.close()
        self._looker.close()
        self._power.close()
        self._connection.close()

    # -- parts

    async def _resume(self, own: Seen, request: ProvisionRequest) -> Seen:
        """New files first: the old token was revoked, and the machine reads its user data when it boots."""
        await self._power.rewrite(own.id, userdata.build(request, self._config, self._grace))
        state = await self._power.start(own.id)
        self._ledger.started(own.id)
        return readings.after(own, state)

    async def _end(self, seen: Seen, request: StopRequest) -> Seen:
        """Terminate, stop, or leave alone what is on its way."""
        if not seen.exists and not seen.id.startswith("i-"):
            return seen  # launched, with an unknown outcome: it stays Starting until EC2 shows it, or clearly does not
        if request.release:
            if seen.state in ("shutting-down", "terminated"):
                return seen
            return await self._change(seen, Stop.TERMINATE)
        if seen.state == "running":
            return await self._change(seen, Stop.HIBERNATE if self._hibernates and seen.hibernation else Stop.HALT)
        if seen.state == "stopping" and _overdue(seen, request.grace):
            return await self._change(seen, Stop.FORCE)
        return seen  # a pending one cannot be stopped before it has run once

    async def _change(self, seen: Seen, how: Stop) -> Seen:
        state = await self._power.stop(seen.id, how)
        return seen if state is None else self._told(readings.after(seen, state))

    async def _examined(self, seen: Sequence[Seen]) -> tuple[Instance, ...]:
        """Those that exist; the halted ones with the status of their workload."""
        there = [one for one in seen if one.instance.reading is not Reading.ABSENT]
        return tuple([await self._console.with_exit_code(one) for one in there])

    def _told(self, seen: Seen) -> Seen:
        """The follower hears of it, so that what moves is looked at soon."""
        return self._follower.tell([seen])[0]

    def _lock(self, ref: WorkspaceRef) -> asyncio.Lock:
        """Verbs of one workspace go one after the other."""
        if ref.cluster != self._cluster:
            raise BackendError(
                Reason.INTERNAL_ERROR, f"Workspace {ref.namespace}/{ref.name} belongs to another cluster."
            )
        lock = self._locks.get(ref.uid)
        if lock is None:
            lock = self._locks[ref.uid] = asyncio.Lock()
        return lock


def _shown(seen: Sequence[Seen]) -> tuple[Instance, ...]:
    """Terminated instances are listed by EC2 for another hour; they are absent."""
    return tuple(one.instance for one in seen if one.instance.reading is not Reading.ABSENT)


def _overdue(seen: Seen, grace: timedelta) -> bool:
    since = seen.instance.halting_since
    return since is not None and datetime.now(UTC) - since > grace + FORCE_AFTER


class _deadline:
    """A deadline for a verb: running out of it is no answer (I-45)."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._timeout = asyncio.timeout(_DEADLINE)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._timeout.__aexit__(*exc)  # type: ignore[arg-type]
        except TimeoutError as error:
            text = f"{self._doing} failed: EC2 did not answer within {_DEADLINE:.0f} s; it is tried again."
            raise BackendUnreachable(Reason.BACKEND_UNREACHABLE, text) from error
