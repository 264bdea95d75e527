"""The Workspace resource: one agent's home. Field descriptions are what ``kubectl explain`` teaches."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, JsonValue

from workspace_operator.api.base import (
    CONDITIONS_SCHEMA,
    Condition,
    Cpu,
    Memory,
    Model,
    StorageSize,
    duration_field,
    rule,
    rules,
)
from workspace_operator.api.meta import RESERVED_ENV_PREFIXES
from workspace_operator.api.states import DesiredState, EffectiveReason, Phase, Probe, UpdatePolicy, WhenDeleted

_reserved = " || ".join(f"self.name.startsWith('{prefix}')" for prefix in RESERVED_ENV_PREFIXES)
_reserved_prefix = " || ".join(f"self.prefix.startsWith('{prefix}')" for prefix in RESERVED_ENV_PREFIXES)
_NAME: dict[str, JsonValue] = {"minLength": 1, "maxLength": 253}


class EnvVar(Model):
    """An environment variable with a literal value. Secrets never belong here: use envFrom."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!({_reserved})",
                "names beginning with WORKSPACE_ or KUBERNETES_ are set by the operator; choose another name",
                fieldPath=".name",
            )
        )
    )
    name: str = Field(
        description="Name of the variable.", min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"
    )
    value: str = Field(default="", description="Literal value.", max_length=32768)


class ObjectRef(Model):
    """A reference to an object of the same namespace by name."""

    name: str = Field(description="Name of the object.", json_schema_extra=_NAME)


class EnvFromSource(Model):
    """All keys of one Secret or ConfigMap as environment variables, looked up at each start."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.secretRef) != has(self.configMapRef)",
                "set exactly one of secretRef and configMapRef",
            ),
            rule(
                f"!has(self.prefix) || !({_reserved_prefix})",
                "names beginning with WORKSPACE_ or KUBERNETES_ are set by the operator; choose another prefix",
                fieldPath=".prefix",
            ),
        )
    )
    secret_ref: ObjectRef | None = Field(default=None, description="A Secret in the workspace's namespace.")
    config_map_ref: ObjectRef | None = Field(default=None, description="A ConfigMap in the workspace's namespace.")
    prefix: str = Field(
        default="", description="Put before every key.", max_length=64, pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$"
    )


class ResourceAmounts(Model):
    """Amounts of compute."""

    cpu: Cpu | None = Field(default=None, description="CPUs, e.g. 2 or 500m.")
    memory: Memory | None = Field(default=None, description="Memory in bytes, e.g. 512Mi or 4Gi.")


class Resources(Model):
    """Compute that the workspace may use."""

    limits: ResourceAmounts = Field(
        default_factory=ResourceAmounts,
        description="Upper bounds, enforced by backends with the capability 'limits'.",
    )


# The same size in other words is no change. Where self.size is no quantity, that is said by the field's own rule.
_same_size = (
    "has(self.size) == has(oldSelf.size) && (!has(self.size) || isQuantity(string(self.size)) && "
    "quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) == 0)"
)


class Storage(Model):
    """The data volume: one directory that survives pause, stop and every new incarnation."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                _same_size,
                "size cannot be set, changed or removed later, because data volumes are not resized; create a new "
                "workspace of the size you need",
            )
        )
    )
    mount_path: str = Field(
        default="/data",
        description="Absolute path of the volume inside the workspace (WORKSPACE_DATA holds it too).",
        min_length=2,
        max_length=512,
        pattern=r"^/[^:\s]*[^:/\s]$",
        json_schema_extra=rules(
            rule("self == oldSelf", "mountPath is immutable; create a new workspace to mount elsewhere")
        ),
    )
    size: StorageSize | None = Field(
        default=None,
        description=(
            "Size of the volume, e.g. 20Gi; what the class gives when absent. Immutable. Backends with the capability "
            "'volumeSize' (ec2, kubernetes) make a volume of at least that; docker and process accept it and do not "
            "enforce it, so that the same manifest runs on any class."
        ),
    )
    when_deleted: WhenDeleted = Field(
        default=WhenDeleted.RETAIN,
        description="Retain keeps the volume of a deleted workspace; Delete removes it after the compute is gone.",
    )


class Agent(Model):
    """The agent's endpoint and how the operator learns that it serves."""

    port: int = Field(default=8080, ge=1, le=65535, description="TCP port on which the agent listens (WORKSPACE_PORT).")
    probe: Probe = Field(
        default=Probe.AGENT_CARD,
        description=(
            "How liveness is learned. Lease: the agent renews its Lease with its token (the class must give an "
            "identity). AgentCard: GET /.well-known/agent-card.json answers 200. TCP: the port accepts a connection. "
            "None: a running instance counts as available."
        ),
    )
    max_concurrent_tasks: int = Field(
        default=1, ge=1, le=1000, description="Delegations that the agent is given at once; the others wait."
    )


class Idle(Model):
    """What happens when the agent has nothing to do."""

    pause_after: duration_field("5s", "720h") = Field(  # type: ignore[valid-type]
        description=(
            "Pause the compute this long after the last task: delegations to it, and tasks that the agent reports with "
            "its Lease. The wish stays Running (status.effectiveState says Paused, IdleTimeout); a delegation or a new "
            "restartToken wakes it."
        )
    )


class WorkspaceSpec(Model):
    """The wish. It belongs to the user: the operator never writes it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.className) == has(oldSelf.className) && "
                "(!has(self.className) || self.className == oldSelf.className)",
                "className is immutable; delete the workspace and create it anew in the other class",
            ),
            rule(
                "has(self.storage) == has(oldSelf.storage)",
                "storage cannot be added or removed later, because data would be stranded; create a new workspace",
            ),
        )
    )
    desired_state: DesiredState = Field(
        default=DesiredState.RUNNING,
        description=(
            "Running: compute runs and the agent serves. Paused: compute is halted in place (or frozen where the class "
            "says so), data kept. Stopped: compute is released, data kept."
        ),
    )
    class_name: str | None = Field(
        default=None,
        description="WorkspaceClass that says where and how this runs; without it, the default class. Immutable.",
        json_schema_extra=_NAME,
    )
    image: str = Field(
        description="Image to run, as the class's backend understands it (a container image, a process image name).",
        min_length=1,
        max_length=512,
        pattern=r"^\S+$",
    )
    command: tuple[str, ...] | None = Field(default=None, description="Replaces the image's entrypoint.", max_length=64)
    args: tuple[str, ...] | None = Field(
        default=None, description="Arguments of the entrypoint; replaces the image's default ones.", max_length=256
    )
    env: tuple[EnvVar, ...] = Field(
        default=(),
        description="Environment variables with literal values.",
        max_length=128,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    env_from: tuple[EnvFromSource, ...] = Field(
        default=(),
        description=(
            "Environment from Secrets and ConfigMaps by reference. All must exist before a start; values are read when "
            "an instance is created, so a restart (spec.restartToken) applies a changed Secret."
        ),
        max_length=32,
    )
    resources: Resources = Field(default_factory=Resources, description="Compute limits; the class gives defaults.")
    storage: Storage | None = Field(default=None, description="The data volume; without it nothing is kept.")
    agent: Agent | None = Field(default=None, description="The agent's endpoint; without it none is published.")
    parent_ref: ObjectRef | None = Field(
        default=None,
        description=(
            "Parent workspace of the same namespace. A child runs no higher than its ancestors: it pauses with its "
            "parent and comes back to its own wish with it. Deleting the parent leaves the child as it is."
        ),
    )
    idle: Idle | None = Field(default=None, description="Pause when idle; without it never.")
    restart_token: str | None = Field(
        default=None,
        description="Any string. A value that differs from status.restartToken asks for exactly one restart.",
        max_length=256,
    )
    update_policy: UpdatePolicy = Field(
        default=UpdatePolicy.ON_RESTART,
        description=(
            "When a changed image, command, env, resources or agent port reaches a running instance. OnRestart: at the "
            "next restart or resume (status.pendingRestart shows it waits). Automatic: by a restart at once."
        ),
    )
    provision_timeout: duration_field("5s", "24h") | None = Field(  # type: ignore[valid-type]
        default=None, description="How long a start may take until it is released and tried again; the class's default."
    )


class FailureStatus(Model):
    """Consecutive failures; cleared when the workspace is Ready."""

    count: int = Field(description="Consecutive failures.")
    failure_class: str = Field(alias="class", description="BadRequest, Backend, Quota or Internal.")
    reason: str = Field(description="Reason of the last failure.")
    message: str = Field(description="What happened and what to do.", min_length=1)
    retry_after: str = Field(description="No attempt before this time.", json_schema_extra={"format": "date-time"})
    observed_generation: int = Field(description="Generation that failed; an edit of the spec tries again at once.")


class InstanceStatus(Model):
    """The compute of this workspace: the intent first, then what was observed of it."""

    backend: str = Field(description="Backend that runs it.")
    incarnation: int = Field(description="Number of this instance in the workspace's life.")
    parameters: str = Field(description="Hash of the template it was created from.")
    since: str | None = Field(
        default=None,
        description="When the current start was decided, then when the backend took it; absent when none is wanted.",
        json_schema_extra={"format": "date-time"},
    )
    served: bool = Field(default=False, description="Whether the agent has answered since this start.")
    id: str | None = Field(default=None, description="The backend's own id.")
    address: str | None = Field(default=None, description="Where it is reached.")
    node: str | None = Field(default=None, description="Machine that runs it.")
    image_digest: str | None = Field(default=None, description="Digest of the image that runs.")


class CredentialsStatus(Model):
    """The workspace's token. The token itself is never in the API."""

    secret_name: str = Field(description="Secret to which the token is bound; deleting it revokes the token.")
    expires: str = Field(description="When the token ends.", json_schema_extra={"format": "date-time"})


class IdleStatus(Model):
    """Since when the agent has nothing to do; kept where spec.idle is set."""

    last_task_time: str = Field(
        description="When a task was last seen, or the instance began to serve; exact to a quarter of pauseAfter.",
        json_schema_extra={"format": "date-time"},
    )
    paused_time: str | None = Field(
        default=None,
        description="Since when it is paused for being idle; absent while it is not.",
        json_schema_extra={"format": "date-time"},
    )


class WorkspaceStatus(Model):
    """What is, as last observed. Written by the operator only."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec last acted on.")
    phase: Phase | None = Field(default=None, description="A summary for people; programs read conditions.")
    class_name: str | None = Field(default=None, description="The class in use.")
    effective_state: DesiredState | None = Field(
        default=None,
        description="The lowest of the workspace's own wish and its ancestors', lower when idle.",
    )
    effective_reason: EffectiveReason | None = Field(default=None, description="Who decided effectiveState.")
    incarnation: int = Field(default=0, description="Number of the latest instance; it only grows.")
    instance: InstanceStatus | None = Field(default=None, description="The compute; absent when released.")
    credentials: CredentialsStatus | None = Field(default=None, description="Present while a token is valid.")
    endpoint: str | None = Field(default=None, description="URL of the agent, from observation.")
    idle: IdleStatus | None = Field(default=None, description="Present where spec.idle is set.")
    restart_token: str | None = Field(default=None, description="The last spec.restartToken that was honoured.")
    pending_restart: bool = Field(default=False, description="The template changed and waits for a restart.")
    failures: FailureStatus | None = Field(default=None, description="Consecutive failures and the next attempt.")
    conditions: tuple[Condition, ...] = Field(
        default=(), description="Recomputed from observation on every pass.", json_schema_extra=CONDITIONS_SCHEMA
    )


class ObjectMeta(Model):
    """The part of metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)


class Workspace(Model):
    """One agent's home: a process with an agent in it, a disk, an identity, an address."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "size(self.metadata.name) <= 63",
                "a workspace's name has at most 63 characters, because it becomes a host name and a label",
            ),
            rule(  # those that an earlier version let in can still be written, and so be deleted
                "oldSelf.hasValue() || !self.metadata.name.contains('.')",
                "a workspace's name has no dot, because it becomes a host name and a part of delegations' names",
                optionalOldSelf=True,
            ),
            rule(
                "!has(self.spec.parentRef) || self.spec.parentRef.name != self.metadata.name",
                "a workspace cannot be its own parent; name another workspace in spec.parentRef or remove it",
            ),
        )
    )
    metadata: ObjectMeta
    spec: WorkspaceSpec = Field(description="The wish.")
    status: WorkspaceStatus = Field(default_factory=WorkspaceStatus, description="What is, as last observed.")


def parse(body: dict[str, Any]) -> Workspace:
    """Read an object as the API server stores it. Raises pydantic.ValidationError when it does not fit."""
    return Workspace.model_validate(body)
