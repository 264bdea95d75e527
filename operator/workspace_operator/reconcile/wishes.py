"""From the objects that users write to the one Wish that the plan decides on."""

from __future__ import annotations

from fnmatch import fnmatchcase

from workspace_operator.api.quantity import cpu, duration, size
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability, IdentityMode, PauseMode, Probe, UpdatePolicy, WhenDeleted
from workspace_operator.api.workspace import Workspace
from workspace_operator.api.workspaceclass import Ceiling, WorkspaceClass
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.backends.protocol import Template
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle import idle, moments
from workspace_operator.lifecycle.effective import Effective, Node, effective
from workspace_operator.lifecycle.facts import Goal, Wish
from workspace_operator.lifecycle.parameters import Parameters, fingerprint
from workspace_operator.reconcile.activity import NOTHING, Activity
from workspace_operator.reconcile.store import Store


def wish_of(
    workspace: Workspace,
    class_: WorkspaceClass | None,
    backend: MeteredBackend | Failure,
    store: Store,
    activity: Activity = NOTHING,
) -> Wish:
    """What is asked of a workspace, after ancestors, class and idleness were taken into account."""
    spec, namespace = workspace.spec, workspace.metadata.namespace
    node = Node(workspace.metadata.name, spec.desired_state, spec.parent_ref.name if spec.parent_ref else None)
    state = effective(node, lambda name: store.node(namespace, name))
    usable = backend if isinstance(backend, MeteredBackend) else None
    has_identity = class_ is not None and class_.spec.identity.mode is IdentityMode.TOKEN
    wants_credentials = has_identity and (usable is None or Capability.TOKENS not in usable.capabilities)
    wish = Wish(
        goal=_goal(workspace, state),
        effective_state=state.state,
        effective_reason=state.reason,
        generation=workspace.metadata.generation,
        parameters=parameters_of(workspace),
        created=moments.parse(workspace.metadata.creation_timestamp) if workspace.metadata.creation_timestamp else None,
        class_name=class_.metadata.name if class_ is not None else (spec.class_name or workspace.status.class_name),
        backend=usable.kind if usable is not None else None,
        restart_token=spec.restart_token,
        automatic_update=spec.update_policy is UpdatePolicy.AUTOMATIC,
        provision_timeout=duration(spec.provision_timeout or (class_.spec.provision_timeout if class_ else "5m")),
        grace=duration(class_.spec.stop_grace_period if class_ is not None else "10s"),
        freeze=_freezes(class_, usable),
        halts=usable is None or Capability.HALT in usable.capabilities,
        wants_credentials=wants_credentials,
        renews_credentials=wants_credentials and usable is not None and Capability.DELIVER in usable.capabilities,
        has_references=bool(spec.env_from),
        delete_data=spec.storage is not None and spec.storage.when_deleted is WhenDeleted.DELETE,
        blocked=_blocked(workspace, class_, backend, state),
        pause_after=duration(spec.idle.pause_after) if spec.idle is not None else None,
    )
    return idle.lowered(wish, workspace.status, wanted=activity.wakers > 0 or activity.in_flight > 0)


def _goal(workspace: Workspace, state: Effective) -> Goal:
    if workspace.metadata.deletion_timestamp is not None:
        return Goal.DELETED
    return Goal(state.state.value)


def _freezes(class_: WorkspaceClass | None, backend: MeteredBackend | None) -> bool:
    if class_ is None or backend is None or class_.spec.pause_mode is not PauseMode.FREEZE:
        return False
    return Capability.FREEZE in backend.capabilities


def parameters_of(workspace: Workspace) -> Parameters:
    """Fingerprint of all that takes a new instance when it changes, and of the restart token.

    The size of the data volume is fixed, and was unknown to releases whose fingerprints are still in use.
    """
    spec = workspace.spec
    included = spec.model_dump(
        mode="json",
        by_alias=True,
        include={"image", "command", "args", "env", "env_from", "resources", "agent", "storage"},
        exclude={"storage": {"when_deleted", "size"}, "agent": {"probe", "max_concurrent_tasks"}},
    )
    return fingerprint(included, spec.restart_token or workspace.status.restart_token)


def template_of(workspace: Workspace, class_: WorkspaceClass) -> Template:
    """The instance's parameters, with the class's defaults filled in."""
    spec, defaults, storage = workspace.spec, class_.spec.resources.default, workspace.spec.storage
    limits = spec.resources.limits
    cpus = limits.cpu if limits.cpu is not None else defaults.cpu
    memory = limits.memory if limits.memory is not None else defaults.memory
    return Template(
        image=spec.image,
        command=spec.command,
        args=spec.args,
        cpu=cpu(cpus) if cpus is not None else None,
        memory=size(memory) if memory is not None else None,
        port=spec.agent.port if spec.agent is not None else None,
        mount_path=storage.mount_path if storage is not None else None,
        storage=size(storage.size) if storage is not None and storage.size is not None else None,
    )


def _blocked(
    workspace: Workspace, class_: WorkspaceClass | None, backend: MeteredBackend | Failure, state: Effective
) -> Failure | None:
    """Why the workspace must not be started now. None of this is a reason to stop one that runs."""
    if isinstance(backend, Failure):
        return backend
    if class_ is None:
        return no_class(workspace)
    return state.problem or _refused_by_class(workspace, class_)


def no_class(workspace: Workspace) -> Failure:
    """Neither the named class nor a default one exists."""
    name = workspace.spec.class_name or workspace.status.class_name
    if name is None:
        text = "spec.className is empty and no WorkspaceClass is marked as default; name a class or mark one."
    else:
        text = f"WorkspaceClass {name!r} does not exist; create it."
    return Failure(FailureClass.BAD_REQUEST, Reason.CLASS_NOT_FOUND, text)


def _refused_by_class(workspace: Workspace, class_: WorkspaceClass) -> Failure | None:
    spec, name = workspace.spec, class_.metadata.name
    if class_.metadata.deletion_timestamp is not None:
        text = f"Class {name!r} is being deleted; move on to another class, or delete the workspaces that use it."
        return _refusal(Reason.CLASS_DELETING, text)
    allowed = class_.spec.allowed_images
    if allowed and not any(fnmatchcase(spec.image, pattern) for pattern in allowed):
        return _refusal(
            Reason.IMAGE_NOT_ALLOWED,
            f"Class {name!r} does not allow image {spec.image!r}; it allows {', '.join(allowed)}.",
        )
    if spec.agent is not None and spec.agent.probe is Probe.LEASE and class_.spec.identity.mode is IdentityMode.NONE:
        return _refusal(
            Reason.UNSUPPORTED,
            f"spec.agent.probe is Lease, but class {name!r} gives no identity to renew one; use AgentCard or TCP.",
        )
    return _above_ceiling(workspace, class_.spec.resources.max, name)


def _above_ceiling(workspace: Workspace, ceiling: Ceiling, name: str) -> Failure | None:
    limits, storage = workspace.spec.resources.limits, workspace.spec.storage
    # Once there was an instance there is a volume, and nobody can make it smaller: a lower ceiling comes too late.
    new_volume = storage.size if storage is not None and workspace.status.incarnation == 0 else None
    anew = "delete this workspace and create it anew with a smaller size"
    asked = (
        ("spec.resources.limits.cpu", limits.cpu, ceiling.cpu, cpu, "lower it"),
        ("spec.resources.limits.memory", limits.memory, ceiling.memory, size, "lower it"),
        ("spec.storage.size", new_volume, ceiling.storage, size, anew),
    )
    for field, wish, most, amount, remedy in asked:
        if wish is not None and most is not None and amount(wish) > amount(most):
            text = f"{field} {wish} is above the ceiling of class {name!r}, {most}; {remedy}."
            return _refusal(Reason.RESOURCES_EXCEED_CLASS, text)
    return None


def _refusal(reason: Reason, message: str) -> Failure:
    return Failure(FailureClass.BAD_REQUEST, reason, message)
