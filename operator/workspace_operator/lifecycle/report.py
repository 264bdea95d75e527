"""The record (status) as a function of what happened: intents, failures, observations."""

from __future__ import annotations

from datetime import datetime, timedelta

from workspace_operator.api.states import Phase
from workspace_operator.api.workspace import CredentialsStatus, FailureStatus, InstanceStatus, WorkspaceStatus
from workspace_operator.errors import Failure
from workspace_operator.lifecycle import backoff, idle, moments
from workspace_operator.lifecycle.conditions import conditions
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.plan import Decision, Situation, drifted, forget_failures_at

_STARTABLE = (Sight.HALTED, Sight.FROZEN, Sight.RUNNING)


def intend(s: Situation, backend: str, restart: bool) -> WorkspaceStatus:
    """Decide a start: which incarnation, from which template, since when.

    The number is kept where the same instance can go on (it is halted, frozen or running and made from this template)
    or where the same name must be asked for again because the last attempt may have had an effect. It grows in all
    other cases: a name is never used again after its instance was released (I-08).
    """
    known = s.record.instance
    incarnation = max(s.record.incarnation, s.seen.incarnation)
    parameters = s.wish.parameters.text
    current = s.seen.incarnation == incarnation and s.seen.sight in _STARTABLE
    if current and not restart and (s.seen.sight is not Sight.HALTED or s.seen.parameters == parameters):
        parameters = s.seen.parameters
    elif restart or not _asked_before(s, incarnation):
        incarnation += 1
    instance = InstanceStatus(
        backend=backend,
        incarnation=incarnation,
        parameters=parameters,
        since=moments.text(s.now),
        id=known.id if known is not None and known.incarnation == incarnation else None,
    )
    honoured = s.wish.restart_token if s.wish.parameters.same_token(parameters) else s.record.restart_token
    return s.record.model_copy(
        update={
            "incarnation": incarnation,
            "instance": instance,
            "restart_token": honoured if honoured is not None else s.record.restart_token,
            "failures": _served_back_off(s),
        }
    )


def _served_back_off(s: Situation) -> FailureStatus | None:
    """A decided start ends the wait, so that the start is not taken for one that has failed since."""
    failures = s.record.failures
    if failures is None or moments.parse(failures.retry_after) <= s.now:
        return failures
    return failures.model_copy(update={"retry_after": moments.text(s.now)})


def _asked_before(s: Situation, incarnation: int) -> bool:
    """Whether this very instance was asked for and never seen: ask for the same name again, adopt what answers."""
    known = s.record.instance
    return (
        s.seen.sight is Sight.ABSENT
        and known is not None
        and known.since is not None
        and known.incarnation == incarnation
        and known.parameters == s.wish.parameters.text
        and not (known.served or s.seen.ran)
    )


def begun(record: WorkspaceStatus, now: datetime) -> WorkspaceStatus:
    """The backend has taken the start: the provision timeout runs from here, so that neither the wait for a turn nor
    the end of the incarnation before uses it up."""
    if record.instance is None or record.instance.since is None:
        return record
    return record.model_copy(update={"instance": record.instance.model_copy(update={"since": moments.text(now)})})


def may_ask_again(record: WorkspaceStatus) -> bool:
    """Whether the record holds a start that, with nothing to be seen, would be asked for under the same name."""
    return record.instance is not None and record.instance.since is not None and not record.instance.served


def give_up_start(record: WorkspaceStatus) -> WorkspaceStatus:
    """The record without its start: the next one is decided anew, under a new name."""
    if record.instance is None:
        return record
    instance = record.instance.model_copy(update={"since": None, "served": False})
    return record.model_copy(update={"instance": instance})


def fail(s: Situation, failure: Failure, *, keep_start: bool = False) -> WorkspaceStatus:
    """Count a failure and set the time of the next attempt.

    ``keep_start``: the attempt may have had an effect, so the same incarnation is asked for again; otherwise the start
    is over and the next one is decided anew.
    """
    count = s.record.failures.count + 1 if s.record.failures is not None else 1
    failures = FailureStatus.model_validate(
        {
            "count": count,
            "class": failure.failure_class,
            "reason": failure.reason,
            "message": failure.message,
            # A whole second more than the delay, because the text has whole seconds.
            "retryAfter": moments.text(s.now + backoff.delay(count) + timedelta(milliseconds=999)),
            "observedGeneration": s.wish.generation,
        }
    )
    record = s.record if keep_start else give_up_start(s.record)
    return record.model_copy(update={"failures": failures})


def with_credentials(record: WorkspaceStatus, credentials: CredentialsStatus | None) -> WorkspaceStatus:
    """The record after a token was issued (or revoked: None)."""
    return record.model_copy(update={"credentials": credentials})


def report(s: Situation, decision: Decision) -> WorkspaceStatus:
    """The status to show: everything recomputed from the situation."""
    known, shown = s.record.instance, _instance(s, decision)
    current = known is not None and known.incarnation == s.seen.incarnation
    running = current and s.seen.sight is Sight.RUNNING and s.wish.goal is Goal.RUNNING
    starts = shown is not None and shown.served and not (known is not None and known.served)
    return s.record.model_copy(
        update={
            "observed_generation": s.wish.generation,
            "phase": decision.phase,
            "class_name": s.wish.class_name,
            "effective_state": s.wish.effective_state,
            "effective_reason": s.wish.effective_reason,
            "instance": shown,
            "endpoint": f"http://{s.seen.address}" if running and s.seen.address else None,
            "idle": idle.status(s.wish, s.record, s.work, s.now, starts=starts),
            "pending_restart": running and not s.wish.automatic_update and drifted(s),
            "failures": None if _forgotten(s, decision) else s.record.failures,
            "conditions": conditions(s, decision),
        }
    )


def _instance(s: Situation, decision: Decision) -> InstanceStatus | None:
    known = s.record.instance
    if s.seen.sight is Sight.ABSENT and s.wish.goal is not Goal.RUNNING:
        return None  # confirmed gone: nothing may act on this identity again (I-17)
    if known is None or s.seen.incarnation != known.incarnation or s.seen.sight is Sight.UNKNOWN:
        return known
    over = decision.row.reached and decision.phase is not Phase.RUNNING
    serves = s.seen.sight is Sight.RUNNING and bool(s.seen.serving.answers)
    return known.model_copy(
        update={
            "since": None if over else known.since,
            "served": not over and (known.served or (serves and known.since is not None)),
            "id": s.seen.id or known.id,
            "address": s.seen.address if s.seen.sight is Sight.RUNNING else None,
            "node": s.seen.node or known.node,
            "image_digest": s.seen.image_digest or known.image_digest,
        }
    )


def _forgotten(s: Situation, decision: Decision) -> bool:
    if decision.row.reached and s.wish.goal is not Goal.RUNNING:
        return True
    forget_at = forget_failures_at(s.record)
    return forget_at is not None and s.now >= forget_at and decision.phase is Phase.RUNNING
