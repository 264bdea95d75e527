"""What is known of an agent's tasks: from memory for each pass, and from fresh reads before it is paused (I-22)."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

from pydantic import ValidationError

from workspace_operator.api.delegation import Delegation
from workspace_operator.api.states import IdentityMode, Probe
from workspace_operator.api.workspace import Workspace
from workspace_operator.api.workspaceclass import WorkspaceClass
from workspace_operator.kube.client import KubeError, NotFound, delegations, path
from workspace_operator.kube.identity import account_name
from workspace_operator.lifecycle.idle import Work
from workspace_operator.lifecycle.plan import RECHECK
from workspace_operator.reconcile.activity import Activity, activity_of
from workspace_operator.reconcile.serving import Renewal, Report, report_on
from workspace_operator.reconcile.store import key_of
from workspace_operator.reconcile.world import Memory, World

log = logging.getLogger(__name__)

_OCCUPIED = ("Busy", "Wedged")  # states in which an agent that counts no tasks may have some


def known(world: World, workspace: Workspace, class_: WorkspaceClass | None, memory: Memory) -> Work:
    """As far as watches have told. No call; ``memory`` keeps when a task was last known."""
    key = key_of(workspace.metadata.namespace, workspace.metadata.name)
    renewal = world.leases.renewal(workspace)
    at_work = _at_work(renewal.report if renewal is not None else None, _must_tell(workspace, class_))
    return _work(world, memory, world.activity(key), at_work, renewal)


async def asked(world: World, workspace: Workspace, class_: WorkspaceClass | None, memory: Memory) -> Work:
    """As the API server knows it now. What cannot be read makes it unknown, for a while."""
    try:
        activity, report = await _activity_of(world, workspace), await _lease_of(world, workspace)
    except (KubeError, ValidationError) as error:
        what = error if isinstance(error, KubeError) else "a Delegation does not fit this operator's schema"
        log.warning("it is not known whether the agent is idle, so it is left running: %s", what)
        at_work, activity, renewal = None, Activity(), None
    else:
        at_work, renewal = _at_work(report, _must_tell(workspace, class_)), world.leases.renewal(workspace)
    work = _work(world, memory, activity, at_work, renewal)
    if work.active is None:
        memory.not_idle_before = world.clock.now() + RECHECK
    return work


def _must_tell(workspace: Workspace, class_: WorkspaceClass | None) -> bool:
    """Whether the agent has what it takes to report its tasks and is expected to."""
    agent = workspace.spec.agent
    has_token = class_ is not None and class_.spec.identity.mode is IdentityMode.TOKEN
    return has_token and agent is not None and agent.probe is Probe.LEASE


def _at_work(report: Report | None, must_tell: bool) -> bool | None:
    """By the agent's own words. One that need not tell is heard when it does."""
    if report is None:
        return None if must_tell else False
    if report.tasks is None:
        return None if must_tell or report.state in _OCCUPIED else False
    return report.at_work


def _work(world: World, memory: Memory, activity: Activity, at_work: bool | None, renewal: Renewal | None) -> Work:
    now, active = world.clock.now(), at_work
    if activity.in_flight or activity.wakers:
        active = True
    told = renewal.worked_at if renewal is not None else None
    moments = (memory.last_task, activity.last, now if active else None, _moment(world, told))
    memory.last_task = max((moment for moment in moments if moment is not None), default=None)
    counted_since = renewal.counted_since if renewal is not None else None
    return Work(active, memory.last_task, _moment(world, counted_since), memory.not_idle_before)


def _moment(world: World, monotonic: float | None) -> datetime | None:
    if monotonic is None:
        return None
    return world.clock.now() - timedelta(seconds=time.monotonic() - monotonic)


async def _lease_of(world: World, workspace: Workspace) -> Report | None:
    metadata = workspace.metadata
    url = path("coordination.k8s.io/v1/leases", metadata.namespace, account_name(metadata.name))
    try:
        report = report_on(await world.client.get(url))
    except NotFound:
        return None
    return report if report is not None and report.is_of(workspace) else None


async def _activity_of(world: World, workspace: Workspace) -> Activity:
    """Of delegations from all namespaces."""
    namespace, name = workspace.metadata.namespace, workspace.metadata.name
    bodies = [body async for body in world.client.list(delegations(), fields=f"spec.to.name={name}")]
    found = [Delegation.model_validate(body) for body in bodies]
    return activity_of(d for d in found if (d.spec.to.namespace or d.metadata.namespace) == namespace)
