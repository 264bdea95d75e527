"""The ``kubernetes`` block of a WorkspaceClass: one pod per workspace."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from workspace_operator.api.base import Model, NamespacedRef, StorageSize, rule, rules
from workspace_operator.api.states import PullPolicy

_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_SUBDOMAIN = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
_EACH_CIDR = "self.all(cidr, isCIDR(cidr))"
_CIDRS = rules(
    rule(_EACH_CIDR, "write address ranges, for example 10.1.0.0/16"), items={"type": "string", "maxLength": 43}
)


class Toleration(Model):
    """A taint that the pods tolerate, as in a pod's spec."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.operator != 'Exists' || !has(self.value)",
                "operator Exists takes no value; remove it, or set operator: Equal",
            ),
            rule(
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds needs effect: NoExecute",
            ),
            rule("has(self.key) || self.operator == 'Exists'", "without a key, operator must be Exists"),
        )
    )
    key: str | None = Field(
        default=None, description="Key of the taint; every key when absent.", min_length=1, max_length=316
    )
    operator: str = Field(
        default="Equal",
        description="Equal compares value; Exists takes any.",
        json_schema_extra={"enum": ["Equal", "Exists"]},
    )
    value: str | None = Field(default=None, description="Value of the taint.", max_length=63)
    effect: str | None = Field(
        default=None,
        description="Effect of the taint; every effect when absent.",
        json_schema_extra={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, le=86400, description="How long a NoExecute taint is tolerated; for ever when absent."
    )


class NetworkPolicy(Model):
    """What may reach the pods and what they may reach. Heeded only where the cluster's network does NetworkPolicies."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.enabled || (!has(self.ingressCidrs) && !has(self.egressCidrs))",
                "openings need networkPolicy.enabled: true; without it everything is open",
            )
        )
    )
    enabled: bool = Field(
        default=True,
        description=(
            "Give each pod a NetworkPolicy. In: its agent port, from what is listed here. Out: DNS, the Kubernetes "
            "API, and all but private addresses."
        ),
    )
    ingress_namespaces: tuple[str, ...] = Field(
        default=("workspace-operator-system",),
        description="Namespaces that may reach the agent port; the operator's must be among them.",
        max_length=64,
        json_schema_extra={"items": {"type": "string", "minLength": 1, "maxLength": 63}},
    )
    ingress_cidrs: tuple[str, ...] = Field(
        default=(),
        description="Address ranges that may reach the agent port, e.g. of an operator outside of the cluster.",
        max_length=32,
        json_schema_extra=_CIDRS,
    )
    egress_cidrs: tuple[str, ...] = Field(
        default=(),
        description="Private address ranges that the pods may reach, e.g. a database's, or the API server's elsewhere.",
        max_length=32,
        json_schema_extra=_CIDRS,
    )


class KubernetesBackend(Model):
    """Workspaces as pods, one each, admitted by the restricted Pod Security Standard.

    Paused and Stopped both delete the pod; the claim of its data volume stays.
    """

    namespace: str | None = Field(
        default=None,
        description=(
            "Namespace of all pods, which must exist; by default each workspace's own. Only there do pods get a token "
            "from the kubelet itself, and a headless Service of the workspace's name."
        ),
        pattern=_LABEL,
        max_length=63,
    )
    kubeconfig_secret_ref: NamespacedRef | None = Field(
        default=None,
        description=(
            "Secret with key kubeconfig, for pods in another cluster; certificates and token stand in it, not in files "
            "or commands. By default pods run in the operator's own cluster, with its rights."
        ),
    )
    runtime_class_name: str | None = Field(
        default=None, description="RuntimeClass of the pods, e.g. gvisor.", pattern=_SUBDOMAIN, max_length=253
    )
    node_selector: dict[str, str] = Field(
        default_factory=dict,
        description="Labels of the nodes that may run the pods.",
        json_schema_extra={"maxProperties": 32},
    )
    tolerations: tuple[Toleration, ...] = Field(default=(), description="Taints that the pods tolerate.", max_length=32)
    priority_class_name: str | None = Field(
        default=None, description="PriorityClass of the pods.", pattern=_SUBDOMAIN, max_length=253
    )
    image_pull_secrets: tuple[str, ...] = Field(
        default=(),
        description="Names of Secrets with registry credentials, in the pods' namespace.",
        max_length=16,
        json_schema_extra={"items": {"type": "string", "minLength": 1, "maxLength": 253}},
    )
    image_pull_policy: PullPolicy = Field(
        default=PullPolicy.IF_NOT_PRESENT, description="When the image is pulled: Always, IfNotPresent or Never."
    )
    storage_class_name: str | None = Field(
        default=None,
        description="StorageClass of the data volumes; the cluster's default when absent.",
        pattern=_SUBDOMAIN,
        max_length=253,
    )
    storage_size: StorageSize = Field(
        default="10Gi", description="Size of a data volume whose workspace asks for none (spec.storage.size)."
    )
    access_mode: str = Field(
        default="ReadWriteOnce",
        description="Access mode of the data volumes. ReadWriteOncePod lets the storage itself refuse a second pod.",
        json_schema_extra={"enum": ["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]},
    )
    run_as_user: int = Field(
        default=65532,
        ge=1,
        le=2147483647,
        description="User and group id of the program, which own the data volume; never root.",
    )
    read_only_root_filesystem: bool = Field(
        default=True, description="Mount the image read-only (/tmp stays writable)."
    )
    network_policy: NetworkPolicy = Field(
        default=NetworkPolicy(), description="What may reach the pods and what they may reach."
    )
