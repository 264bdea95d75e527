"""Agents that delegate what was delegated to them, each with its own token."""

from __future__ import annotations

import pytest
import yaml
from tests.support.delegations import Tasks
from tests.support.fleet import Fleet, until, workspace
from tests.support.manifests import LEASED
from tests.support.operator import ROOT, Operator

pytestmark = pytest.mark.cluster

EXAMPLE = ROOT / "deploy" / "examples" / "delegation-chain.yaml"


@pytest.fixture
def family(fleet: Fleet, operator: Operator, process_class: str) -> Tasks:
    """The workspaces of the examples: two roots, and a child of one of them."""
    named = {"className": process_class, "agent": LEASED}
    child = workspace("writer", **named, parentRef={"name": "researcher"})
    fleet.apply(workspace("planner", **named), workspace("researcher", **named), child)
    fleet.wait_ready()
    return Tasks(fleet)


def test_a_chain_of_three_agents_ends_with_the_combined_answer(fleet: Fleet, family: Tasks) -> None:
    """The example as it is; its name and its answer are what the page says."""
    fleet.apply(yaml.safe_load(EXAMPLE.read_text()))
    family.wait_over("chain")
    status = family.status("chain")
    assert (status["phase"], status["result"]["preview"]) == (
        "Completed",
        "planner: researcher: writer: a haiku about leases",
    )
    assert status["result"]["preview"] in EXAMPLE.read_text().replace("\n# ", " ")
    for sender, receiver in (("planner", "researcher"), ("researcher", "writer")):
        (own,) = family.all(f"{sender}.")
        assert (own["spec"]["to"]["name"], own["status"]["phase"]) == (receiver, "Completed")


def test_a_failure_at_the_end_of_a_chain_is_told_at_its_beginning(family: Tasks) -> None:
    """The writer is no relation of the planner's; the sentence that says so comes all the way back."""
    family.give("refused", "researcher", "planner", "ask writer: hello")
    family.wait_over("refused")
    finished = family.condition("refused")
    assert family.phase("refused") == "Failed" and finished is not None
    assert "The task for writer ended as Failed" in finished["message"]


def test_a_chain_is_cancelled_from_its_beginning(fleet: Fleet, family: Tasks) -> None:
    """Each agent cancels what it waits for, down to the one that works (I-71)."""
    fleet.desire("writer", "Paused")
    fleet.wait_phase("writer", "Paused")
    family.give("long", "researcher", "planner", "ask researcher: ask writer: hello")
    until(lambda: family.all("researcher."), 60)
    family.desire("long", "Stopped")
    family.wait_phase("long", "Cancelled")
    until(lambda: set(family.phases()) == {"Cancelled"}, 60, lambda: str(family.phases()))
