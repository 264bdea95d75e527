"""One function per step of the table: what a pass does when the plan says so. None of them waits for an agent."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from workspace_operator.a2a.values import Outgoing, OutgoingPart
from workspace_operator.api.delegation import MessageSource
from workspace_operator.api.meta import CLAIM_FINALIZER
from workspace_operator.api.reasons import Reason
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.kube.client import NotFound, path
from workspace_operator.lifecycle.delegation import report
from workspace_operator.lifecycle.delegation.facts import Goal, Sight, Situation
from workspace_operator.lifecycle.delegation.plan import Decision, is_lost
from workspace_operator.lifecycle.delegation.table import Step
from workspace_operator.reconcile.delegation.answers import keep_answer
from workspace_operator.reconcile.delegation.run import Run
from workspace_operator.reconcile.delegation.wishes import message_id
from workspace_operator.telemetry import metrics

log = logging.getLogger(__name__)

Executor = Callable[[Run, Situation, Decision], Awaitable[None]]
_TOLD = (Sight.UNSURE, Sight.SENDING, Sight.WORKING, Sight.ASKING, Sight.SILENT)


async def claim(run: Run, s: Situation, decision: Decision) -> None:
    """Put on the object that the message may be sent from now on, then and only then send it (I-62, I-64).

    The place in the line is taken before the first wait, so that no other pass takes it too.
    """
    line = run.desk.book.line(run.entry.target)
    if not line.may_go(run.key, run.capacity):
        return
    line.fly(run.key, run.entry.source)
    try:
        run.adopt(await run.desk.client.merge(run.url(), _finalizers(run, claimed=True)))
    except BaseException:
        run.desk.book.leave(run.key, run.entry.target)
        raise
    run.talk.undelivered = True  # nothing was sent yet, as this process knows
    metrics.DELEGATION_WAIT.observe(max(0.0, (s.now - s.wish.created).total_seconds()))
    await send(run, s, decision)


async def send(run: Run, s: Situation, decision: Decision) -> None:
    """Begin a sending. One that may be a double is on record before it begins, so that doubles are counted honestly."""
    address = run.address
    if address is None:
        return  # the target has gone in this very moment; the plan is asked again
    line = run.desk.book.line(run.entry.target)
    line.fly(run.key, run.entry.source)
    message = await _message(run)
    if isinstance(message, Failure):
        run.talk.undelivered, run.talk.failed = True, message
        run.talk.attempt = max(run.talk.attempt, run.record.attempt_count) + 1
        run.desk.book.leave(run.key, run.entry.target)
        return
    run.talk.doubt = run.talk.doubt or not run.talk.undelivered
    again = (run.talk.doubt and not run.talk.counted) or is_lost(s)
    number = max(run.talk.attempt, run.record.attempt_count) + 1
    run.record = report.sent(run.record, number, again=again)
    if again:
        await run.write(run.record)  # when that fails, nothing is sent, and the next pass counts it
        run.talk.counted = True
        metrics.RESENDS.inc()
    run.talk.attempt = number
    run.talk.target_uid = run.target.uid if run.target is not None else ""
    run.talk.claimed = time.monotonic()
    run.desk.errands.send(run.uid, run.key, address, message)


async def ask(run: Run, s: Situation, decision: Decision) -> None:
    """Ask the agent whether it has the message. What it lists is what it has now: doubt stays, and is counted."""
    run.talk.doubt, run.talk.counted = True, False
    message = await _message(run)
    run.desk.book.line(run.entry.target).fly(run.key, run.entry.source)
    if run.address is not None:
        run.talk.target_uid = run.target.uid if run.target is not None else ""
        outgoing = message if isinstance(message, Outgoing) else _outgoing(run, ())
        run.desk.errands.ask(run.uid, run.key, run.address, outgoing)


async def follow(run: Run, s: Situation, decision: Decision) -> None:
    """Follow the task to its end."""
    assert run.record.task is not None, "a task that is seen is on record"
    if run.address is not None:
        run.talk.target_uid = run.record.task.target_uid
        run.desk.errands.follow(run.uid, run.key, run.address, run.record.task.id)


async def cancel(run: Run, s: Situation, decision: Decision) -> None:
    """Tell the agent to give the task up (I-71)."""
    assert run.record.task is not None, "a task that is seen is on record"
    if run.address is not None:
        run.talk.target_uid = run.record.task.target_uid
        run.desk.errands.cancel(run.uid, run.key, run.address, run.record.task.id)


async def finish(run: Run, s: Situation, decision: Decision) -> None:
    """Terminal phase and result in one update (I-65); a long answer is kept before it is spoken of."""
    view = run.talk.view
    result = None
    if s.seen.sight is Sight.SUCCEEDED and view is not None and view.answer is not None:
        result = await keep_answer(run.desk.client, run.delegation.metadata, view.answer)
    ended = report.finish(s, decision, result)
    if ended.cancellation is None and s.wish.goal in (Goal.CANCEL, Goal.EXPIRE) and s.seen.sight in _TOLD:
        ended = ended.model_copy(update={"cancellation": report.unanswered(s)})
    await run.write(ended)
    metrics.DELEGATIONS_ENDED.labels(decision.phase, decision.reason).inc()
    metrics.DELEGATION_SECONDS.labels(decision.phase).observe(max(0.0, (s.now - s.wish.created).total_seconds()))
    run.desk.errands.forget(run.uid)


async def unclaim(run: Run, s: Situation, decision: Decision) -> None:
    """Let the finalizer go: nothing more happens at the agent for it."""
    body = await run.desk.client.merge(run.url(), _finalizers(run, claimed=False))
    run.over = run.delegation.metadata.deletion_timestamp is not None
    if not run.over:
        run.adopt(body)


async def delete(run: Run, s: Situation, decision: Decision) -> None:
    """Its time to live is over (I-69)."""
    await run.desk.client.delete(run.url(), uid=run.uid)
    run.over = True


STEPS: Mapping[Step, Executor] = {
    Step.CLAIM: claim,
    Step.SEND: send,
    Step.ASK: ask,
    Step.FOLLOW: follow,
    Step.CANCEL: cancel,
    Step.FINISH: finish,
    Step.UNCLAIM: unclaim,
    Step.DELETE: delete,
}


# -- parts -------------------------------------------------------------------------------------------------------------


def _finalizers(run: Run, *, claimed: bool) -> dict[str, object]:
    metadata = run.delegation.metadata
    names = [name for name in metadata.finalizers if name != CLAIM_FINALIZER]
    if claimed:
        names.append(CLAIM_FINALIZER)
    return {"metadata": {"resourceVersion": metadata.resource_version, "finalizers": names}}


async def _message(run: Run) -> Outgoing | Failure:
    spec = run.delegation.spec
    if spec.message_from is not None:
        return await _message_from(run, spec.message_from)
    message = spec.message
    assert message is not None, "the schema asks for one of the two"
    if message.parts is None:
        return _outgoing(run, (OutgoingPart(text=message.text),))
    return _outgoing(
        run,
        tuple(
            OutgoingPart(text=part.text, data=part.data, url=part.url, media_type=part.media_type)
            for part in message.parts
        ),
    )


async def _message_from(run: Run, source: MessageSource) -> Outgoing | Failure:
    ref = source.config_map_key_ref
    what = f"key {ref.key!r} of ConfigMap {ref.name!r}, which spec.messageFrom names,"
    try:
        found = await run.desk.client.get(path("v1/configmaps", run.delegation.metadata.namespace, ref.name))
    except NotFound:
        found = {}
    text = (found.get("data") or {}).get(ref.key)
    if text is None:
        return Failure(FailureClass.BAD_REQUEST, Reason.MESSAGE_NOT_FOUND, f"The {what} does not exist; create it.")
    return _outgoing(run, (OutgoingPart(text=text),))


def _outgoing(run: Run, parts: tuple[OutgoingPart, ...]) -> Outgoing:
    spec, metadata = run.delegation.spec, run.delegation.metadata
    identity = message_id(metadata.uid)
    about = {
        "workspace-operator.dev/delegation": f"{metadata.namespace}/{metadata.name}",
        "workspace-operator.dev/from": f"{metadata.namespace}/{spec.from_.name}",
    }
    return Outgoing(identity, identity, parts, about)
