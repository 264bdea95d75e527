"""The ``ec2`` block of a WorkspaceClass: one virtual machine per workspace, in an account of the platform team."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from workspace_operator.api.base import Cpu, Memory, Model, NamespacedRef, duration_field, rule, rules

_KMS_KEY = r"^(arn:aws[a-z-]*:kms:\S+|alias/\S+|[0-9a-f-]{36}|mrk-[0-9a-f]{32})$"


class MachineType(Model):
    """One EC2 instance type and what it offers to a workspace."""

    name: str = Field(description="EC2's name, e.g. t3.medium.", pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$", max_length=64)
    cpu: Cpu = Field(description="CPUs that a workspace may ask for on it.")
    memory: Memory = Field(
        description="Memory that a workspace may ask for on it; leave some of the machine's to its system, e.g. 3500Mi."
    )


class Disk(Model):
    """An EBS volume. It is always encrypted."""

    size_gib: int = Field(default=20, ge=1, le=16384, description="Size in GiB.")
    type: str = Field(
        default="gp3",
        description="EBS volume type.",
        json_schema_extra={"enum": ["gp3", "gp2", "st1", "sc1"]},
    )
    kms_key: str | None = Field(
        default=None,
        description="KMS key (ARN, alias or id); the account's EBS key by default.",
        pattern=_KMS_KEY,
        max_length=256,
    )


class ApiRate(Model):
    """A token bucket: how fast the operator may call, whatever it has to do."""

    per_second: int = Field(ge=1, le=1000, description="Calls per second.")
    burst: int = Field(ge=1, le=1000, description="Calls at once.")


class ApiRates(Model):
    """How fast the operator may call each action of the EC2 API. AWS counts per account and region."""

    run: ApiRate = Field(
        default=ApiRate(per_second=2, burst=5), description="Launches and starts; AWS gives 2/s, burst 5."
    )
    change: ApiRate = Field(
        default=ApiRate(per_second=5, burst=50),
        description="Other changes; AWS gives 5/s, burst 50 to 100.",
    )
    look: ApiRate = Field(
        default=ApiRate(per_second=10, burst=50), description="Describe calls; AWS gives 10 to 20/s, burst 50 to 100."
    )


class Ec2Backend(Model):
    """Workspaces as EC2 instances, one each.

    The machine image needs cloud-init, systemd, python3 and the container engine; the operator's user data makes it run
    the workspace's container image at every boot.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.assumeRoleExternalId) || has(self.assumeRoleArn)",
                "assumeRoleExternalId goes with assumeRoleArn; set both or neither",
            ),
        )
    )
    region: str = Field(
        description="AWS region, e.g. eu-west-1.", pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$", max_length=32
    )
    image: str = Field(
        description=(
            "Machine image: ami-… or ssm:/path/of/a/parameter that holds an id, e.g. "
            "ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id. A workspace's spec.image is "
            "the container that runs on it."
        ),
        pattern=r"^(ami-[0-9a-f]{8,17}|ssm:/[A-Za-z0-9_./-]+)$",
        max_length=1024,
    )
    subnets: tuple[str, ...] = Field(
        description=(
            "Private subnets in order of preference; the next one is tried when EC2 has no capacity. A data volume "
            "keeps its workspace in its zone."
        ),
        min_length=1,
        max_length=16,
        json_schema_extra={"items": {"type": "string", "pattern": r"^subnet-[0-9a-f]{8,17}$", "maxLength": 32}},
    )
    security_groups: tuple[str, ...] = Field(
        description="Security groups: in from the operator to agent ports, out to registry and Kubernetes API.",
        min_length=1,
        max_length=16,
        json_schema_extra={"items": {"type": "string", "pattern": r"^sg-[0-9a-f]{8,17}$", "maxLength": 32}},
    )
    machine_types: tuple[MachineType, ...] = Field(
        description=(
            "Instance types to choose from; a workspace gets the smallest one that covers its resource limits."
        ),
        min_length=1,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    instance_profile: str | None = Field(
        default=None,
        description="Name of the IAM instance profile of the machines; without it they have no AWS rights.",
        pattern=r"^[A-Za-z0-9+=,.@_-]+$",
        max_length=128,
    )
    root_disk: Disk = Field(
        default=Disk(),
        description="Disk of the machine, at least as large as the image's; gone with the instance.",
    )
    root_device: str = Field(
        default="/dev/xvda",
        description="Name of the image's root device (RootDeviceName): /dev/xvda on Amazon Linux, /dev/sda1 on Ubuntu.",
        pattern=r"^/dev/[a-z0-9]+$",
        max_length=32,
    )
    data_disk: Disk = Field(
        default=Disk(),
        description=(
            "The data volume of a workspace with spec.storage, whose own size comes first; it outlives every instance."
        ),
    )
    container_engine: str = Field(
        default="docker",
        description="Command of the container engine in the machine image.",
        json_schema_extra={"enum": ["docker", "podman", "nerdctl"]},
    )
    hibernation: bool = Field(
        default=False,
        description=(
            "Launch machines that can hibernate (see pauseMode): image and machineTypes must support it, and rootDisk "
            "hold the memory."
        ),
    )
    credentials_secret_ref: NamespacedRef | None = Field(
        default=None,
        description=(
            "Secret with aws_access_key_id, aws_secret_access_key and perhaps aws_session_token; the operator's own "
            "AWS identity by default."
        ),
    )
    assume_role_arn: str | None = Field(
        default=None,
        description="Role to assume with those credentials, e.g. in another account.",
        pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/\S+$",
        max_length=512,
    )
    assume_role_external_id: str | None = Field(
        default=None,
        description="External id that the role's trust policy asks for.",
        min_length=2,
        max_length=1224,
        pattern=r"^[\w+=,.@:/-]+$",
    )
    endpoint_url: str | None = Field(
        default=None,
        description="Where to reach the AWS APIs, e.g. a VPC endpoint.",
        pattern=r"^https?://\S+$",
        max_length=512,
    )
    rates: ApiRates = Field(default=ApiRates(), description="Upper bounds for the operator's calls to the EC2 API.")
    call_timeout: duration_field("1s", "60s") = Field(  # type: ignore[valid-type]
        default="10s", description="How long one API call may take before it is asked again."
    )
    consistency_window: duration_field("0s", "5m") = Field(  # type: ignore[valid-type]
        default="20s",
        description=(
            "How long EC2's listings may lag. A fresh operator waits that long before it makes a machine that its "
            "predecessor may just have made."
        ),
    )
    status_checks: bool = Field(
        default=False,
        description="Show failing status checks, for one more call per listing.",
    )
