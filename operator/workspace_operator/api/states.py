"""The enums that code, schema and docs share (incident I-28: there is no second list)."""

from enum import StrEnum


class DesiredState(StrEnum):
    """What a user may wish for, highest first; the effective state is the lowest of several wishes."""

    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"

    @property
    def rank(self) -> int:
        """Position from the top: Running 0, Paused 1, Stopped 2."""
        return list(DesiredState).index(self)


class EffectiveReason(StrEnum):
    """Who decided the effective state."""

    USER = "User"
    PARENT = "Parent"
    IDLE_TIMEOUT = "IdleTimeout"


class Reading(StrEnum):
    """What was seen of an instance. "Unknown" is not among them: an error is not a reading (I-40)."""

    ABSENT = "Absent"  # no instance: never created, or released
    STARTING = "Starting"  # accepted, not yet executing
    RUNNING = "Running"  # compute executes
    FROZEN = "Frozen"  # in memory, not executing
    HALTING = "Halting"  # told to stop, still executing
    HALTED = "Halted"  # exists, executes nothing, can be started again
    FAILED = "Failed"  # exists, executes nothing, must be released


#: Readings in which the instance may execute or be billed as running.
LIVE = frozenset({Reading.STARTING, Reading.RUNNING, Reading.FROZEN, Reading.HALTING})


class Phase(StrEnum):
    """A printable summary of a workspace. Programs read conditions instead."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    PAUSING = "Pausing"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    DELETING = "Deleting"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


class PauseMode(StrEnum):
    """What Paused means for the compute of a class."""

    STOP = "Stop"
    FREEZE = "Freeze"
    HIBERNATE = "Hibernate"


class WhenDeleted(StrEnum):
    """What happens to the data volume when the workspace is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class UpdatePolicy(StrEnum):
    """When a changed template (image, command, env, resources, ...) reaches a running workspace."""

    ON_RESTART = "OnRestart"
    AUTOMATIC = "Automatic"


class Probe(StrEnum):
    """How the operator learns that the agent serves."""

    LEASE = "Lease"
    AGENT_CARD = "AgentCard"
    TCP = "TCP"
    NONE = "None"


class SweepMode(StrEnum):
    """What the orphan sweeper does with what it finds."""

    REMOVE = "Remove"
    REPORT = "Report"


class IdentityMode(StrEnum):
    """Whether workspaces of a class get a ServiceAccount token."""

    TOKEN = "Token"  # noqa: S105 - an enum value, not a secret
    NONE = "None"


class PullPolicy(StrEnum):
    """When an image is pulled, as in a pod."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class DelegationPhase(StrEnum):
    """Where a delegated task is. The last three are terminal: they never change."""

    QUEUED = "Queued"
    DISPATCHED = "Dispatched"
    WORKING = "Working"
    INPUT_REQUIRED = "InputRequired"
    STUCK = "Stuck"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


#: Phases that nothing leaves.
TERMINAL = frozenset({DelegationPhase.COMPLETED, DelegationPhase.FAILED, DelegationPhase.CANCELLED})


class WhenAmbiguous(StrEnum):
    """What follows when nobody knows whether a message arrived and the agent cannot be asked."""

    RESEND = "Resend"
    FAIL = "Fail"


class CancelOutcome(StrEnum):
    """What became of a cancel that was sent to the agent."""

    CONFIRMED = "Confirmed"  # the agent says that the task is cancelled, or does not know it
    FINISHED = "Finished"  # the task was over already
    REFUSED = "Refused"  # the agent answered, and did not cancel
    UNANSWERED = "Unanswered"  # no answer in time: the task may go on


class Capability(StrEnum):
    """What a backend can do beyond the verbs; shown in the class status."""

    FREEZE = "freeze"
    HIBERNATE = "hibernate"
    DELIVER = "deliver"  # a fresh token reaches a running instance
    LOGS = "logs"
    VOLUMES = "volumes"
    VOLUME_SIZE = "volumeSize"  # a data volume is as large as its workspace asks; without it a size is not enforced
    EVENTS = "events"
    LIMITS = "limits"
    HALT = "halt"  # what is stopped stays, and is started again as the same instance
    TOKENS = "tokens"  # the platform gives instances their token: none is issued, renewed or revoked for them


class ConditionStatus(StrEnum):
    """Kubernetes condition status; Unknown means in progress or unreadable, False a real problem."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """The conditions of a workspace and a class (DESIGN section 2)."""

    READY = "Ready"
    AVAILABLE = "Available"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    BACKEND_REACHABLE = "BackendReachable"
    SECRETS_RESOLVED = "SecretsResolved"
    STOP_CONFIRMED = "StopConfirmed"
    DELETING = "Deleting"
    SWEPT = "Swept"
    ACCEPTED = "Accepted"
    DELIVERED = "Delivered"
    FINISHED = "Finished"
