"""One function per step of the table: what a pass does when the plan says so. At most one verb per pass."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from workspace_operator.api.quantity import duration
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability, IdentityMode
from workspace_operator.api.workspace import CredentialsStatus
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.backends.protocol import Instance, Progress, ProvisionRequest, Reading, StopRequest
from workspace_operator.errors import BackendError, BadRequest, Failure, FailureClass, OperatorError
from workspace_operator.kube.client import Conflict
from workspace_operator.kube.identity import Credentials, account_name
from workspace_operator.lifecycle import idle, moments, report
from workspace_operator.lifecycle.facts import Goal, Sight
from workspace_operator.lifecycle.plan import Decision, Situation, plan
from workspace_operator.lifecycle.table import Guard, Step
from workspace_operator.reconcile.references import environment
from workspace_operator.reconcile.run import Run
from workspace_operator.reconcile.wishes import template_of
from workspace_operator.telemetry import metrics

log = logging.getLogger(__name__)

Executor = Callable[[Run, Situation, Decision], Awaitable[None]]


async def intend(run: Run, s: Situation, decision: Decision) -> None:
    """Decide a start, and put it on the object before anything is created (I-05, I-09)."""
    try:
        run.environment = await environment(run.world.client, run.workspace, s.record.incarnation)
    except BadRequest as error:
        run.block(error.failure)  # nothing is decided; what runs is left alone
        return
    restart = decision.row.guard is Guard.RESTART_WANTED
    run.record = report.intend(s, s.wish.backend or "", restart)
    if s.wish.wants_credentials and s.seen.sight is not Sight.RUNNING and not _frozen_with_token(s):
        run.record = report.with_credentials(run.record, _expected(run, s))
    await run.persist(s, decision)


async def provision(run: Run, s: Situation, decision: Decision) -> None:
    """Ask for the recorded incarnation; asking again adopts what an earlier, lost call made (I-06).

    That no older one is left may come from a listing that is older than its start: one fresh look settles it.
    """
    if s.seen.sight is Sight.ABSENT and 1 < s.record.incarnation != run.memory.alone:
        if await _confirmed(run, decision) is None:
            return
        run.memory.alone = s.record.incarnation
    request = await _request(run, s, decision)
    if request is not None:
        await _settle(run, s, _backend(run).provision(request))


async def restart(run: Run, s: Situation, decision: Decision) -> None:
    """Replace older incarnations by the recorded one."""
    request = await _request(run, s, decision)
    if request is not None:
        await _settle(run, s, _backend(run).restart(request, s.wish.grace))


async def fall_asleep(run: Run, s: Situation, decision: Decision) -> None:
    """Record the pause of what has nothing to do, if fresh reads agree; nothing is stopped before that (I-22)."""
    again = replace(s, work=await run.ask_for_work())
    if plan(again).row != decision.row:
        return
    run.record, run.wish = idle.paused(again.record, again.work, again.now), idle.asleep(run.wish)
    lowered = replace(again, wish=run.wish, record=run.record)
    await run.persist(lowered, plan(lowered))


async def stop(run: Run, s: Situation, decision: Decision) -> None:
    """Halt (or freeze) in place, and end the token at the same time: a slow stop must not keep it valid.

    A task that came since an idle pause was recorded ends that pause instead, and so does not knowing (I-22).
    """
    if idle.is_asleep(s.wish) and s.seen.sight is Sight.RUNNING and (await run.ask_for_work()).active is not False:
        run.wish = idle.awake(run.wish)
        return
    freeze = s.wish.freeze and s.wish.goal is Goal.PAUSED
    if freeze or Capability.HALT in _backend(run).capabilities:
        await _stop(run, StopRequest(run.ref, s.wish.grace, freeze=freeze), revoke=not freeze)
    else:
        await release(run, s, decision)  # nothing stays of what is stopped, so its name is used up (I-08)
    if s.wish.goal is Goal.PAUSED and run.problem is None:
        run.record = report.give_up_start(run.record)  # one that is wanted again meanwhile has not ended by itself


async def release(run: Run, s: Situation, decision: Decision) -> None:
    """Release the compute; the data volume stays."""
    keep_newest = s.seen.sight is Sight.OUTDATED and s.wish.goal in (Goal.RUNNING, Goal.PAUSED)
    latest = max(s.record.incarnation, s.seen.incarnation)
    if not keep_newest and report.may_ask_again(run.workspace.status):
        # Else a crash right behind the release would leave a start on record that looks as if it never happened, and
        # the released name would be asked for once more (I-08).
        run.record = report.give_up_start(s.record)
        await run.persist(s, decision)
    request = StopRequest(run.ref, s.wish.grace, release=True, only_before=latest if keep_newest else None)
    await _stop(run, request, revoke=not keep_newest)


async def fail(run: Run, s: Situation, decision: Decision) -> None:
    """Count a failure, after a fresh look confirmed it: the listing may be some seconds old."""
    again = await _confirmed(run, decision)
    if again is not None:
        run.record = report.fail(again, _failure_of(decision, again))


async def revoke(run: Run, s: Situation, decision: Decision) -> None:
    """End the token by deleting its Secret."""
    await _revoke(run)
    run.memory.credentials = None
    run.record = report.with_credentials(run.record, None)


async def renew(run: Run, s: Situation, decision: Decision) -> None:
    """Deliver a fresh token to the running instance; a failure is tried again and disturbs nothing else."""
    try:
        await _put_on_record(run, s, decision)
        with metrics.counted("renew"):
            credentials = await _issue(run, fresh_start=False)
            await _backend(run).deliver(run.ref, s.seen.incarnation, credentials.files)
    except Conflict:
        raise
    except OperatorError as error:
        log.warning("the token could not be renewed: %s", error)
        run.wish = replace(run.wish, renews_credentials=False)
        run.renewal_failed = True
        return
    run.memory.credentials = None
    run.verb_done = True
    run.record = report.with_credentials(run.record, _status_of(credentials))


async def delete_data(run: Run, s: Situation, decision: Decision) -> None:
    """Remove the data volume; the plan comes here only after the compute was seen gone, and that is looked at again."""
    if await _confirmed(run, decision) is None:
        return
    run.verb_done = True
    try:
        run.memory.data_gone = await _backend(run).delete_data(run.ref)
    except OperatorError as error:
        run.problem = error.failure


async def finish(run: Run, s: Situation, decision: Decision) -> None:
    """Let the finalizer go, after one more fresh look (I-10)."""
    if not isinstance(run.backend, MeteredBackend) or await _confirmed(run, decision) is not None:
        run.finished = True


STEPS: Mapping[Step, Executor] = {
    Step.INTEND: intend,
    Step.PROVISION: provision,
    Step.RESTART: restart,
    Step.STOP: stop,
    Step.RELEASE: release,
    Step.IDLE: fall_asleep,
    Step.FAIL: fail,
    Step.REVOKE: revoke,
    Step.RENEW: renew,
    Step.DELETE_DATA: delete_data,
    Step.FINISH: finish,
}


# -- parts -------------------------------------------------------------------------------------------------------------


async def _confirmed(run: Run, decision: Decision) -> Situation | None:
    """What a fresh look shows; None when it tells otherwise, and the pass goes on with that. Listings may be old."""
    await run.look_closely()
    again = await run.situation()
    return again if plan(again).row == decision.row else None


async def _request(run: Run, s: Situation, decision: Decision) -> ProvisionRequest | None:
    """Everything for the recorded incarnation; None after a failure was recorded instead."""
    instance = run.record.instance
    assert instance is not None, "the table asks for a verb only after an intent"
    assert run.class_ is not None
    await run.confirm()
    try:
        if run.environment is None:
            run.environment = await environment(run.world.client, run.workspace, instance.incarnation)
        files = await _identity_files(run, s, decision)
    except Conflict:
        raise
    except OperatorError as error:
        _fail(run, s, error.failure, keep_start=True)
        return None
    return ProvisionRequest(
        ref=run.ref,
        incarnation=instance.incarnation,
        parameters=instance.parameters,
        template=template_of(run.workspace, run.class_),
        environment={**run.environment, "WORKSPACE_INCARNATION": str(instance.incarnation)},
        files=files,
    )


async def _settle(run: Run, s: Situation, verb: Awaitable[Instance | Progress | None]) -> None:
    """Carry out a start and take down what came of it."""
    run.verb_done = run.provisioned = True
    try:
        outcome = await verb
    except OperatorError as error:
        # The attempt may have had an effect, so the same incarnation is asked for again after the back-off; unless the
        # backend says that its name is used up (I-08), or that it made nothing.
        spent = error.failure.reason in (Reason.INCARNATION_SPENT, Reason.NO_CAPACITY)
        _fail(run, s, error.failure, keep_start=not spent)
        await run.look_closely()
        return
    if isinstance(outcome, Progress):
        run.progress = outcome
    elif outcome is None:
        await run.look_closely()
    else:
        run.memory.credentials = None
        run.record = report.begun(run.record, run.world.clock.now())
        if outcome.reading is not Reading.STARTING:
            run.note_started()  # what is only accepted may still be missing from the next listing
        run.world.observer.note(run.ref, (outcome,))


async def _stop(run: Run, request: StopRequest, *, revoke: bool) -> None:
    run.verb_done = True
    tasks: list[Awaitable[object]] = [_backend(run).stop(request)]
    unrecorded = run.wish.wants_credentials and run.record.instance is None  # someone wiped the status
    if revoke and (run.record.credentials is not None or unrecorded):
        tasks.append(_revoke(run))
    stopped, *revoked = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in revoked:
        if isinstance(outcome, BaseException):
            log.warning("the token could not be revoked yet: %s", outcome)  # the table comes back to it
        else:
            run.memory.credentials = None
            run.record = report.with_credentials(run.record, None)
    if isinstance(stopped, OperatorError):
        run.problem = stopped.failure
    elif isinstance(stopped, BaseException):
        raise stopped
    elif isinstance(stopped, tuple):
        run.world.observer.note(run.ref, stopped)


def _fail(run: Run, s: Situation, failure: Failure, *, keep_start: bool) -> None:
    """Count a failure on the record as this pass has left it: a token may have come onto it since ``s``."""
    run.record = report.fail(replace(s, record=run.record), failure, keep_start=keep_start)


async def _identity_files(run: Run, s: Situation, decision: Decision) -> Mapping[str, bytes]:
    """The identity files for a start; without a token where the backend gets that by itself."""
    assert run.class_ is not None
    identity = run.class_.spec.identity
    if identity.mode is IdentityMode.NONE:
        return {}
    if s.wish.wants_credentials:
        return await _token(run, s, decision)
    try:
        return await run.world.identities.prepare(run.workspace, identity.server)
    except Conflict:
        raise
    except OperatorError as error:
        raise BackendError(Reason.IDENTITY_FAILED, str(error)) from error


async def _token(run: Run, s: Situation, decision: Decision) -> Mapping[str, bytes]:
    """The identity files with a token of ours."""
    await _put_on_record(run, s, decision)
    try:
        credentials = run.memory.credentials or await _issue(run, fresh_start=True)
    except Conflict:
        raise
    except OperatorError as error:
        raise BackendError(Reason.IDENTITY_FAILED, str(error)) from error
    if not _frozen_with_token(s):  # a frozen one goes on with the token it has, so the record keeps its end
        run.record = report.with_credentials(run.record, _status_of(credentials))
    return credentials.files


async def _put_on_record(run: Run, s: Situation, decision: Decision) -> None:
    """Before a token is issued: only what is on record is revoked after a crash (I-51)."""
    if run.workspace.status.credentials is None:
        run.record = report.with_credentials(run.record, _expected(run, s))
        await run.persist(s, decision)


def _expected(run: Run, s: Situation) -> CredentialsStatus:
    """A token that may exist from now on; due, where it can be renewed, until one is known to be delivered."""
    expires = s.now if s.wish.renews_credentials else s.now + s.token_lifetime
    return CredentialsStatus(secret_name=account_name(run.workspace.metadata.name), expires=moments.text(expires))


async def _issue(run: Run, *, fresh_start: bool) -> Credentials:
    assert run.class_ is not None
    identity = run.class_.spec.identity
    with metrics.counted("issue"):
        credentials = await run.world.identities.issue(
            run.workspace, duration(identity.token_lifetime), identity.server, fresh_start=fresh_start
        )
    run.memory.credentials = credentials
    return credentials


async def _revoke(run: Run) -> None:
    with metrics.counted("revoke"):
        await run.world.identities.revoke(run.workspace)


def _frozen_with_token(s: Situation) -> bool:
    return s.seen.sight is Sight.FROZEN and s.record.credentials is not None


def _status_of(credentials: Credentials) -> CredentialsStatus:
    return CredentialsStatus(secret_name=credentials.secret_name, expires=moments.text(credentials.expires))


def _backend(run: Run) -> MeteredBackend:
    assert isinstance(run.backend, MeteredBackend), "the table asks for no verb without a backend"
    return run.backend


def _failure_of(decision: Decision, s: Situation) -> Failure:
    texts = {
        Reason.INSTANCE_EXITED: f"The instance ended by itself{_exit(s)}; see its logs.",
        Reason.INSTANCE_LOST: "The instance vanished without the operator's doing.",
        Reason.INSTANCE_FAILED: f"The backend reports the instance as failed{_exit(s)}.",
        Reason.PROVISION_TIMEOUT: (
            f"Not ready within {int(s.wish.provision_timeout.total_seconds())} s: {s.seen.serving.message} "
            "Its compute is released; raise spec.provisionTimeout if it needs longer."
        ),
    }
    text = texts.get(decision.reason) or texts.get(decision.row.reason or decision.reason, decision.message)
    return Failure(FailureClass.BACKEND, decision.reason, f"{text} {s.seen.message}".strip())


def _exit(s: Situation) -> str:
    return f" with exit code {s.seen.exit_code}" if s.seen.exit_code is not None else ""
