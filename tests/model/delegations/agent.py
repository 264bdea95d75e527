"""The agent of the model's target, with the interface of ``a2a/client.py``: fate decides how each request comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.model.backend import Fate
from tests.model.delegations.world import LONG, SHORT, State, Task

from workspace_operator.a2a.errors import CannotAsk, NotDelivered, Refused, TaskNotFound, Unanswered, UnusableAnswer
from workspace_operator.a2a.listing import _ORDER
from workspace_operator.a2a.values import Answer, Outgoing, TaskState, TaskView

AWAY, LOST = "The agent does not accept connections.", "The agent did not answer in time."


class Suspended(BaseException):
    """The errand goes on waiting; what it has heard so far counts."""


class ModelAgent:
    """What becomes of an errand, decided when it comes to its end."""

    def __init__(self, state: State, fate: Fate) -> None:
        self.s, self.fate = state, fate
        self._reached = state.reaches(state.errand)

    async def send(self, address: str, message: Outgoing) -> TaskView:
        if not self._reached:
            raise NotDelivered(AWAY)
        match self._fault("send", "undelivered", "lost", "arrived, answer lost", "rejected", "refused"):
            case "send: undelivered":
                raise NotDelivered(AWAY)
            case "send: lost":
                raise Unanswered(LOST)
            case "send: arrived, answer lost":
                take(self.s)
                raise Unanswered(LOST)
            case "send: rejected":
                return TaskView("t0", "context", TaskState.REJECTED)
            case "send: refused":
                self.s.told |= {"refused"}
                raise Refused("The agent does not take it.")
        task = take(self.s)
        if task is None:
            answer = Answer(LONG if self.s.config.long else SHORT)
            return TaskView("", "", TaskState.COMPLETED, answer=answer)
        return task.view(self.s.config)

    async def find(self, address: str, message: Outgoing) -> TaskView | None:
        self._reach()
        match self._fault("ask", "answer lost", "list unreadable"):
            case "ask: answer lost":
                raise Unanswered(LOST)
            case "ask: list unreadable":
                raise CannotAsk
        if not self.s.config.lists:
            raise CannotAsk
        if not self.s.tasks:
            self.s.denied = self.s.worked
            return None
        return min(self.s.tasks, key=lambda task: _ORDER.index(task.state)).view(self.s.config)

    async def follow(self, address: str, task_id: str, seen: Callable[[TaskView], None]) -> TaskView:
        self._reach()
        match self._fault("follow", "answer lost", "answer unusable"):
            case "follow: answer lost":
                raise Unanswered(LOST)
            case "follow: answer unusable":
                self.s.told |= {"unusable"}
                raise UnusableAnswer("The agent's answer is too large.")
        view = self._task(task_id).view(self.s.config)
        seen(view)
        if view.state.over or view.state is TaskState.INPUT_REQUIRED:
            return view
        raise Suspended

    async def cancel(self, address: str, task_id: str) -> TaskView:
        if not self._reached:
            raise NotDelivered(AWAY)
        outcome = self._fault("cancel", "lost", "done, answer lost", "refused", "at it")
        if outcome == "cancel: lost":
            raise Unanswered(LOST)
        task = self._task(task_id)
        if task.state.over or outcome == "cancel: at it":
            return task.view(self.s.config)
        if outcome == "cancel: refused":
            self.s.told |= {"not cancelled"}
            raise Refused("The agent answers that the task cannot be cancelled.")
        done = replace(task, state=TaskState.CANCELED)
        self.s.put(done)
        self.s.told |= {"cancelled"}
        if outcome == "cancel: done, answer lost":
            self.s.told |= {"cancelled, unheard"}
            raise Unanswered(LOST)
        return done.view(self.s.config)

    def _task(self, task_id: str) -> Task:
        task = self.s.task(task_id)
        if task is None:
            self.s.denied = self.s.worked
            self.s.told |= {"lost"}
            raise TaskNotFound
        return task

    def _reach(self) -> None:
        if not self._reached:
            raise Unanswered(AWAY)

    def _fault(self, of: str, *outcomes: str) -> str | None:
        return self.fate.fault(*(f"{of}: {outcome}" for outcome in outcomes if of in self.s.config.faults))


def take(s: State) -> Task | None:
    """The message has arrived. One that knows doubles tells them by a memory that outlives its tasks."""
    known = [task for task in s.tasks if task.state is not TaskState.REJECTED]
    if s.config.knows_doubles and known:
        return known[-1]
    s.worked += not (s.config.knows_doubles and s.worked > s.elsewhere)
    if not s.config.keeps_tasks:
        s.told |= {"completed"}
        return None
    s.numbered += 1
    task = Task(s.numbered, TaskState.WORKING)
    s.put(task)
    return task


def progress(s: State, failures: bool) -> list[tuple[str, State]]:
    """What the agent's work may come to by itself."""
    found = []
    for task in s.alive if s.target == "serves" else ():
        follows = [TaskState.COMPLETED]
        if failures:
            follows += [TaskState.FAILED, TaskState.CANCELED]
        if task.state is TaskState.INPUT_REQUIRED:
            follows.append(TaskState.WORKING)
        elif s.config.asks and not s.asked:
            follows.append(TaskState.INPUT_REQUIRED)
        for state in follows:
            after = s.copy()
            after.put(replace(task, state=state))
            after.asked = s.asked or state is TaskState.INPUT_REQUIRED
            if state is TaskState.COMPLETED:
                after.told |= {"completed"}
            elif state in (TaskState.FAILED, TaskState.CANCELED):
                after.told |= {"failed"}
            found.append((f"the agent's task t{task.number} is {state} now", after))
    return found
