"""Every reason that a condition, an Event or a failure can carry, with what it means. There are no others.

`workspace-operator docs` prints the reference table from it.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """CamelCase constants; a value is added here before it is used anywhere."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Reason:
        """Build a member from its constant and the sentence that the docs print for it."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    @classmethod
    def known(cls, recorded: str) -> Reason:
        """A recorded reason. It may come from another release of the operator, and that must not stop a pass."""
        try:
            return cls(recorded)
        except ValueError:
            return cls.INTERNAL_ERROR

    # Reached
    RUNNING = "Running", "The instance runs and the agent serves."
    PAUSED = "Paused", "No compute runs; the data volume is kept."
    FROZEN = "Frozen", "The instance is frozen in memory and uses no CPU."
    STOPPED = "Stopped", "The compute is released; the data volume is kept."

    # In progress
    PROVISIONING = "Provisioning", "The instance is being created or started."
    IMAGE_PULLING = "ImagePulling", "The engine is pulling the image; the message shows progress."
    START_QUEUED = "StartQueued", "The start waits for its turn under the class's start limits."
    WAITING_FOR_AGENT = "WaitingForAgent", "The instance runs; the agent has not answered yet."
    RESTARTING = "Restarting", "The previous incarnation is being replaced."
    PAUSING = "Pausing", "The instance was told to stop and is still seen running."
    STOPPING = "Stopping", "The instance is being released and is still seen."
    RELEASING = "Releasing", "Deletion waits until the compute is seen gone."
    DELETING_DATA = "DeletingData", "The compute is gone; the data volume is being removed."

    # Waiting for a person or another object
    CLASS_NOT_FOUND = "ClassNotFound", "The WorkspaceClass does not exist, or none is named and none is the default."
    PARENT_NOT_FOUND = "ParentNotFound", "spec.parentRef names a workspace that does not exist; nothing is started."
    PARENT_CYCLE = "ParentCycle", "The chain of parentRefs comes back to this workspace; nothing is started."
    PARENT_TOO_DEEP = "ParentTooDeep", "The chain of parentRefs is longer than 32."
    REFERENCE_NOT_FOUND = "ReferenceNotFound", "A Secret or ConfigMap in envFrom does not exist."
    RESERVED_NAME = "ReservedName", "A key of a referenced Secret or ConfigMap is a reserved variable name."
    IMAGE_NOT_ALLOWED = "ImageNotAllowed", "The class does not allow this image."
    COMMAND_NOT_ALLOWED = "CommandNotAllowed", "The class does not let workspaces choose their own command."
    RESOURCES_EXCEED_CLASS = "ResourcesExceedClass", "The resources are above the ceiling of the class."
    UNSUPPORTED = "Unsupported", "The class's backend cannot do what is asked."
    INVALID_SPEC = "InvalidSpec", "The stored object does not fit this operator's schema; re-apply it corrected."

    # Failures of an attempt
    PROVISION_FAILED = "ProvisionFailed", "The backend refused or failed to create or start the instance."
    PROVISION_TIMEOUT = "ProvisionTimeout", "The workspace did not become ready in time; its compute was released."
    IMAGE_PULL_FAILED = "ImagePullFailed", "The image could not be pulled."
    IMAGE_NOT_FOUND = "ImageNotFound", "The image does not exist where the class looks for it."
    INSTANCE_EXITED = "InstanceExited", "The instance ended by itself; it is started again after a back-off."
    INSTANCE_FAILED = "InstanceFailed", "The backend reports the instance as failed."
    INSTANCE_LOST = "InstanceLost", "The instance vanished without our doing; it is provisioned again."
    OUT_OF_MEMORY = "OutOfMemory", "The instance was killed for using more memory than its limit."
    EVICTED = "Evicted", "The node needed its resources back, or shut down, and ended the instance."
    PREEMPTED = "Preempted", "The instance had to make room for one of higher priority."
    UNSCHEDULABLE = "Unschedulable", "No node of the cluster can take the instance; the message says why."
    VOLUME_NOT_READY = "VolumeNotReady", "The data volume cannot be provided or mounted yet."
    QUOTA_EXCEEDED = "QuotaExceeded", "A quota of the namespace is used up; the message names it."
    NODE_LOST = "NodeLost", "The node does not answer, so nobody knows whether the instance still runs."
    NO_CAPACITY = "NoCapacity", "The cloud has no capacity for the instance in any of the class's subnets now."
    INCARNATION_SPENT = "IncarnationSpent", "The backend will not use this incarnation's name again; the next is taken."
    STOP_FAILED = "StopFailed", "The backend refused or failed to stop the instance; it is tried again."
    IDENTITY_FAILED = "IdentityFailed", "The workspace's token could not be issued or revoked."
    API_REFUSED = "KubernetesAPIRefused", "The Kubernetes API refused a request of the operator, or did not answer."
    INTERNAL_ERROR = "InternalError", "A bug in the operator; its log has the trace."

    # Backend and agent
    BACKEND_REACHABLE = "BackendReachable", "The last observation succeeded."
    BACKEND_UNREACHABLE = "BackendUnreachable", "The backend did not answer; this says nothing about the instance."
    NOT_OBSERVED = "NotObserved", "The backend has not been listed yet."
    SERVING = "Serving", "The agent answers."
    INSTANCE_RUNNING = "InstanceRunning", "The instance runs; no agent probe is configured."
    AGENT_NOT_ANSWERING = "AgentNotAnswering", "The agent's endpoint does not answer."
    LEASE_EXPIRED = "LeaseExpired", "The agent stopped renewing its Lease; silence alone restarts nothing."
    AGENT_BUSY = "AgentBusy", "The agent reports that it is busy and serving."
    AGENT_WEDGED = "AgentWedged", "The agent itself reports that it is wedged."
    NOT_RUNNING = "NotRunning", "The workspace is not meant to run."
    RESOLVED = "Resolved", "Every reference exists."
    NOT_NEEDED = "NotNeeded", "References are looked up when the workspace starts."
    COMPUTE_SEEN = "ComputeSeen", "The backend still shows running compute."
    COMPUTE_STOPPED = "ComputeStopped", "The backend shows no running compute."
    STOP_UNCONFIRMED = "StopUnconfirmed", "The backend could not be asked, so the stop is not claimed."

    # Class
    USABLE = "Usable", "The backend answers and the class is configured completely."
    MISCONFIGURED = "Misconfigured", "The class's configuration is refused; the message names the field."

    CLASS_DELETING = "ClassDeleting", "The class is being deleted: it stays until no workspace uses it."

    # Sweeper
    SWEEP_COMPLETE = "SweepComplete", "Backend and API server were listed completely; every instance is accounted for."
    ORPHANS_FOUND = "OrphansFound", "Instances were seen that no workspace accounts for."
    SWEEP_FUSE_BLOWN = "SweepFuseBlown", "So much has no workspace that nothing is removed until a person agrees."
    SWEEP_FAILED = "SweepFailed", "Backend or API server could not be listed completely; nothing was removed."

    # Delegations that wait
    HELD = "Held", "spec.desiredState is Paused: the task is not sent."
    SOURCE_NOT_FOUND = "SourceNotFound", "The workspace in spec.from does not exist."
    TARGET_NOT_FOUND = "TargetNotFound", "The workspace in spec.to does not exist."
    TARGET_STARTING = "TargetStarting", "The target is starting; the task is sent when its agent answers."
    TARGET_WAKING = "TargetWaking", "The target paused because it was idle, and is being woken for this task."
    TARGET_PAUSED = "TargetPaused", "The target is paused; the task is sent when it runs again."
    TARGET_STOPPED = "TargetStopped", "The target is stopped; the task is sent when it runs again."
    TARGET_NOT_READY = "TargetNotReady", "The target's agent does not answer."
    TARGET_BUSY = "TargetBusy", "The target has as many tasks as it takes at once."
    DELIVERY_FAILED = "DeliveryFailed", "The message provably did not arrive; it is sent again after a back-off."
    MESSAGE_NOT_FOUND = "MessageNotFound", "The ConfigMap key in spec.messageFrom does not exist."

    # Delegations under way
    PERMITTED = "Permitted", "The sender may delegate to the target."
    NOT_PERMITTED = "NotPermitted", "The sender may not delegate to the target; the message names the rule."
    NOT_DELIVERED = "NotDelivered", "The agent has not got the message."
    SENDING = "Sending", "The message is on its way to the agent."
    DELIVERY_UNKNOWN = "DeliveryUnknown", "Nobody knows whether the message arrived; the agent is being asked."
    ACKNOWLEDGED = "Acknowledged", "The agent has the task."
    WORKING = "Working", "The agent works on the task."
    INPUT_REQUIRED = "InputRequired", "The agent asks for more; status.question has what."
    AGENT_SILENT = "AgentSilent", "There was no sign of life of the task for spec.stuckAfter; it may still finish."
    TASK_LOST = "TaskLost", "The agent no longer knows the task, as after a restart; the message is sent again."
    CANCELLING = "Cancelling", "The agent was told to give the task up."

    # Delegations that are over
    COMPLETED = "Completed", "The agent finished the task; status.result has its answer."
    TASK_FAILED = "TaskFailed", "The agent reports that the task failed."
    ANSWER_UNUSABLE = "AnswerUnusable", "The agent's answer is too large or is not valid A2A."
    DELIVERY_REFUSED = "DeliveryRefused", "The agent does not accept the message, now or later."
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted", "As many sendings failed as spec.retry.maxAttempts allows."
    DELIVERY_AMBIGUOUS = "DeliveryAmbiguous", "Nobody knows whether it arrived, and spec.retry.whenAmbiguous is Fail."
    DEADLINE_EXCEEDED = "DeadlineExceeded", "It was not over by its deadline."
    TARGET_GONE = "TargetGone", "The workspace that had the task was deleted."
    SOURCE_GONE = "SourceGone", "The workspace that delegated was deleted."
    CANCELLED = "Cancelled", "spec.desiredState is Stopped, or the Delegation is being deleted."

    # Events only
    ORPHAN_REMOVED = "OrphanRemoved", "An instance that no workspace accounted for was removed and is seen gone."
    DELETED = "Deleted", "The compute was seen gone; the finalizer is removed."
