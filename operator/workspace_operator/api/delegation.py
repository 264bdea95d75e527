"""The Delegation resource: one task handed from one workspace to another, and the ledger of what became of it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema

from workspace_operator.api.base import CONDITIONS_SCHEMA, Condition, Model, duration_field, rule, rules
from workspace_operator.api.states import CancelOutcome, DelegationPhase, DesiredState, WhenAmbiguous
from workspace_operator.api.workspace import ObjectMeta

PREVIEW_BYTES = 4096
MESSAGE_TEXT = 131_072  # characters; larger input comes from a ConfigMap
ATTEMPTS_KEPT = 10
ANSWER_KEY = "answer"  # in the ConfigMap that keeps a long answer
_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

#: Everything that can't change after creation, with what to do instead.
_IMMUTABLE = (
    *("from", "to", "message", "messageFrom", "deadline", "stuckAfter", "retry", "priority"),
    *("idempotencyKey", "wake", "ttlAfterFinished"),
)


def _unchanged(name: str) -> str:
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


_only_desired_state = "a Delegation is a record: only desiredState can change; create another one instead"

FreeObject = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]


class Sender(Model):
    """The workspace that hands the task over."""

    name: str = Field(
        description="Workspace in the Delegation's namespace.", min_length=1, max_length=63, pattern=_NAME
    )


class Receiver(Model):
    """The workspace that is to do the task."""

    name: str = Field(description="Workspace.", min_length=1, max_length=63, pattern=_NAME)
    namespace: str | None = Field(
        default=None,
        description="Its namespace, the Delegation's own by default. Another one only where both classes allow it.",
        min_length=1,
        max_length=63,
    )


class Part(Model):
    """One part of a message, as in A2A."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.text), has(self.data), has(self.url)].filter(set, set).size() == 1",
                "set exactly one of text, data and url",
            )
        )
    )
    text: str | None = Field(default=None, description="Plain text.", max_length=65_536)
    data: FreeObject | None = Field(default=None, description="A JSON object.")
    url: str | None = Field(
        default=None, description="Where the agent finds a file.", max_length=2048, pattern=r"^[a-z][a-z0-9+.-]*:\S+$"
    )
    media_type: str | None = Field(default=None, description="Of the part, e.g. text/markdown.", max_length=255)


class Message(Model):
    """What the agent is asked."""

    model_config = ConfigDict(
        json_schema_extra=rules(rule("has(self.text) != has(self.parts)", "set exactly one of text and parts"))
    )
    text: str | None = Field(default=None, description="Plain text.", min_length=1, max_length=MESSAGE_TEXT)
    parts: tuple[Part, ...] | None = Field(default=None, description="Several parts.", min_length=1, max_length=16)


class KeyRef(Model):
    """One key of a ConfigMap."""

    name: str = Field(description="ConfigMap.", min_length=1, max_length=253)
    key: str = Field(description="Key in it.", min_length=1, max_length=253)


class MessageSource(Model):
    """A message that is too large for the object."""

    config_map_key_ref: KeyRef = Field(
        description="Key of a ConfigMap in the Delegation's namespace; read when the message is sent."
    )


class Retry(Model):
    """What happens after a sending that failed."""

    max_attempts: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description=(
            "Attempts that may fail provably undelivered; without it, until the deadline. A busy agent does not count."
        ),
    )
    when_ambiguous: WhenAmbiguous = Field(
        default=WhenAmbiguous.RESEND,
        description=(
            "When nobody knows whether the agent got the message and it cannot be asked: Resend sends it again under "
            "the same message id (at least once; exactly once towards an agent that de-duplicates). Fail gives up (at "
            "most once)."
        ),
    )


class DelegationSpec(Model):
    """The task. Everything but desiredState is immutable."""

    model_config = ConfigDict(
        json_schema_extra=rules(*(rule(_unchanged(name), _only_desired_state) for name in _IMMUTABLE))
    )
    from_: Sender = Field(alias="from", description="Who delegates.")
    to: Receiver = Field(description="Who is to do it.")
    message: Message | None = Field(default=None, description="What to do.")
    message_from: MessageSource | None = Field(default=None, description="What to do, kept elsewhere.")
    desired_state: DesiredState = Field(
        default=DesiredState.RUNNING,
        description=(
            "Running: deliver and follow. Paused: hold; one that was sent already goes on. Stopped: cancel, also at "
            "the agent."
        ),
    )
    deadline: duration_field("1s", "720h") = Field(  # type: ignore[valid-type]
        default="6h", description="Time from creation by which it is over, one way or another."
    )
    stuck_after: duration_field("1s", "24h") = Field(  # type: ignore[valid-type]
        default="10m",
        description=(
            "Silence of the agent after which the phase is Stuck; it can still finish. Below 30s a quiet agent is "
            "taken for a silent one, and its place is given to the next task."
        ),
    )
    retry: Retry = Field(default_factory=Retry, description="What follows a failed sending.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher goes first; equals go in order of age.")
    idempotency_key: str | None = Field(
        default=None,
        description=(
            "Names the task for its sender: the object must be called FROM.KEY, so that a key exists once. The same "
            "content again is the same object; other content is refused. Free again when the object is gone."
        ),
        max_length=128,
        pattern=_NAME,
    )
    wake: bool = Field(default=True, description="May it wake a target that paused because it was idle?")
    ttl_after_finished: duration_field("0s", "8760h") = Field(  # type: ignore[valid-type]
        default="168h", description="When the finished object is deleted, with its result."
    )


class AttemptStatus(Model):
    """One sending."""

    number: int = Field(description="Counts from 1.")
    time: str = Field(description="When it ended.", json_schema_extra={"format": "date-time"})
    reason: str = Field(description="CamelCase constant that says how it ended.")
    message: str = Field(description="The same in a sentence.")


class TaskStatus(Model):
    """The task at the agent."""

    id: str = Field(description="The agent's own id of the task.")
    context_id: str = Field(default="", description="A2A context, made from the Delegation's UID.")
    state: str = Field(default="", description="What the agent says of it, in A2A's words.")
    target_uid: str = Field(default="", description="UID of the workspace that has it.")


class ResultStatus(Model):
    """The answer."""

    preview: str = Field(default="", description="The beginning, at most 4096 bytes, cut between characters.")
    bytes: int = Field(default=0, description="Size of the whole answer in UTF-8.")
    media_type: str = Field(default="text/plain", description="Of the answer.")
    complete: bool = Field(default=True, description="Whether nothing is cut from preview (or from the ConfigMap).")
    config_map_key_ref: KeyRef | None = Field(
        default=None, description="The answer when it is longer than the preview. Owned by the Delegation."
    )


class CancellationStatus(Model):
    """What became of the attempt to cancel the task at the agent."""

    time: str = Field(description="When the outcome was known.", json_schema_extra={"format": "date-time"})
    outcome: CancelOutcome = Field(description="Whether the agent has given the task up.")
    message: str = Field(default="", description="The same in a sentence.")


class DelegationStatus(Model):
    """What is, as last observed. Terminal phase and result are written in one update."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec last acted on.")
    phase: DelegationPhase | None = Field(default=None, description="A summary; terminal ones never change.")
    queued_reason: str | None = Field(default=None, description="Why it waits, while it is Queued.")
    message_id: str | None = Field(default=None, description="A2A message id, the same in every sending.")
    deadline: str | None = Field(
        default=None, description="When it is over at the latest.", json_schema_extra={"format": "date-time"}
    )
    attempt_count: int = Field(default=0, description="Sendings so far.")
    resends: int = Field(
        default=0, description="Sendings that may have been doubles for an agent that does not de-duplicate."
    )
    attempts: tuple[AttemptStatus, ...] = Field(default=(), description="The latest sendings that failed.")
    retry_after: str | None = Field(
        default=None, description="No sending before this time.", json_schema_extra={"format": "date-time"}
    )
    failed_deliveries: int = Field(default=0, description="Attempts that failed provably undelivered.")
    task: TaskStatus | None = Field(default=None, description="The task at the agent, once it is known.")
    question: str | None = Field(default=None, description="What the agent asks, while InputRequired.")
    heartbeat_time: str | None = Field(
        default=None, description="Last sign of life of the task.", json_schema_extra={"format": "date-time"}
    )
    start_time: str | None = Field(
        default=None, description="When the agent first had it.", json_schema_extra={"format": "date-time"}
    )
    finish_time: str | None = Field(
        default=None, description="When it reached a terminal phase.", json_schema_extra={"format": "date-time"}
    )
    result: ResultStatus | None = Field(default=None, description="The answer.")
    cancellation: CancellationStatus | None = Field(default=None, description="Present when a cancel was sent.")
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description=(
            "Accepted: it may be delivered. Delivered: the agent has it. Finished: it is over. Reconciling: it is "
            "under way. Stalled: it failed."
        ),
        json_schema_extra=CONDITIONS_SCHEMA,
    )


class Delegation(Model):
    """One task handed from one workspace to another. The object is the ledger: it exists before anything is sent."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.spec.from.name != self.spec.to.name || has(self.spec.to.__namespace__)",
                "a workspace cannot delegate to itself; name another one in spec.to",
            ),
            rule(
                "has(self.spec.message) != has(self.spec.messageFrom)",
                "set exactly one of spec.message and spec.messageFrom",
            ),
            rule(
                "!has(self.spec.idempotencyKey) || "
                "self.metadata.name == self.spec.from.name + '.' + self.spec.idempotencyKey",
                "with spec.idempotencyKey the object's name is spec.from.name, a dot and the key, for example "
                "planner.job-17, so that each key exists once",
            ),
        )
    )
    metadata: ObjectMeta
    spec: DelegationSpec = Field(description="The task.")
    status: DelegationStatus = Field(default_factory=DelegationStatus, description="What became of it.")


def answer_name(delegation: str) -> str:
    """Name of the ConfigMap that keeps a long answer; a name that is too long for the prefix is shortened."""
    name = f"delegation-{delegation}"
    if len(name) <= 253:
        return name
    return f"{name[:236]}-{hashlib.sha256(delegation.encode()).hexdigest()[:16]}"
