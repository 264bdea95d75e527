"""From instances, as backends show them, to the one sight that the plan decides on."""

from __future__ import annotations

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Reading
from workspace_operator.api.workspace import WorkspaceStatus
from workspace_operator.backends.protocol import Instance
from workspace_operator.errors import Failure
from workspace_operator.lifecycle.facts import Seen, Serving, Sight

NOT_SERVING = Serving(False, Reason.NOT_RUNNING, Reason.NOT_RUNNING.meaning)


def current(instances: tuple[Instance, ...]) -> Instance | None:
    """The newest incarnation among the instances."""
    return max(instances, key=lambda instance: instance.incarnation, default=None)


def unknown(problem: Failure) -> Seen:
    """The backend could not be asked; nothing is concluded (I-40)."""
    return Seen(Sight.UNKNOWN, Serving(None, Reason(problem.reason), problem.message), problem)


def see(instances: tuple[Instance, ...], record: WorkspaceStatus, serving: Serving, *, ran: bool) -> Seen:
    """One observation. An incarnation older than the recorded or the newest one makes it OUTDATED."""
    problem = next((instance.problem for instance in instances if instance.problem is not None), None)
    if problem is not None:
        return unknown(problem)
    newest = current(instances)
    if newest is None:
        return Seen(Sight.ABSENT, NOT_SERVING, ran=ran)
    latest = max(record.incarnation, newest.incarnation)
    outdated = any(instance.incarnation < latest for instance in instances)
    sight = Sight.OUTDATED if outdated else Sight(newest.reading.value)
    halting = [i.halting_since for i in instances if i.reading is Reading.HALTING and i.halting_since is not None]
    return Seen(
        sight,
        serving if sight is Sight.RUNNING else NOT_SERVING,
        incarnation=newest.incarnation,
        parameters=newest.parameters,
        id=newest.id,
        address=newest.address,
        node=newest.node,
        image_digest=newest.image_digest,
        exit_code=newest.exit_code,
        message=newest.message,
        why=newest.reason,
        halting_since=min(halting, default=None),
        ran=ran,
    )
