"""Conditions as a pure function of the situation and the decision (I-31, I-32)."""

from __future__ import annotations

from collections.abc import Iterable

from workspace_operator.api.base import Condition
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import ConditionStatus, ConditionType, Phase
from workspace_operator.errors import FailureClass
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.plan import Decision, Situation, awaited_for

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
STALLED_AFTER = 5  # consecutive failures after which a person should look
_UNRESOLVED = (Reason.REFERENCE_NOT_FOUND, Reason.RESERVED_NAME)
_WORKING = (Phase.STARTING, Phase.RESTARTING, Phase.PAUSING, Phase.STOPPING, Phase.DELETING, Phase.UNKNOWN)

Verdict = tuple[ConditionStatus, str, str]  # status, reason, message


def conditions(s: Situation, decision: Decision) -> tuple[Condition, ...]:
    """All conditions of the workspace, in a fixed order; those that do not apply are left out."""
    verdicts = {
        ConditionType.READY: _ready(s, decision),
        ConditionType.AVAILABLE: _available(s, decision),
        ConditionType.RECONCILING: _reconciling(s, decision),
        ConditionType.STALLED: _stalled(s, decision),
        ConditionType.BACKEND_REACHABLE: _backend_reachable(s),
        ConditionType.SECRETS_RESOLVED: _secrets_resolved(s),
        ConditionType.STOP_CONFIRMED: _stop_confirmed(s),
        ConditionType.DELETING: _deleting(s, decision),
    }
    present = ((kind, verdict) for kind, verdict in verdicts.items() if verdict is not None)
    return settle(present, s.record.conditions, s.wish.generation, moments.text(s.now))


def unreadable(fields: str, generation: int, now: str) -> tuple[Condition, ...]:
    """Of an object from another release that this one cannot read: a person must re-apply it."""
    text = f"Correct and re-apply: {fields}"[:1024]
    kinds = (ConditionType.READY, FALSE), (ConditionType.STALLED, TRUE)
    return settle(((kind, (status, Reason.INVALID_SPEC, text)) for kind, status in kinds), (), generation, now)


def settle(
    verdicts: Iterable[tuple[ConditionType, Verdict]], previous: tuple[Condition, ...], generation: int, now: str
) -> tuple[Condition, ...]:
    """Turn verdicts into conditions; ``lastTransitionTime`` moves only when a status flips."""
    before = {condition.type: condition for condition in previous}
    result = []
    for kind, (status, reason, message) in verdicts:
        old = before.get(kind)
        since = old.last_transition_time if old is not None and old.status == status else now
        result.append(
            Condition(
                type=kind,
                status=status,
                reason=reason,
                message=message,
                observed_generation=generation,
                last_transition_time=since,
            )
        )
    return tuple(result)


def _ready(s: Situation, decision: Decision) -> Verdict:
    if decision.row.reached:
        if s.wish.goal is not Goal.RUNNING:
            return TRUE, decision.reason, decision.message
        serving = s.seen.serving
        status = {True: TRUE, False: FALSE, None: UNKNOWN}[serving.answers]
        return status, Reason.RUNNING if serving.answers else serving.reason, serving.message
    certain = decision.phase in (Phase.FAILED, Phase.PENDING) and not _awaits(s, decision)
    return FALSE if certain else UNKNOWN, decision.reason, decision.message


def _available(s: Situation, decision: Decision) -> Verdict:
    if s.seen.sight is Sight.RUNNING and s.wish.goal is Goal.RUNNING:
        serving = s.seen.serving
        if serving.answers:
            return TRUE, serving.reason, serving.message
        in_start = decision.phase is Phase.STARTING or serving.answers is None
        return UNKNOWN if in_start else FALSE, serving.reason, serving.message
    if s.seen.sight is Sight.UNKNOWN:
        return UNKNOWN, decision.reason, decision.message
    if s.wish.goal is Goal.RUNNING:
        status = FALSE if decision.phase in (Phase.FAILED, Phase.PENDING) else UNKNOWN
        return status, decision.reason, decision.message
    return FALSE, Reason.NOT_RUNNING, Reason.NOT_RUNNING.meaning


def _awaits(s: Situation, decision: Decision) -> bool:
    """Whether to wait a moment: a pipeline must not see a problem in the order in which it applies."""
    return not decision.row.reached and awaited_for(s) is not None


def _needs_person(s: Situation, decision: Decision) -> bool:
    blocked = s.wish.blocked
    if _awaits(s, decision):
        return False
    if decision.phase is Phase.PENDING:
        return True
    if decision.phase is Phase.UNKNOWN and s.wish.backend is None and blocked is not None:
        return blocked.failure_class != FailureClass.BACKEND  # nobody can even look before the class is put right
    failures = s.record.failures
    if decision.phase is not Phase.FAILED or failures is None:
        return False
    return failures.count >= STALLED_AFTER or failures.failure_class != FailureClass.BACKEND


def _reconciling(s: Situation, decision: Decision) -> Verdict | None:
    working = decision.phase in (*_WORKING, Phase.FAILED) or _awaits(s, decision)
    return (TRUE, decision.reason, decision.message) if working and not _needs_person(s, decision) else None


def _stalled(s: Situation, decision: Decision) -> Verdict | None:
    if decision.row.reached and s.wish.goal is Goal.RUNNING and s.seen.serving.answers is False:
        # It runs and does not serve, and nothing follows by itself: silence alone restarts nothing (I-42).
        return TRUE, s.seen.serving.reason, s.seen.serving.message
    return (TRUE, decision.reason, decision.message) if _needs_person(s, decision) else None


def _backend_reachable(s: Situation) -> Verdict:
    if s.wish.backend is None and s.wish.blocked is not None:
        status = FALSE if s.record.instance is not None else UNKNOWN
        return status, s.wish.blocked.reason, s.wish.blocked.message
    if s.seen.problem is not None:
        status = UNKNOWN if s.seen.problem.reason == Reason.NOT_OBSERVED else FALSE
        return status, s.seen.problem.reason, s.seen.problem.message
    return TRUE, Reason.BACKEND_REACHABLE, Reason.BACKEND_REACHABLE.meaning


def _secrets_resolved(s: Situation) -> Verdict | None:
    if not s.wish.has_references:
        return None
    blocked = s.wish.blocked
    if blocked is not None and blocked.reason in _UNRESOLVED:
        return FALSE, blocked.reason, blocked.message
    if s.wish.goal is Goal.RUNNING and s.seen.sight in (Sight.RUNNING, Sight.STARTING):
        return TRUE, Reason.RESOLVED, Reason.RESOLVED.meaning
    return UNKNOWN, Reason.NOT_NEEDED, Reason.NOT_NEEDED.meaning


def _stop_confirmed(s: Situation) -> Verdict | None:
    if s.wish.goal is Goal.RUNNING:
        return None
    if s.seen.sight is Sight.UNKNOWN:
        return FALSE, Reason.STOP_UNCONFIRMED, Reason.STOP_UNCONFIRMED.meaning
    frozen_as_wished = s.seen.sight is Sight.FROZEN and s.wish.freeze and s.wish.goal is Goal.PAUSED
    if s.seen.may_compute and not frozen_as_wished:
        return UNKNOWN, Reason.COMPUTE_SEEN, Reason.COMPUTE_SEEN.meaning
    return TRUE, Reason.COMPUTE_STOPPED, Reason.COMPUTE_STOPPED.meaning


def _deleting(s: Situation, decision: Decision) -> Verdict | None:
    return (TRUE, decision.reason, decision.message) if s.wish.goal is Goal.DELETED else None
