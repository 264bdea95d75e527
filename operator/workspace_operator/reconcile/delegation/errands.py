"""Talks with agents, in the background: one at a time per delegation; each ends by waking its delegation's pass.

What a talk has brought is kept in memory. Losing it costs a question to the agent and nothing else: the claim on the
object says that the message may have been sent, and the agent is asked before it is sent again (I-61, I-62).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from workspace_operator.a2a.client import AgentClient
from workspace_operator.a2a.errors import CannotAsk, NotDelivered, Refused, TaskNotFound, Unanswered, UnusableAnswer
from workspace_operator.a2a.values import Outgoing, TaskState, TaskView
from workspace_operator.api.delegation import CancellationStatus
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import CancelOutcome
from workspace_operator.errors import Failure, OperatorError
from workspace_operator.lifecycle import moments
from workspace_operator.lifecycle.delegation.table import Step
from workspace_operator.telemetry import metrics

log = logging.getLogger(__name__)

_REST_FIRST, _REST_LONGEST = timedelta(milliseconds=500), timedelta(seconds=30)
_BETWEEN_QUESTIONS = timedelta(seconds=5)  # a task that waits for input is looked at so often
_ASKED_ENOUGH = 20  # questions without an answer, some eight minutes: it is taken for one that cannot be asked
_BETWEEN_CANCELS = timedelta(seconds=1)


@dataclass
class Talk:
    """What this process knows of the talk about one delegation."""

    under_way: Step | None = None
    task: asyncio.Task[None] | None = None
    attempt: int = 0  # number of the latest sending
    undelivered: bool = False  # provably
    doubt: bool = False  # a sending's fate was unknown at some time
    counted: bool = False  # the double that this doubt may make is on record
    blind: bool = False  # the latest sending was begun while one before it was in doubt
    failed: Failure | None = None  # why the latest sending failed
    refused: Failure | None = None
    unusable: Failure | None = None
    view: TaskView | None = None  # the newest
    target_uid: str = ""  # of the workspace that was talked to
    cannot_ask: bool = False
    heartbeat: datetime | None = None
    not_before: datetime | None = None
    unanswered: int = 0  # in a row
    cancellation: CancellationStatus | None = None
    cancel_since: datetime | None = None
    claimed: float = 0.0  # monotonic time at which this process began to send


class Errands:
    """Begins talks, bounds how many there are, and takes down what they bring."""

    def __init__(
        self,
        agents: AgentClient,
        now: Callable[[], datetime],
        wake: Callable[[str], None],
        leading: Callable[[], bool],
    ) -> None:
        self._agents, self._now, self._wake, self._leading = agents, now, wake, leading
        self._talks: dict[str, Talk] = {}

    def talk(self, uid: str) -> Talk:
        return self._talks.setdefault(uid, Talk())

    def __len__(self) -> int:
        """Talks under way."""
        return sum(1 for talk in self._talks.values() if talk.under_way is not None)

    def forget(self, uid: str) -> None:
        """Break off a talk; the agent is not told."""
        talk = self._talks.pop(uid, None)
        if talk is not None and talk.task is not None:
            talk.task.cancel()

    async def close(self) -> None:
        tasks = [talk.task for talk in self._talks.values() if talk.task is not None]
        for uid in list(self._talks):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- the errands ---------------------------------------------------------------------------------------------------

    def send(self, uid: str, key: str, address: str, message: Outgoing) -> None:
        talk = self.talk(uid)
        talk.blind, talk.undelivered = not talk.undelivered, False
        talk.failed, talk.cannot_ask, talk.not_before = None, False, None
        self._begin(Step.SEND, talk, key, lambda: self._send(talk, key, address, message))

    def ask(self, uid: str, key: str, address: str, message: Outgoing) -> None:
        talk = self.talk(uid)
        self._begin(Step.ASK, talk, key, lambda: self._find(talk, address, message))

    def follow(self, uid: str, key: str, address: str, task_id: str) -> None:
        talk = self.talk(uid)
        self._begin(Step.FOLLOW, talk, key, lambda: self._follow(talk, key, address, task_id))

    def cancel(self, uid: str, key: str, address: str, task_id: str) -> None:
        talk = self.talk(uid)
        self._begin(Step.CANCEL, talk, key, lambda: self._cancel(talk, address, task_id))

    def _begin(self, kind: Step, talk: Talk, key: str, body: Callable[[], Awaitable[None]]) -> None:
        if talk.task is not None:
            talk.task.cancel()
        talk.under_way = kind
        talk.task = asyncio.create_task(self._run(kind, talk, key, body))

    async def _run(self, kind: Step, talk: Talk, key: str, body: Callable[[], Awaitable[None]]) -> None:
        try:
            if not self._leading():  # a process that was frozen for a while must not send what another one sends
                raise Unanswered("This process does not lead any more.")
            await body()
            talk.unanswered, talk.failed = 0, None
        except asyncio.CancelledError:
            raise
        except OperatorError as error:
            self._take_down(talk.under_way or kind, talk, error)
        except Exception as error:
            log.exception("%s %s: a bug", kind, key)
            self._take_down(talk.under_way or kind, talk, Unanswered(f"A bug in the operator: {type(error).__name__}."))
        if talk.task is asyncio.current_task():
            talk.under_way = talk.task = None
        self._wake(key)

    async def _send(self, talk: Talk, key: str, address: str, message: Outgoing) -> None:
        view = await self._agents.send(address, message)
        metrics.SENDINGS.labels("delivered").inc()
        self._note(talk, view)
        if view.id and not view.state.over:
            self._wake(key)
            await self._follow(talk, key, address, view.id)

    async def _find(self, talk: Talk, address: str, message: Outgoing) -> None:
        view = await self._agents.find(address, message)
        if view is None:
            talk.undelivered = True
        else:
            self._note(talk, view)

    async def _follow(self, talk: Talk, key: str, address: str, task_id: str) -> None:
        def seen(view: TaskView) -> None:
            news = talk.view is None or talk.view.state is not view.state
            self._note(talk, view)
            if news and not view.state.over:
                self._wake(key)

        talk.under_way = Step.FOLLOW
        view = await self._agents.follow(address, task_id, seen)
        self._note(talk, view)
        if view.state is TaskState.INPUT_REQUIRED:
            talk.not_before = self._now() + _BETWEEN_QUESTIONS

    async def _cancel(self, talk: Talk, address: str, task_id: str) -> None:
        view = await self._agents.cancel(address, task_id)
        self._note(talk, view)
        if view.state is TaskState.CANCELED:
            self._cancelled(talk, CancelOutcome.CONFIRMED, "The agent has cancelled the task.")
        elif view.state.over:
            self._cancelled(talk, CancelOutcome.FINISHED, "The task was over before the cancel.")
        else:
            talk.not_before = self._now() + _BETWEEN_CANCELS

    # -- what they bring -----------------------------------------------------------------------------------------------

    def _note(self, talk: Talk, view: TaskView) -> None:
        if view.state is TaskState.REJECTED:
            raise _Busy(view.message)
        talk.view, talk.heartbeat = view, self._now()

    def _cancelled(self, talk: Talk, outcome: CancelOutcome, message: str) -> None:
        talk.cancellation = CancellationStatus(time=moments.text(self._now()), outcome=outcome, message=message)

    def _take_down(self, kind: Step, talk: Talk, error: OperatorError) -> None:
        match error:
            case NotDelivered() | _Busy() if talk.blind and kind is Step.SEND:
                self._unanswered(kind, talk, error.failure)  # it says nothing of the sending before it
            case _Busy():
                metrics.SENDINGS.labels("busy").inc()
                talk.undelivered, talk.view, talk.failed = True, None, error.failure
            case NotDelivered() if kind is Step.SEND:
                metrics.SENDINGS.labels("undelivered").inc()
                talk.undelivered, talk.view, talk.failed = True, None, error.failure
            case Refused() if kind is Step.SEND:
                metrics.SENDINGS.labels("refused").inc()
                talk.refused = error.failure
            case Refused() | TaskNotFound() if kind is Step.CANCEL:
                known = isinstance(error, Refused)
                outcome = CancelOutcome.REFUSED if known else CancelOutcome.CONFIRMED
                self._cancelled(talk, outcome, error.failure.message)
            case TaskNotFound():
                talk.undelivered, talk.view, talk.failed = True, None, error.failure
            case CannotAsk() | UnusableAnswer() if kind is Step.ASK:
                talk.cannot_ask = True
            case UnusableAnswer():
                talk.unusable = error.failure
            case _:
                self._unanswered(kind, talk, error.failure)

    def _unanswered(self, kind: Step, talk: Talk, failure: Failure) -> None:
        """Whatever it was, nothing is known of the task."""
        if kind is Step.SEND:
            metrics.SENDINGS.labels("unknown").inc()
            talk.counted = False
        talk.unanswered += 1
        talk.cannot_ask = talk.cannot_ask or (kind is Step.ASK and talk.unanswered >= _ASKED_ENOUGH)
        rest = min(_REST_LONGEST, _REST_FIRST * 2 ** min(talk.unanswered - 1, 10))
        talk.not_before, talk.failed = self._now() + rest, failure


class _Busy(OperatorError):
    """The agent rejects the task now."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.TARGET_BUSY, message or Reason.TARGET_BUSY.meaning)
