"""The witness itself: it sees two of one workspace, and one only where there is one."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest
from tests.chaos.witness import Witness, census
from tests.support.fleet import until

Start = Callable[[str], None]


@pytest.fixture
def start() -> Iterator[Start]:
    """Processes of workspaces, each in a session of its own."""
    running: list[subprocess.Popen[bytes]] = []

    def one(uid: str) -> None:
        environment = {**os.environ, "WORKSPACE_UID": uid, "WORKSPACE_INCARNATION": str(len(running))}
        running.append(subprocess.Popen(["sh", "-c", "sleep 600 & wait"], env=environment, start_new_session=True))

    yield one
    for process in running:
        os.killpg(process.pid, 9)
        process.wait()


def test_two_at_one_moment_are_seen_and_a_family_is_one(start: Start) -> None:
    one, two = (str(uuid.uuid4()) for _ in range(2))
    with Witness(lambda: {one, two}) as witness:
        for uid in (one, two, two):
            start(uid)
        until(lambda: witness.breaches)
        until(lambda: [len(each.processes) for each in census()[one].values()] == [2])
        looks = witness.looks
        until(lambda: witness.looks > looks + 1)
    assert set(witness.breaches) == {two}
