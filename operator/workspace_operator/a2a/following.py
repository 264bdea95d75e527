"""Follows a task to its end: by its stream of events while that works, and always also by asking (I-68).

A stream only says when it is worth asking: what a task came to is read from the task itself, once, in a bounded answer.
So a stream that ends, errs, lies or falls silent costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from enum import Enum, auto

from workspace_operator.a2a.errors import Unanswered, UnusableAnswer
from workspace_operator.a2a.values import TaskState, TaskView

FIRST_DELAY, LONGEST_DELAY, GROWTH = 0.2, 10.0, 1.6  # seconds between questions; jitter of a quarter on top
PATIENCE = 5  # questions in a row without a usable answer, about two seconds where they fail at once


class Heard(Enum):
    """How listening to a stream ended."""

    NEWS = auto()  # it says that the task is over or waits for input
    SILENCE = auto()  # no event for a while; the stream was left
    NOTHING = auto()  # there is no stream now: not offered, or too many are open
    BROKEN = auto()  # it ended or failed; it is not opened again


def rests(view: TaskView) -> bool:
    """Nothing more comes by itself."""
    return view.state.over or view.state is TaskState.INPUT_REQUIRED


async def follow(
    ask: Callable[[], Awaitable[TaskView]],
    listen: Callable[[], Awaitable[Heard]],
    seen: Callable[[TaskView], None],
) -> TaskView:
    """Until the task rests. Raises what ``ask`` raises: at once what is an answer, after PATIENCE what is none."""
    delay, failures, listening = FIRST_DELAY, 0, True
    while True:
        try:
            view = await ask()
        except (Unanswered, UnusableAnswer):
            failures += 1
            if failures >= PATIENCE:
                raise
        else:
            failures = 0
            seen(view)
            if rests(view):
                return view
            heard = await listen() if listening else Heard.NOTHING
            if heard is Heard.NEWS or heard is Heard.SILENCE:
                # News that the task does not confirm is not waited for a second time.
                listening = heard is Heard.SILENCE
                delay = FIRST_DELAY
                continue
            listening = listening and heard is Heard.NOTHING
            if heard is Heard.BROKEN:
                continue  # most often because the task was over before the stream was open
        await asyncio.sleep(delay * random.uniform(1.0, 1.25))  # noqa: S311 - spreads questions, hides nothing
        delay = min(LONGEST_DELAY, delay * GROWTH)
