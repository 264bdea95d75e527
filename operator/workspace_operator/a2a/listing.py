"""Finds the task that a message became, by listing the tasks of its context.

The context id is ours alone (it comes from the Delegation's UID), and A2A 1.0 (section 3.4.1) has agents either keep
a client's context id or refuse the message.
"""

from __future__ import annotations

from a2a.client.transports.base import ClientTransport
from a2a.types import ListTasksRequest, Task

from workspace_operator.a2a.translation import view_of_task
from workspace_operator.a2a.trouble import Kind, Trouble
from workspace_operator.a2a.values import Outgoing, TaskState, TaskView

_PAGE, _PAGES = 20, 10  # tasks at once, and how many pages are read
# A message that was delivered twice has two tasks; the one to go on with is the one that is furthest.
_ORDER = (
    TaskState.COMPLETED,
    *(TaskState.WORKING, TaskState.INPUT_REQUIRED),
    *(TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED),
)


async def find(agent: ClientTransport, message: Outgoing) -> TaskView | None:
    """None only when the agent has listed all there is, and none is of this message."""
    request = ListTasksRequest(context_id=message.context_id, page_size=_PAGE, history_length=0)
    for _ in range(_PAGES):
        page = await agent.list_tasks(request)
        found = [view_of_task(task) for task in page.tasks if _is_of(task, message)]
        if found:
            return min(found, key=lambda view: _ORDER.index(view.state))
        if not page.next_page_token:
            return None
        request.page_token = page.next_page_token
    raise Trouble(Kind.UNSUPPORTED, "The agent lists more tasks than are read.")


def _is_of(task: Task, message: Outgoing) -> bool:
    """An agent that does not filter by context lists others, too."""
    return task.context_id == message.context_id or any(one.message_id == message.message_id for one in task.history)
