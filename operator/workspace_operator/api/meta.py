"""Names that other systems see: API group, labels, annotations, the finalizer. Changing one breaks users."""

from typing import Final

GROUP: Final = "workspace-operator.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

WORKSPACES: Final = "workspaces"
WORKSPACE_CLASSES: Final = "workspaceclasses"
DELEGATIONS: Final = "delegations"

FINALIZER: Final = f"{GROUP}/cleanup"
CLAIM_FINALIZER: Final = f"{GROUP}/task"  # on a Delegation: its message may have been sent
RELEASE_FUSE_ANNOTATION: Final = f"{GROUP}/release-fuse"
DEFAULT_CLASS_ANNOTATION: Final = f"{GROUP}/is-default-class"

# Owner labels: part of every create call on every backend, so that nothing of ours exists without an owner.
LABEL_CLUSTER: Final = f"{GROUP}/cluster"  # UID of the kube-system namespace
LABEL_UID: Final = f"{GROUP}/workspace-uid"
LABEL_NAMESPACE: Final = f"{GROUP}/workspace-namespace"
LABEL_NAME: Final = f"{GROUP}/workspace-name"
LABEL_INCARNATION: Final = f"{GROUP}/incarnation"
LABEL_CLASS: Final = f"{GROUP}/class"
LABEL_PARAMETERS: Final = f"{GROUP}/parameters"
LABEL_ROLE: Final = f"{GROUP}/role"

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "workspace-operator"

# What an agent reports about itself on its Lease (deploy/agent/CONTRACT.md).
AGENT_STATE_ANNOTATION: Final = f"{GROUP}/agent-state"
AGENT_MESSAGE_ANNOTATION: Final = f"{GROUP}/agent-message"
ACTIVE_TASKS_ANNOTATION: Final = f"{GROUP}/active-tasks"

IDENTITY_DIRECTORY: Final = "/var/run/secrets/workspace-operator.dev"
RESERVED_ENV_PREFIXES: Final = ("WORKSPACE_", "KUBERNETES_")


def is_default_class(annotations: dict[str, str]) -> bool:
    """Whether a WorkspaceClass is marked as the one for workspaces that name none."""
    return annotations.get(DEFAULT_CLASS_ANNOTATION, "").lower() == "true"
