"""A client with short deadlines, and the reference agent as a process."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
from tests.agent.conftest import agent, new_agent

from workspace_operator.a2a.client import AgentClient, Limits
from workspace_operator.a2a.values import Outgoing, OutgoingPart, TaskView

__all__ = ["agent", "new_agent"]

NewMessage = Callable[..., Outgoing]


@pytest.fixture
async def client() -> AsyncIterator[AgentClient]:
    """Its deadlines are of a size that a slow machine keeps and a test can wait for."""
    made = AgentClient(Limits(send=5, ask=5, silence=2))
    yield made
    await made.close()
    # A connection that is made in the very moment in which its request is given up has no owner (anyio.connect_tcp) and
    # is closed when it is collected: now, and not as a warning to some later test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def message() -> NewMessage:
    """Messages that differ; their ids come from a UID, as the operator's."""

    def make(text: str = "hello", **more: str) -> Outgoing:
        uid = uuid4()
        return Outgoing(f"message-{uid}", f"context-{uid}", (OutgoingPart(text=text),), more)

    return make


@pytest.fixture
def seen() -> list[TaskView]:
    """What ``follow`` reports; pass its ``append``."""
    return []
