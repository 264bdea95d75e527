"""What a container and a volume of ours look like. Used inside backends/docker only.

Names, labels and the create call, as pure functions from the request and the class to the engine's own JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from workspace_operator.api import meta
from workspace_operator.api.reasons import Reason
from workspace_operator.api.workspaceclass import DockerBackend
from workspace_operator.backends import labels
from workspace_operator.backends.protocol import ProvisionRequest, Template, WorkspaceRef
from workspace_operator.errors import BackendError, BadRequest

PIDS_LIMIT: Final = 4096  # a fork bomb must not take the engine's machine down
_LOG_ROTATION: Final = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def container_name(uid: str, incarnation: int) -> str:
    """A function of the intent, so that asking twice cannot make two (I-05, I-06)."""
    return f"wsp-{uid}-{incarnation}"


def volume_name(uid: str) -> str:
    """The data volume outlives incarnations."""
    return f"wsp-{uid}-data"


def label_filter(**values: str) -> dict[str, list[str]]:
    """The engine's filter for our instances of a cluster, and of a class or a workspace of it."""
    keys = {"cluster": meta.LABEL_CLUSTER, "class_name": meta.LABEL_CLASS, "uid": meta.LABEL_UID}
    wanted = [f"{keys[key]}={value}" for key, value in values.items()]
    return {"label": [f"{meta.LABEL_ROLE}={labels.ROLE_INSTANCE}", *wanted]}


def refuse_foreign(kind: str, name: str, found: Mapping[str, str] | None, ref: WorkspaceRef) -> None:
    """Nothing is adopted or removed by its name alone (I-11, I-15)."""
    if not labels.is_of(found, ref):
        raise BackendError(
            Reason.PROVISION_FAILED,
            f"A {kind} named {name} exists on the engine and does not carry this workspace's labels;"
            f" it is left alone. Rename or remove it (docker {'rm' if kind == 'container' else 'volume rm'} {name}).",
        )


def refuse_unsafe_network(network: str) -> None:
    """The engine's own network namespace, or another container's, is no isolation."""
    if network == "host" or network.startswith("container:"):
        raise BadRequest(
            Reason.MISCONFIGURED,
            "docker.network may not be the host's network or another container's; name a Docker network.",
        )


def create_config(request: ProvisionRequest, spec: DockerBackend, identity_mount: str) -> dict[str, Any]:
    """The body of the create call."""
    template = request.template
    refuse_unsafe_network(spec.network)
    config: dict[str, Any] = {
        "Image": template.image,
        "Hostname": request.ref.name[:63].rstrip("-."),
        "Env": [f"{name}={value}" for name, value in request.environment.items()],
        "Labels": labels.requested(request),
        "HostConfig": _host_config(request, spec),
    }
    # As in a pod: command replaces the entry point and thereby drops the image's own arguments.
    if template.command:
        config["Entrypoint"] = list(template.command)
    if template.args:
        config["Cmd"] = list(template.args)
    if spec.user:
        config["User"] = spec.user
    if template.port is not None:
        config["ExposedPorts"] = {f"{template.port}/tcp": {}}
    if request.files:
        # Anonymous: writable although the root may be read-only, and removed together with the container.
        config["Volumes"] = {identity_mount: {}}
    return config


def lost_limits(template: Template, warnings: Iterable[str]) -> bool:
    """Whether the engine created the container, but dropped a limit that was asked for."""
    wanted = [word for word, value in (("memory", template.memory), ("cpu", template.cpu)) if value is not None]
    dropped = [text.lower() for text in warnings if "discarded" in text.lower()]
    return any(word in text for word in wanted for text in dropped)


def _host_config(request: ProvisionRequest, spec: DockerBackend) -> dict[str, Any]:
    template = request.template
    host: dict[str, Any] = {
        "NetworkMode": spec.network,
        "RestartPolicy": {"Name": "no"},  # the operator restarts, nobody else
        "Init": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": PIDS_LIMIT,
        "LogConfig": _LOG_ROTATION,
        "ExtraHosts": list(spec.extra_hosts),
    }
    if template.port is not None:
        host["PortBindings"] = {f"{template.port}/tcp": [{"HostIp": spec.publish_address, "HostPort": ""}]}
    if template.mount_path is not None:
        source = volume_name(request.ref.uid)
        host["Mounts"] = [{"Type": "volume", "Source": source, "Target": template.mount_path}]
    if template.memory is not None:
        host["Memory"] = template.memory
        host["MemorySwap"] = template.memory  # equal: no swap on top
    if template.cpu is not None:
        host["NanoCpus"] = round(template.cpu * 1_000_000_000)
    if spec.runtime:
        host["Runtime"] = spec.runtime
    if spec.read_only_root_filesystem:
        host["ReadonlyRootfs"] = True
        host["Tmpfs"] = {"/tmp": "rw,nosuid,nodev,mode=1777"}  # noqa: S108 - a path inside the container
    return host
