"""Agents that answer wrongly on purpose, beside one that does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.delegations import CLASS, Tasks, delegation, delegation_class, obedient, sender, team
from tests.support.fleet import Fleet, Object, workspace
from tests.support.manifests import CARD
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster

DEADLINE = 6  # seconds
MEMORY = 150 * 1024 * 1024  # bytes more than before, while all of them answer at once

#: What each does (``tests/support/hostile.py``), and what its delegation says in the end.
ENEMIES = {
    "card-html": "card",
    "card-redirect": "HTTP status 302",
    "card-invalid-utf-8": "not valid UTF-8",
    "card-ten-megabytes": "larger than 256 KiB",
    "card-drips": "could not be reached in time|did not answer in time",
    "card-only-grpc": "no JSON-RPC interface",
    "html": "not JSON",
    "wrong-type": "not JSON",
    "ten-megabytes": "larger than 4096 KiB",
    "drips": "did not answer in time|by its deadline",
    "redirect": "HTTP status 302",
    "invalid-utf-8": "not valid UTF-8",
    "flood": "larger than 4096 KiB",
    "deep": "not JSON|too many parts",
    "silent": "did not answer in time|by its deadline",
    "hangs-up": "connection to the agent broke",
    "unauthorized": "HTTP status 401",
    "internal-error": "HTTP status 500",
}


def enemy(habit: str) -> Object:
    """A workspace whose port accepts connections, which is all that it does well."""
    agent = {"port": 8080, "probe": "TCP", "maxConcurrentTasks": 10}
    return workspace(f"enemy-{habit}", className=CLASS, image="hostile", args=[habit], agent=agent)


@pytest.fixture(scope="module")
def fleet(cluster: LocalCluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    delegation_class(cluster, tmp_path_factory.mktemp("workspaces"))
    members = [sender("planner"), obedient("friend", capacity=5), *map(enemy, ENEMIES)]
    with team(cluster, "enemies", *members) as made:
        yield made


def memory(operator: Operator) -> int:
    """Bytes that the operator has resident."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{operator.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_enemies_harm_nobody_but_their_own_delegations(fleet: Fleet, operator: Operator) -> None:
    """Each ends in a clear failure; others are answered meanwhile; the operator is well (I-53, I-56, I-68)."""
    tasks, before = Tasks(fleet), memory(operator)
    fleet.apply(*(delegation(f"to-{habit}", "planner", f"enemy-{habit}", deadline=f"{DEADLINE}s") for habit in ENEMIES))
    names = [f"friendly-{number}" for number in range(20)]
    fleet.apply(*(delegation(name, "planner", "friend", name) for name in names))
    tasks.wait_over(*names, seconds=30)
    assert tasks.phases("friendly") == ["Completed"] * len(names)
    assert operator.get("/healthz")[0] == 200

    tasks.wait_over(*(f"to-{habit}" for habit in ENEMIES), seconds=DEADLINE + 40)
    assert tasks.phases("to-") == ["Failed"] * len(ENEMIES)
    wrong = {
        habit: said
        for habit, sentence in ENEMIES.items()
        if not re.search(sentence, said := str(tasks.condition(f"to-{habit}")["message"]))
    }
    assert not wrong
    assert "do-not-show" not in fleet.kubectl("get", "delegations,events", "-o", "json")
    assert "do-not-show" not in operator.all_logs()
    assert memory(operator) - before < MEMORY
    assert operator.get("/healthz")[0] == 200
    assert operator.metric("workspace_operator_delegation_talks") == 0


def test_a_workspace_without_a_card_never_serves_and_its_delegation_says_so(fleet: Fleet) -> None:
    """Where the card is the probe, nothing is sent to an agent that has none."""
    tasks = Tasks(fleet)
    fleet.apply(workspace("cardless", className=CLASS, image="hostile", args=["card-not-found"], agent=CARD))
    tasks.give("to-cardless", "planner", "cardless", deadline="4s")
    tasks.wait_phase("to-cardless", "Failed")
    finished = tasks.condition("to-cardless")
    assert finished["reason"] == "DeadlineExceeded"
    assert tasks.status("to-cardless")["attemptCount"] == 0
