"""Whether agents serve: from the Leases that they renew, or by probing their card or port.

Nothing here restarts anything: silence alone says "not available" (I-41), and what the agent itself reports is shown
(I-42). Endpoints come from observation only, and link-local or metadata addresses are refused (I-56).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from workspace_operator.a2a.addresses import refused
from workspace_operator.api import meta
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Probe
from workspace_operator.api.workspace import Workspace
from workspace_operator.kube.client import Object
from workspace_operator.kube.identity import account_name
from workspace_operator.lifecycle.facts import Serving

LEASE_EXPIRY = 180.0  # seconds of silence (DESIGN, "Identity of a workspace")
PROBE_TIMEOUT = 2.0
CARD_PATH = "/.well-known/agent-card.json"
_STEADY, _FAILING, _FIRST, _STARTING_MAX = 30.0, 5.0, 0.1, 1.0  # seconds between probes
_FAILURES_TO_FLIP = 3  # as the kubelet's readiness probe
_COUNT = re.compile(r"[0-9]{1,9}")

WAITING = Serving(False, Reason.WAITING_FOR_AGENT, Reason.WAITING_FOR_AGENT.meaning)
NO_PROBE = Serving(True, Reason.INSTANCE_RUNNING, Reason.INSTANCE_RUNNING.meaning)
SERVES = Serving(True, Reason.SERVING, Reason.SERVING.meaning)


@dataclass(frozen=True)
class Report:
    """What an agent writes on its Lease."""

    mark: str  # of the renewal
    holder: str
    state: str
    message: str
    tasks: int | None  # that it works on; None: it does not say

    @property
    def at_work(self) -> bool | None:
        """Whether it has tasks; None: nobody knows."""
        return None if self.tasks is None else self.tasks > 0

    def is_of(self, workspace: Workspace) -> bool:
        """False when a previous incarnation wrote it: that may renew until it is gone."""
        return not self.holder.endswith(_earlier(workspace))


def report_on(lease: Object) -> Report | None:
    """Read a Lease; None when no agent has renewed it since its last start."""
    spec, annotations = lease.get("spec") or {}, lease["metadata"].get("annotations") or {}
    mark, tasks = spec.get("renewTime"), str(annotations.get(meta.ACTIVE_TASKS_ANNOTATION, ""))
    if not mark:
        return None
    return Report(
        mark=str(mark),
        holder=str(spec.get("holderIdentity") or ""),
        state=str(annotations.get(meta.AGENT_STATE_ANNOTATION, "")),
        message=str(annotations.get(meta.AGENT_MESSAGE_ANNOTATION, ""))[:256],
        tasks=int(tasks) if _COUNT.fullmatch(tasks) else None,
    )


@dataclass(frozen=True)
class Renewal:
    """The newest renewal of a Lease. Times are our own monotonic ones, of receipt, so clocks need not agree."""

    report: Report
    at: float
    counted_since: float | None  # since when, without a gap, the number of its tasks is known
    worked_at: float | None  # when it last had one


class LeaseBook:
    """What agents reported on their Leases; fed by the watch on Leases."""

    def __init__(self) -> None:
        self._renewals: dict[tuple[str, str], Renewal] = {}

    def put(self, lease: Object, *, deleted: bool = False) -> bool:
        """Remember a Lease. True when the agent's state changed, or that it has tasks, so that a pass is worthwhile."""
        key = lease["metadata"]["namespace"], lease["metadata"]["name"]
        before, report, now = self._renewals.get(key), report_on(lease), time.monotonic()
        if deleted or report is None:
            self._renewals.pop(key, None)
            return before is not None
        if before is not None and before.report.mark == report.mark:
            return False
        silent = before is not None and now - before.at > LEASE_EXPIRY
        goes_on = before is not None and not silent and before.report.holder == report.holder
        self._renewals[key] = _renewed(before if goes_on else None, report, now)
        return before is None or silent or _essence(before.report) != _essence(report)

    def serving(self, workspace: Workspace) -> Serving:
        """Whether the agent renews its Lease and what it says of itself."""
        renewal = self._newest(workspace)
        if renewal is None or not renewal.report.is_of(workspace):
            return WAITING
        report = renewal.report
        silence = time.monotonic() - renewal.at
        if silence > LEASE_EXPIRY:
            text = f"The agent has not renewed its Lease for {silence:.0f} s; its instance is left running."
            return Serving(False, Reason.LEASE_EXPIRED, text)
        if report.state == "Wedged":
            return Serving(False, Reason.AGENT_WEDGED, report.message or Reason.AGENT_WEDGED.meaning)
        if report.state == "Starting":
            return Serving(False, Reason.WAITING_FOR_AGENT, report.message or Reason.WAITING_FOR_AGENT.meaning)
        if report.state == "Busy":
            return Serving(True, Reason.AGENT_BUSY, report.message or Reason.AGENT_BUSY.meaning)
        return SERVES

    def renewal(self, workspace: Workspace) -> Renewal | None:
        """What the agent told last; None when it is silent."""
        renewal = self._newest(workspace)
        if renewal is None or not renewal.report.is_of(workspace) or time.monotonic() - renewal.at > LEASE_EXPIRY:
            return None
        return renewal

    def expires_in(self, workspace: Workspace) -> float | None:
        """Seconds until silence becomes worth reporting."""
        renewal = self._newest(workspace)
        return max(1.0, renewal.at + LEASE_EXPIRY - time.monotonic()) if renewal is not None else None

    def _newest(self, workspace: Workspace) -> Renewal | None:
        return self._renewals.get((workspace.metadata.namespace, account_name(workspace.metadata.name)))


def _renewed(before: Renewal | None, report: Report, now: float) -> Renewal:
    """``before``: what this goes on from, without a gap."""
    counted_since = before.counted_since if before is not None else None
    if report.tasks is None:
        counted_since = None
    elif counted_since is None:
        counted_since = now
    worked = report.at_work or (before is not None and before.report.at_work)
    worked_at = now if worked else before.worked_at if before is not None else None
    return Renewal(report, now, counted_since, worked_at)


def _essence(report: Report) -> tuple[object, ...]:
    """What makes a pass worthwhile when it differs; not each change of the number of tasks."""
    return report.state, report.message, report.at_work


def _earlier(workspace: Workspace) -> tuple[str, ...]:
    """How the holder "<name>/<incarnation>" of a previous incarnation ends: it may renew until it is gone."""
    latest = workspace.status.incarnation
    return tuple(f"/{number}" for number in range(max(0, latest - 3), latest))


@dataclass
class _Tracked:
    """One probed agent."""

    key: str
    address: str
    probe: Probe
    serving: Serving | None = None
    failures: int = 0
    delay: float = _FIRST
    timer: asyncio.TimerHandle | None = None


class Prober:
    """Probes the agents that renew no Lease; ``wake`` is called with the queue key when an answer changes."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake
        self._tracked: dict[str, _Tracked] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def serving(self, uid: str, key: str, address: str | None, probe: Probe) -> Serving:
        """The newest answer of an agent; the first call for an address probes at once."""
        if address is None:
            return Serving(False, Reason.WAITING_FOR_AGENT, "The instance has no published address yet.")
        refusal = refused(address)
        if refusal is not None:
            return Serving(False, Reason.AGENT_NOT_ANSWERING, refusal)
        tracked = self._tracked.get(uid)
        if tracked is None or (tracked.address, tracked.probe) != (address, probe):
            self.forget(uid)
            tracked = self._tracked[uid] = _Tracked(key, address, probe)
            await self._probe(uid, tracked)
        return tracked.serving or WAITING

    def forget(self, uid: str) -> None:
        """Stop probing an agent."""
        tracked = self._tracked.pop(uid, None)
        if tracked is not None and tracked.timer is not None:
            tracked.timer.cancel()

    async def close(self) -> None:
        for uid in list(self._tracked):
            self.forget(uid)
        for task in self._tasks:
            task.cancel()
        if self._session is not None:
            await self._session.close()

    async def _probe(self, uid: str, tracked: _Tracked) -> None:
        before = tracked.serving
        problem = await self._ask(tracked)
        if problem is None:
            tracked.serving, tracked.failures, tracked.delay = SERVES, 0, _STEADY
        else:
            tracked.failures += 1
            starting = before is None or not before.answers
            if starting or tracked.failures >= _FAILURES_TO_FLIP:
                tracked.serving = Serving(False, Reason.AGENT_NOT_ANSWERING, problem)
            tracked.delay = min(_STARTING_MAX, tracked.delay * 1.5) if before is None or starting else _FAILING
        if self._tracked.get(uid) is not tracked:
            return
        loop = asyncio.get_running_loop()
        tracked.timer = loop.call_later(tracked.delay, self._again, uid, tracked)
        if before is not None and tracked.serving is not None and before.answers != tracked.serving.answers:
            self._wake(tracked.key)

    def _again(self, uid: str, tracked: _Tracked) -> None:
        if self._tracked.get(uid) is tracked:
            task = asyncio.create_task(self._probe(uid, tracked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, tracked: _Tracked) -> str | None:
        """None when the agent answers, else a sentence."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                if tracked.probe is Probe.TCP:
                    await _connect(tracked.address)
                    return None
                return await self._get_card(tracked.address)
        except TimeoutError:
            return f"The agent did not answer within {PROBE_TIMEOUT:.0f} s."
        except (aiohttp.ClientError, OSError):
            return "The agent's port does not accept connections."

    async def _get_card(self, address: str) -> str | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64, force_close=True))
        # The body is not read: a large or malicious one costs nothing.
        async with self._session.get(f"http://{address}{CARD_PATH}", allow_redirects=False) as response:
            if response.status == 200:
                return None
            return f"GET {CARD_PATH} answered {response.status}; the agent must answer 200 there (or set agent.probe)."


async def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.close()
