"""One object for every state that a person may meet, with the status that the code itself reports for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.support.fleet import API_VERSION, Object
from tests.unit import delegation_kit as task
from tests.unit.kit import NOW, SERVES, SILENT, at, failed, instance, record, seen, situation, wish

from workspace_operator.api.base import Condition, Model
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import TERMINAL, ConditionStatus, DesiredState, EffectiveReason
from workspace_operator.api.sweep import SweepFuse, SweepStatus
from workspace_operator.api.workspace import CredentialsStatus, IdleStatus
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle import conditions, effective, idle
from workspace_operator.lifecycle.conditions import Verdict
from workspace_operator.lifecycle.delegation import facts, plan, report
from workspace_operator.lifecycle.facts import Goal, Serving, Sight
from workspace_operator.lifecycle.parameters import fingerprint
from workspace_operator.lifecycle.plan import Situation
from workspace_operator.lifecycle.plan import plan as plan_workspace
from workspace_operator.lifecycle.report import report as report_workspace
from workspace_operator.reconcile import classes
from workspace_operator.reconcile.statuswrite import wire
from workspace_operator.reconcile.sweepreport import SweepReport, stalled

UNSEEN = {"observedGeneration": -1}  # the CRDs' default
TASK = facts.Sight
DELIVER, HOLD, CANCEL, EXPIRE = facts.Goal.DELIVER, facts.Goal.HOLD, facts.Goal.CANCEL, facts.Goal.EXPIRE


@dataclass(frozen=True)
class State:
    """A named state of one kind; ``expected`` is what a person should be told of it, in Argo CD's word."""

    kind: str
    name: str
    expected: str
    status: Object
    spec: Object = field(default_factory=dict)
    deleted: bool = False
    generation: int = 1

    @property
    def object(self) -> Object:
        metadata: Object = {"name": "w", "namespace": "n", "generation": self.generation}
        if self.deleted:
            metadata["deletionTimestamp"] = at(0)
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "metadata": metadata,
            "spec": {"desiredState": "Running", **self.spec} if self.kind != "WorkspaceClass" else self.spec,
            "status": self.status,
        }


def problem(reason: Reason, kind: FailureClass = FailureClass.BAD_REQUEST, message: str | None = None) -> Failure:
    return Failure(kind, reason, message or reason.meaning)


# -- workspaces --------------------------------------------------------------------------------------------------------

AWAY = problem(Reason.BACKEND_UNREACHABLE, FailureClass.BACKEND)
ORPHAN = effective.effective(effective.Node("w", DesiredState.RUNNING, "planner"), lambda name: None).problem
TOKEN = CredentialsStatus(secret_name="s", expires=at(3600))
SERVED = record(instance(served=True))
RUNS, AWAY_SEEN = seen(Sight.RUNNING, SERVES), seen(Sight.UNKNOWN, problem=AWAY)
BY_PARENT = {"effective_reason": EffectiveReason.PARENT}
SLEPT = record(instance(served=True), idle=IdleStatus(last_task_time=at(-999), paused_time=at(-9)))
ASLEEP = idle.asleep(wish(pause_after=timedelta(seconds=60)))
RESTARTED = fingerprint({"image": "a"}, "t")
CHANGED = fingerprint({"image": "b"}, None)
WEDGED = Serving(False, Reason.AGENT_WEDGED, "The loop hangs.")
UNHEARD = Serving(None, Reason.WAITING_FOR_AGENT, "The agent has not renewed its Lease yet.")
OLD_FAILED = {"failures": failed(5)}


def blocked(reason: Reason, **more: Any) -> Situation:
    return situation(wish(blocked=problem(reason), **more))


def failing(count: int = 1, reason: Reason = Reason.PROVISION_FAILED, kind: str = "Backend") -> Situation:
    more: Any = {"reason": reason.value, "message": reason.meaning, "class": kind}
    return situation(None, record(instance(since=None), failures=failed(count, **more)))


WORKSPACES: list[tuple[str, str, Situation]] = [
    ("starting", "Progressing", situation(None, record(instance()), seen(Sight.STARTING))),
    ("running, the agent has not answered yet", "Progressing",
     situation(None, record(instance()), seen(Sight.RUNNING))),
    ("running and serving", "Healthy", situation(None, SERVED, RUNS)),
    ("a change waits for the next restart", "Healthy", situation(wish(parameters=CHANGED), SERVED, RUNS)),
    ("restarting", "Progressing",
     situation(wish(parameters=RESTARTED, restart_token="t"), SERVED, seen(Sight.OUTDATED))),
    ("the agent fell silent", "Degraded", situation(None, SERVED, seen(Sight.RUNNING, SILENT))),
    ("the agent says that it is wedged", "Degraded", situation(None, SERVED, seen(Sight.RUNNING, WEDGED))),
    ("the operator has restarted and not heard from the agent", "Progressing",
     situation(None, SERVED, seen(Sight.RUNNING, UNHEARD))),
    ("running, backend unreachable", "Progressing", situation(None, SERVED, AWAY_SEEN)),
    ("pausing", "Progressing", situation(wish(Goal.PAUSED), SERVED, seen(Sight.HALTING, halting_since=NOW))),
    ("pausing, token not revoked yet", "Progressing",
     situation(wish(Goal.PAUSED), record(instance(), credentials=TOKEN), seen(Sight.HALTED))),
    ("paused", "Healthy", situation(wish(Goal.PAUSED), SERVED, seen(Sight.HALTED))),
    ("paused, frozen", "Healthy", situation(wish(Goal.PAUSED, freeze=True), SERVED, seen(Sight.FROZEN))),
    ("paused with its parent", "Healthy", situation(wish(Goal.PAUSED, **BY_PARENT), SERVED, seen(Sight.HALTED))),
    ("paused because it was idle", "Healthy", situation(ASLEEP, SLEPT, seen(Sight.HALTED))),
    ("waking", "Progressing",
     situation(wish(pause_after=timedelta(seconds=60)), SLEPT, seen(Sight.STARTING))),
    ("pausing, backend unreachable", "Progressing", situation(wish(Goal.PAUSED), SERVED, AWAY_SEEN)),
    ("stopping", "Progressing", situation(wish(Goal.STOPPED), SERVED, seen(Sight.HALTING, halting_since=NOW))),
    ("stopped", "Healthy", situation(wish(Goal.STOPPED))),
    ("stopped, its class does not exist", "Healthy",
     situation(wish(Goal.STOPPED, backend=None, blocked=problem(Reason.CLASS_NOT_FOUND)))),
    ("its class does not exist", "Degraded", blocked(Reason.CLASS_NOT_FOUND, backend=None)),
    ("running, its class is gone", "Degraded",
     situation(wish(backend=None, blocked=problem(Reason.CLASS_NOT_FOUND)), SERVED,
               seen(Sight.UNKNOWN, problem=problem(Reason.CLASS_NOT_FOUND)))),
    ("its parent does not exist", "Degraded", situation(wish(blocked=ORPHAN))),
    ("parents in a circle", "Degraded", blocked(Reason.PARENT_CYCLE)),
    ("a Secret is missing", "Degraded", blocked(Reason.REFERENCE_NOT_FOUND, has_references=True)),
    ("its image is not allowed", "Degraded", blocked(Reason.IMAGE_NOT_ALLOWED)),
    ("above the ceiling of its class", "Degraded", blocked(Reason.RESOURCES_EXCEED_CLASS)),
    ("a start failed, the next follows", "Progressing", failing()),
    ("no capacity in the cloud, another start follows", "Progressing", failing(2, Reason.NO_CAPACITY)),
    ("a quota is exhausted", "Degraded", failing(1, Reason.PROVISION_FAILED, FailureClass.QUOTA.value)),
    ("the instance exited, the next start follows", "Progressing", failing(1, Reason.INSTANCE_EXITED)),
    ("five starts failed", "Degraded", failing(5)),
    ("a start failed for a reason that a person must mend", "Degraded",
     failing(1, Reason.IMAGE_NOT_FOUND, FailureClass.BAD_REQUEST.value)),
    ("the failed instance is being released", "Progressing",
     situation(None, record(instance(since=None), failures=failed()), seen(Sight.FAILED))),
    ("failed before, and paused now", "Healthy",
     situation(wish(Goal.PAUSED), record(instance(), **OLD_FAILED), seen(Sight.HALTED))),
    ("deleted, compute still seen", "Progressing", situation(wish(Goal.DELETED), SERVED, RUNS)),
    ("deleted, backend unreachable", "Progressing", situation(wish(Goal.DELETED), SERVED, AWAY_SEEN)),
    ("deleted, data being removed", "Progressing",
     situation(wish(Goal.DELETED, delete_data=True), record(incarnation=1))),
]  # fmt: skip


def workspace_state(name: str, expected: str, case: Situation) -> State:
    status = report_workspace(case, plan_workspace(case))
    wished = case.wish.goal.value if case.wish.goal is not Goal.DELETED else "Running"
    lowered = case.wish.effective_reason is not EffectiveReason.USER
    spec = {"desiredState": "Running" if lowered else wished}
    return State("Workspace", name, expected, wire(status), spec, deleted=case.wish.goal is Goal.DELETED)


def workspaces() -> Iterator[State]:
    yield State("Workspace", "no operator has looked at it", "Progressing", UNSEEN)
    edited = workspace_state("edited, not looked at since", "Progressing", WORKSPACES[2][2])
    yield State(edited.kind, edited.name, edited.expected, edited.status, generation=2)
    for name, expected, case in WORKSPACES:
        yield workspace_state(name, expected, case)
    refused = shown(conditions.unreadable("spec.image: Field required", 1, at(0)))
    yield State("Workspace", "from another release, unreadable", "Degraded", refused)


def shown(found: tuple[Condition, ...]) -> Object:
    listed: list[Model] = list(found)
    return {"observedGeneration": 1, "conditions": [wire(each) for each in listed]}


# -- classes -----------------------------------------------------------------------------------------------------------

USABLE: Verdict = (ConditionStatus.TRUE, Reason.USABLE, Reason.USABLE.meaning)
FINE: Verdict = (ConditionStatus.TRUE, Reason.SWEEP_COMPLETE, Reason.SWEEP_COMPLETE.meaning)
FOUND: Verdict = (ConditionStatus.FALSE, Reason.ORPHANS_FOUND, Reason.ORPHANS_FOUND.meaning)
FAILED_SWEEP: Verdict = (ConditionStatus.UNKNOWN, Reason.SWEEP_FAILED, Reason.SWEEP_FAILED.meaning)
BLOWN = stalled(SweepFuse(token="t", orphans=9), "w")
CALM = stalled(None, "w")


def verdict(status: ConditionStatus, reason: Reason) -> Verdict:
    return status, reason, reason.meaning


CLASSES: list[tuple[str, str, Verdict, SweepReport | None]] = [
    ("usable, not swept yet", "Healthy", USABLE, None),
    ("usable", "Healthy", USABLE, SweepReport(SweepStatus(), FINE, CALM)),
    ("usable, orphans found", "Healthy", USABLE, SweepReport(SweepStatus(), FOUND, CALM)),
    ("usable, the last sweep failed", "Healthy", USABLE, SweepReport(SweepStatus(), FAILED_SWEEP, CALM)),
    ("the sweeper's fuse is blown", "Degraded", USABLE, SweepReport(SweepStatus(), BLOWN, BLOWN)),
    ("backend unreachable", "Degraded", verdict(ConditionStatus.UNKNOWN, Reason.BACKEND_UNREACHABLE), None),
    ("misconfigured", "Degraded", verdict(ConditionStatus.FALSE, Reason.MISCONFIGURED), None),
    ("a Secret that it names is missing", "Degraded", verdict(ConditionStatus.FALSE, Reason.REFERENCE_NOT_FOUND), None),
    ("pauses in a way that its backend cannot", "Degraded", verdict(ConditionStatus.FALSE, Reason.UNSUPPORTED), None),
    ("deleted while workspaces use it", "Progressing", verdict(ConditionStatus.FALSE, Reason.CLASS_DELETING), None),
]


def workspace_classes() -> Iterator[State]:
    yield State("WorkspaceClass", "no operator has looked at it", "Progressing", UNSEEN)
    for name, expected, ready, swept in CLASSES:
        status = shown(classes.conditions(ready, swept, (), 1, at(0)))
        yield State("WorkspaceClass", name, expected, status, deleted=ready[1] == Reason.CLASS_DELETING)


# -- delegations -------------------------------------------------------------------------------------------------------

HAS_IT = task.record(task=task.TASK, start_time=at(-500), heartbeat_time=at(-100))
LONG_AGO = task.record(task=task.TASK, start_time=at(-5000), heartbeat_time=at(-4000))
RESTING = task.record(phase="Queued", retry_after=at(9), attempts=(task.attempt(),), failed_deliveries=1)
ASKS = problem(Reason.INPUT_REQUIRED, FailureClass.BACKEND, "Which one?")
UNUSABLE = problem(Reason.ANSWER_UNUSABLE)


def waits(reason: Reason, goal: facts.Goal = DELIVER) -> facts.Situation:
    hindrance = problem(reason, FailureClass.BACKEND)
    return task.situation(TASK.UNSENT, task.wish(goal, claimed=False, hindrance=hindrance))


DELEGATIONS: list[tuple[str, str, facts.Situation]] = [
    ("queued, about to be sent", "Progressing", task.situation(TASK.UNSENT, task.wish(claimed=False))),
    *((f"queued, {reason}", "Progressing", waits(reason)) for reason in (
        Reason.TARGET_NOT_FOUND, Reason.TARGET_STARTING, Reason.TARGET_WAKING, Reason.TARGET_PAUSED,
        Reason.TARGET_STOPPED, Reason.TARGET_NOT_READY)),
    ("queued, TargetBusy", "Progressing", task.situation(TASK.UNSENT, task.wish(claimed=False, turn=False))),
    ("queued, a sending failed and the next follows", "Progressing",
     task.situation(TASK.UNDELIVERED, None, RESTING, problem=task.UNREACHED)),
    ("held", "Healthy", task.situation(TASK.UNSENT, task.wish(HOLD, claimed=False))),
    ("held after it was sent: it goes on", "Progressing", task.situation(TASK.WORKING, task.wish(HOLD), HAS_IT)),
    ("dispatched", "Progressing", task.situation(TASK.SENDING)),
    ("dispatched, nobody knows whether it arrived", "Progressing", task.situation(TASK.UNSURE)),
    ("working", "Progressing", task.situation(TASK.WORKING, None, HAS_IT)),
    ("the agent asks for more", "Progressing", task.situation(TASK.ASKING, None, HAS_IT, problem=ASKS)),
    ("stuck", "Progressing", task.situation(TASK.WORKING, None, LONG_AGO)),
    ("being cancelled", "Progressing", task.situation(TASK.WORKING, task.wish(CANCEL), HAS_IT)),
    ("completed", "Healthy", task.situation(TASK.SUCCEEDED, None, HAS_IT)),
    ("completed before the cancel arrived", "Healthy", task.situation(TASK.SUCCEEDED, task.wish(CANCEL), HAS_IT)),
    ("cancelled as wished", "Healthy", task.situation(TASK.UNSENT, task.wish(CANCEL, claimed=False))),
    ("cancelled because its sender is gone", "Degraded",
     task.situation(TASK.UNSENT, task.wish(CANCEL, claimed=False, cancelled=task.ORPHANED))),
    ("failed: the agent says so", "Degraded", task.situation(TASK.FAILED, None, HAS_IT)),
    ("failed: not permitted", "Degraded",
     task.situation(TASK.UNSENT, task.wish(claimed=False, permitted=False, denied=task.DENIED))),
    ("failed: the agent does not accept it", "Degraded", task.situation(TASK.REFUSED, problem=task.REFUSED)),
    ("failed: attempts spent", "Degraded",
     task.situation(TASK.UNDELIVERED, task.wish(max_attempts=1), RESTING, problem=task.UNREACHED)),
    ("failed: the answer is unusable", "Degraded", task.situation(TASK.UNUSABLE, None, HAS_IT, problem=UNUSABLE)),
    ("failed: the target was deleted", "Degraded", task.situation(TASK.WORKING, task.wish(gone=task.GONE), HAS_IT)),
    ("failed: the deadline is over", "Degraded", task.situation(TASK.UNDELIVERED, task.wish(EXPIRE))),
]  # fmt: skip

_WISHED = {HOLD: "Paused", CANCEL: "Stopped"}


def delegation_state(name: str, expected: str, case: facts.Situation) -> State:
    decision = plan.plan(case)
    over = decision.phase in TERMINAL
    status = report.finish(case, decision, None) if over else report.report(case, decision)
    wished = "Running" if case.wish.cancelled is not None else _WISHED.get(case.wish.goal, "Running")
    return State("Delegation", name, expected, wire(status), {"desiredState": wished})


def delegations() -> Iterator[State]:
    yield State("Delegation", "no operator has looked at it", "Progressing", UNSEEN)
    for name, expected, case in DELEGATIONS:
        yield delegation_state(name, expected, case)


def every() -> list[State]:
    """All of them, by kind."""
    return [*workspaces(), *workspace_classes(), *delegations()]
