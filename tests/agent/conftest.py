"""Fixtures that start agents and make sure that none outlives its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.agent.fake_kube import FakeKube
from tests.agent.harness import AgentProcess

NewAgent = Callable[..., AgentProcess]


@pytest.fixture
def new_agent(tmp_path: Path) -> Iterator[NewAgent]:
    """Makes agents that are not started yet; keywords are environment variables."""
    agents: list[AgentProcess] = []

    def make(**environment: str) -> AgentProcess:
        agents.append(AgentProcess(tmp_path, **environment))
        return agents[-1]

    yield make
    for agent in agents:
        agent.kill()


@pytest.fixture
def agent(new_agent: NewAgent) -> AgentProcess:
    return new_agent().start()


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[FakeKube]:
    fake = FakeKube(tmp_path / "identity")
    fake.accepted = "first-token"
    fake.give_identity("first-token")
    yield fake
    fake.close()
