"""From a Delegation and the workspaces that it names to the one Wish that the plan decides on."""

from __future__ import annotations

from datetime import datetime

from workspace_operator.api.delegation import Delegation
from workspace_operator.api.meta import CLAIM_FINALIZER
from workspace_operator.api.quantity import duration
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import TERMINAL, DesiredState, EffectiveReason, WhenAmbiguous
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.delegation.facts import Goal, Wish
from workspace_operator.lifecycle.delegation.permission import Member, Name, Outcome, Verdict, permission
from workspace_operator.lifecycle.delegation.plan import cancel_by
from workspace_operator.reconcile.delegation.errands import Talk
from workspace_operator.reconcile.store import Entry, Store, key_of


def message_id(uid: str) -> str:
    """The A2A message id, and the context's: a function of the object, so the same in every sending (I-61)."""
    return f"dlg-{uid}"


def wish_of(delegation: Delegation, talk: Talk, store: Store, now: datetime, gone: Failure | None) -> Wish:
    """What is asked. ``gone``: a workspace of it was deleted, as a fresh look has shown."""
    metadata, spec, status = delegation.metadata, delegation.spec, delegation.status
    created = moments.parse(metadata.creation_timestamp)
    deadline = created + duration(spec.deadline)
    goal = goal_of(delegation, now, gone)
    target = store.get(target_key(delegation))
    verdict = permission_of(delegation, store)
    told = status.task is not None or (CLAIM_FINALIZER in metadata.finalizers and not talk.undelivered)
    cancelling = goal in (Goal.CANCEL, Goal.EXPIRE)
    if cancelling and talk.cancel_since is None:
        talk.cancel_since, talk.not_before = now, None  # also after the operator was away past the deadline
    elif not cancelling:
        talk.cancel_since = None
    hindrance = unreachable(delegation, target) if told else verdict.failure or hindrance_of(delegation, target)
    return Wish(
        goal=goal,
        generation=metadata.generation,
        message_id=message_id(metadata.uid),
        created=created,
        deadline=deadline,
        stuck_after=duration(spec.stuck_after),
        ttl=duration(spec.ttl_after_finished),
        target=f"Workspace {spec.to.name!r}",
        max_attempts=spec.retry.max_attempts,
        may_resend=spec.retry.when_ambiguous is WhenAmbiguous.RESEND,
        claimed=CLAIM_FINALIZER in metadata.finalizers,
        permitted=verdict.outcome is Outcome.ALLOWED,
        denied=verdict.failure if verdict.outcome is Outcome.DENIED else None,
        hindrance=hindrance,
        gone=gone if gone is not None and gone.reason == Reason.TARGET_GONE else moved_on(delegation, target),
        cancelled=gone if gone is not None and gone.reason == Reason.SOURCE_GONE else None,
        cancel_by=cancel_by(talk.cancel_since, deadline) if cancelling and talk.cancel_since else None,
    )


def goal_of(delegation: Delegation, now: datetime, gone: Failure | None) -> Goal:
    """Terminal phases first: nothing leaves them. Then the deadline, which no wish moves."""
    if delegation.status.phase in TERMINAL:
        return Goal.CLOSE
    if now >= moments.parse(delegation.metadata.creation_timestamp) + duration(delegation.spec.deadline):
        return Goal.EXPIRE
    stopped = delegation.spec.desired_state is DesiredState.STOPPED
    orphaned = gone is not None and gone.reason == Reason.SOURCE_GONE
    if stopped or orphaned or delegation.metadata.deletion_timestamp is not None:
        return Goal.CANCEL
    return Goal.HOLD if delegation.spec.desired_state is DesiredState.PAUSED else Goal.DELIVER


def target_key(delegation: Delegation) -> str:
    """Key of the workspace that is to do it."""
    return key_of(delegation.spec.to.namespace or delegation.metadata.namespace, delegation.spec.to.name)


def source_key(delegation: Delegation) -> str:
    """Key of the workspace that delegates."""
    return key_of(delegation.metadata.namespace, delegation.spec.from_.name)


def permission_of(delegation: Delegation, store: Store) -> Verdict:
    """Whether the sender may delegate to the target, by family and classes."""
    names = tuple(Name(*key.split("/", 1)) for key in (source_key(delegation), target_key(delegation)))

    def lookup(namespace: str, name: str) -> Member | None:
        entry = store.get(key_of(namespace, name))
        return _member(entry, store) if entry is not None else None

    sender, receiver = names
    return permission(lookup(*sender), lookup(*receiver), (sender, receiver), lookup)


def _member(entry: Entry, store: Store) -> Member:
    class_ = store.class_for(entry.class_name, entry.placed_in)
    policy = class_.spec.delegations if class_ is not None else None
    return Member(
        entry.namespace,
        entry.name,
        entry.parent,
        to_namespaces=policy.to_namespaces if policy is not None else (),
        from_namespaces=policy.from_namespaces if policy is not None else (),
        class_known=policy is not None,
    )


def hindrance_of(delegation: Delegation, target: Entry | None) -> Failure | None:
    """Why nothing can be sent to the target now."""
    name = f"Workspace {delegation.spec.to.name!r}"
    if target is None:
        return _failure(Reason.TARGET_NOT_FOUND, f"{name} does not exist.")
    seen = target.receiver
    if seen.deleting:
        return _failure(Reason.TARGET_STOPPED, f"{name} is being deleted.")
    if seen.reason == EffectiveReason.IDLE_TIMEOUT and seen.effective == DesiredState.PAUSED:
        if delegation.spec.wake:
            return _failure(Reason.TARGET_WAKING, Reason.TARGET_WAKING.meaning)
        return _failure(Reason.TARGET_PAUSED, f"{name} is paused for being idle, and spec.wake is false.")
    if target.desired is not DesiredState.RUNNING or seen.effective not in (None, DesiredState.RUNNING):
        lowest = DesiredState.STOPPED in (target.desired, seen.effective)
        reason = Reason.TARGET_STOPPED if lowest else Reason.TARGET_PAUSED
        return _failure(reason, reason.meaning)
    if seen.serves:
        return None
    if target.phase in (None, "Pending", "Starting", "Restarting"):
        return _failure(Reason.TARGET_STARTING, f"{name} is starting; the task is sent when its agent answers.")
    if target.phase == "Running" and seen.endpoint is None:
        return _failure(Reason.TARGET_NOT_READY, f"{name} runs without an agent; set its spec.agent.")
    return _failure(Reason.TARGET_NOT_READY, f"{name} is {target.phase}, and its agent does not answer.")


def unreachable(delegation: Delegation, target: Entry | None) -> Failure | None:
    """Why an agent that has (or may have) the task cannot be talked to."""
    if target is None or target.receiver.endpoint is None:
        text = f"Workspace {delegation.spec.to.name!r} does not run; its agent cannot be asked for the task."
        return _failure(Reason.TARGET_NOT_READY, text)
    return None


def moved_on(delegation: Delegation, target: Entry | None) -> Failure | None:
    """The workspace that has the task was deleted, and another one carries its name."""
    task = delegation.status.task
    if target is None or task is None or not task.target_uid or task.target_uid == target.uid:
        return None
    text = f"The workspace {delegation.spec.to.name!r} that had the task was deleted; its namesake never had it."
    return _failure(Reason.TARGET_GONE, text)


def _failure(reason: Reason, message: str) -> Failure:
    return Failure(FailureClass.BACKEND, reason, message)
