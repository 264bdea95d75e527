"""Between our values and the SDK's messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from a2a.types import (
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SendMessageResponse,
    StreamResponse,
    Task,
    TaskStatus,
)
from a2a.types import TaskState as Wire
from google.protobuf.json_format import MessageToDict, ParseDict

from workspace_operator.a2a.trouble import Kind, Trouble
from workspace_operator.a2a.values import Answer, Outgoing, OutgoingPart, TaskState, TaskView

MESSAGE_CHARACTERS = 1024

_STATES = {
    Wire.TASK_STATE_SUBMITTED: TaskState.WORKING,
    Wire.TASK_STATE_WORKING: TaskState.WORKING,
    Wire.TASK_STATE_INPUT_REQUIRED: TaskState.INPUT_REQUIRED,
    Wire.TASK_STATE_AUTH_REQUIRED: TaskState.INPUT_REQUIRED,
    Wire.TASK_STATE_COMPLETED: TaskState.COMPLETED,
    Wire.TASK_STATE_FAILED: TaskState.FAILED,
    Wire.TASK_STATE_REJECTED: TaskState.REJECTED,
    Wire.TASK_STATE_CANCELED: TaskState.CANCELED,
}


def request_of(message: Outgoing) -> SendMessageRequest:
    """The request that sends a message; the agent is asked to answer at once, and without our own words."""
    wire = Message(
        message_id=message.message_id,
        context_id=message.context_id,
        role=Role.ROLE_USER,
        parts=[_part(part) for part in message.parts],
    )
    if message.metadata:
        wire.metadata.update(dict(message.metadata))
    configuration = SendMessageConfiguration(return_immediately=True, history_length=0)
    return SendMessageRequest(message=wire, configuration=configuration)


def view_of_answer(answer: SendMessageResponse) -> TaskView:
    """What became of a message: a task, or a plain message, which is a finished answer without a task."""
    if answer.HasField("message"):
        message = answer.message
        return TaskView("", message.context_id, TaskState.COMPLETED, answer=_answer(message.parts))
    return view_of_task(answer.task)


def view_of_task(task: Task, asked: str | None = None) -> TaskView:
    """A task as the agent described it, which must be the one that was asked for."""
    if not task.id or asked not in (None, task.id):
        raise Trouble(Kind.UNUSABLE, "The agent answered about another task, or about none.")
    state, last = _state(task.status), task.status.message
    if not last.parts and task.history and task.history[-1].role == Role.ROLE_AGENT:
        last = task.history[-1]  # where fasta2a puts an agent's words
    answer = None
    if state is TaskState.COMPLETED:
        parts = [part for artifact in task.artifacts for part in artifact.parts]
        answer = _answer(parts or last.parts)
    return TaskView(task.id, task.context_id, state, _cut(last), answer)


def view_of_event(event: StreamResponse, asked: str) -> TaskView:
    """What an event says of the task that was asked for; never its answer."""
    kind = event.WhichOneof("payload")
    if kind == "task":
        status, subject, context = event.task.status, event.task.id, event.task.context_id
    elif kind == "status_update":
        update = event.status_update
        status, subject, context = update.status, update.task_id, update.context_id
    elif kind == "artifact_update":
        status, subject, context = TaskStatus(), event.artifact_update.task_id, event.artifact_update.context_id
    else:
        status, subject, context = TaskStatus(), "", ""
    if subject != asked:
        raise Trouble(Kind.UNUSABLE, "The agent's stream is about another task.")
    return TaskView(subject, context, _state(status), _cut(status.message))


def _state(status: TaskStatus) -> TaskState:
    # A state that the SDK does not know is not a terminal one of A2A; the agent has the task.
    return _STATES.get(status.state, TaskState.WORKING)


def _cut(message: Message) -> str:
    return _text(message.parts)[:MESSAGE_CHARACTERS]


def _part(part: OutgoingPart) -> Part:
    media_type = part.media_type or ""
    if part.text is not None:
        return Part(text=part.text, media_type=media_type)
    if part.url is not None:
        return Part(url=part.url, media_type=media_type)
    wire = Part(media_type=media_type)
    ParseDict(dict(part.data or {}), wire.data.struct_value)
    return wire


def _answer(parts: Iterable[Part]) -> Answer:
    told = list(parts)
    only_data = len(told) == 1 and told[0].WhichOneof("content") == "data"
    return Answer(_text(told).encode(), "application/json" if only_data else "text/plain")


def _text(parts: Iterable[Part]) -> str:
    return "\n\n".join(filter(None, (_words(part) for part in parts)))


def _words(part: Part) -> str:
    content = part.WhichOneof("content")
    if content == "text":
        return str(part.text)
    if content == "url":
        return str(part.url)
    if content == "data":
        return json.dumps(_whole(MessageToDict(part.data)), ensure_ascii=False, separators=(",", ":"))
    if content == "raw":
        return f"[{part.media_type or 'application/octet-stream'}, {len(part.raw)} bytes]"
    return ""


def _whole(value: Any) -> Any:
    """protobuf keeps every number as a float: 3.0 was 3."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value
