"""The WorkspaceClass resource: where and how workspaces run; what a StorageClass is to volumes."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from workspace_operator.api.base import (
    CONDITIONS_SCHEMA,
    Condition,
    Model,
    NamespacedRef,
    StorageSize,
    duration_field,
    rule,
    rules,
)
from workspace_operator.api.ec2 import Ec2Backend
from workspace_operator.api.kubernetes import KubernetesBackend
from workspace_operator.api.states import IdentityMode, PauseMode, PullPolicy
from workspace_operator.api.sweep import Sweep, SweepStatus
from workspace_operator.api.workspace import EnvVar, ObjectMeta, ResourceAmounts

BACKENDS = ("docker", "ec2", "kubernetes", "process")
_exactly_one = f"[{', '.join(f'has(self.{name})' for name in BACKENDS)}].filter(set, set).size() == 1"
_same_block = " && ".join(f"has(self.{name}) == has(oldSelf.{name})" for name in BACKENDS)


class ImageAlias(Model):
    """One image name of the process backend and the command it stands for."""

    name: str = Field(description="What a workspace writes in spec.image.", min_length=1, max_length=512)
    command: tuple[str, ...] = Field(
        description="Program and arguments to run on the operator's machine.", min_length=1, max_length=64
    )
    env: tuple[EnvVar, ...] = Field(
        default=(),
        description="Environment of the program, below the workspace's own.",
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class ProcessBackend(Model):
    """Workspaces as plain processes on the operator's own machine: for laptops, demos and scale tests. No isolation."""

    directory: str = Field(
        description="Directory that holds the workspaces' state, data and logs.", pattern=r"^/.*[^/]$", max_length=512
    )
    images: tuple[ImageAlias, ...] = Field(
        description="The images that workspaces may name; nothing else can be run.",
        min_length=1,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    allow_command: bool = Field(
        default=False, description="Let workspaces set spec.command, that is, run any program as the operator's user."
    )


class DockerBackend(Model):
    """Workspaces as containers of one Docker engine."""

    host: str = Field(
        default="unix:///var/run/docker.sock",
        description="The engine: unix:///path or tcp://host:port (with tlsSecretRef).",
        pattern=r"^(unix:///|tcp://)\S+$",
        max_length=512,
    )
    tls_secret_ref: NamespacedRef | None = Field(
        default=None, description="Secret with ca.crt, tls.crt and tls.key for a tcp:// engine."
    )
    network: str = Field(default="bridge", description="Docker network of the containers.", max_length=128)
    publish_address: str = Field(
        default="127.0.0.1",
        description="Address of the engine's machine on which agent ports are published.",
        max_length=64,
    )
    extra_hosts: tuple[str, ...] = Field(
        default=(),
        description="Host entries of the containers, e.g. host.docker.internal:host-gateway.",
        max_length=32,
    )
    pull_policy: PullPolicy = Field(
        default=PullPolicy.IF_NOT_PRESENT, description="When the image is pulled: Always, IfNotPresent or Never."
    )
    image_pull_secret_ref: NamespacedRef | None = Field(
        default=None, description="Secret of type kubernetes.io/dockerconfigjson with the registry's credentials."
    )
    runtime: str | None = Field(default=None, description="OCI runtime, e.g. runsc.", max_length=64)
    user: str | None = Field(default=None, description="User or uid:gid that runs the workspace.", max_length=64)
    read_only_root_filesystem: bool = Field(
        default=False, description="Mount the image read-only (/tmp stays writable)."
    )


class ClassLimits(Model):
    """Manners towards the backend."""

    concurrent_starts: int = Field(default=10, ge=1, le=1000, description="Starts under way at once.")
    starts_per_minute: int = Field(
        default=600, ge=1, le=60000, description="Starts per minute, with a burst of a tenth."
    )


class Ceiling(ResourceAmounts):
    """The most that a workspace may ask for."""

    storage: StorageSize | None = Field(
        default=None, description="Size of a data volume (spec.storage.size), e.g. 100Gi; of volumes still to be made."
    )


class ClassResources(Model):
    """Bounds of the class."""

    default: ResourceAmounts = Field(
        default_factory=ResourceAmounts, description="For workspaces that set no limit themselves."
    )
    max: Ceiling = Field(default_factory=Ceiling, description="Ceiling; a wish above it is refused.")


class Identity(Model):
    """The identity that workspaces of this class receive."""

    mode: IdentityMode = Field(
        default=IdentityMode.TOKEN,
        description="Token: a ServiceAccount and a short-lived token each, revoked on pause and stop. None: none.",
    )
    server: str | None = Field(
        default=None,
        description="URL of the Kubernetes API as workspaces reach it; the operator's own by default.",
        pattern=r"^https://\S+$",
        max_length=512,
    )
    token_lifetime: duration_field("10m", "48h") = Field(  # type: ignore[valid-type]
        default="1h", description="Lifetime of a token; it is renewed in place after two thirds of it."
    )


class DelegationPolicy(Model):
    """Delegations across namespaces: both sides' classes must name the other's. Within one, the family rule holds."""

    from_namespaces: tuple[str, ...] = Field(
        default=(),
        description="Shell-style patterns of namespaces whose workspaces may delegate to this class's.",
        max_length=64,
    )
    to_namespaces: tuple[str, ...] = Field(
        default=(),
        description="Shell-style patterns of namespaces to which this class's workspaces may delegate.",
        max_length=64,
    )


class WorkspaceClassSpec(Model):
    """What the platform team owns. The backend block is immutable in kind."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(_exactly_one, f"set exactly one backend block: {' or '.join(BACKENDS)}"),
            rule(_same_block, "the kind of backend is immutable; create another class"),
        )
    )
    docker: DockerBackend | None = Field(default=None, description="Containers of one Docker engine.")
    ec2: Ec2Backend | None = Field(default=None, description="One EC2 instance per workspace.")
    kubernetes: KubernetesBackend | None = Field(default=None, description="One pod per workspace.")
    process: ProcessBackend | None = Field(default=None, description="Plain processes; no isolation.")
    allowed_images: tuple[str, ...] = Field(
        default=(),
        description="Shell-style patterns; a workspace's image must match one. Empty allows all.",
        max_length=64,
    )
    resources: ClassResources = Field(default_factory=ClassResources, description="Defaults and ceilings.")
    pause_mode: PauseMode = Field(
        default=PauseMode.STOP,
        description=(
            "Stop halts the compute on Paused. Freeze keeps it in memory (process, docker). Hibernate writes memory "
            "to disk (ec2)."
        ),
    )
    stop_grace_period: duration_field("0s", "1h") = Field(  # type: ignore[valid-type]
        default="10s", description="Time between the request to stop and the kill."
    )
    provision_timeout: duration_field("5s", "24h") = Field(  # type: ignore[valid-type]
        default="5m", description="How long a start may take, for workspaces that do not say."
    )
    observe_interval: duration_field("1s", "1h") = Field(  # type: ignore[valid-type]
        default="15s", description="Interval of the one listing that observes all workspaces of the class."
    )
    limits: ClassLimits = Field(default_factory=ClassLimits, description="Start rate and concurrency.")
    identity: Identity = Field(default_factory=Identity, description="Identity of the workspaces.")
    delegations: DelegationPolicy = Field(
        default_factory=DelegationPolicy, description="Delegations from and to other namespaces."
    )
    sweep: Sweep = Field(default_factory=Sweep, description="The search for compute whose workspace is gone.")

    @property
    def backend(self) -> str:
        """Name of the configured backend block."""
        return next(name for name in BACKENDS if getattr(self, name) is not None)


class WorkspaceClassStatus(Model):
    """What is known of the class and its backend."""

    observed_generation: int | None = Field(default=None, description="Generation last acted on.")
    backend: str | None = Field(default=None, description="Kind of backend.")
    capabilities: tuple[str, ...] = Field(default=(), description="What the backend can do beyond the verbs.")
    workspaces: dict[str, int] = Field(default_factory=dict, description="Number of workspaces by phase.")
    sweep: SweepStatus | None = Field(default=None, description="What the orphan sweeper found.")
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Ready: the backend answers. Swept: no orphan is left. Stalled: a person is needed.",
        json_schema_extra=CONDITIONS_SCHEMA,
    )


class WorkspaceClass(Model):
    """Where and how workspaces run; what a StorageClass is to volumes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "size(self.metadata.name) <= 63",
                "a class's name has at most 63 characters, because it becomes a label",
            )
        )
    )
    metadata: ObjectMeta
    spec: WorkspaceClassSpec = Field(description="What the platform team decides.")
    status: WorkspaceClassStatus = Field(default_factory=WorkspaceClassStatus, description="What is known of it.")
