"""The effective state of a workspace: the lowest of its own wish and its ancestors' (I-12, I-29)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import DesiredState, EffectiveReason
from workspace_operator.errors import Failure, FailureClass

MAX_DEPTH = 32


@dataclass(frozen=True)
class Node:
    """What the walk needs to know of one workspace."""

    name: str
    desired: DesiredState
    parent: str | None


@dataclass(frozen=True)
class Effective:
    """The outcome; with a ``problem`` the workspace is not started, and left running if it runs."""

    state: DesiredState
    reason: EffectiveReason
    problem: Failure | None = None


def effective(node: Node, lookup: Callable[[str], Node | None]) -> Effective:
    """Walk all ancestors of ``node``; ``lookup`` finds a workspace of the same namespace by name."""
    state, reason = node.desired, EffectiveReason.USER
    visited = {node.name}
    here = node
    while here.parent is not None:
        if here.parent in visited:
            return Effective(state, reason, _problem(Reason.PARENT_CYCLE, f"{_chain(here)} leads back to itself"))
        if len(visited) > MAX_DEPTH:
            return Effective(state, reason, _problem(Reason.PARENT_TOO_DEEP, f"more than {MAX_DEPTH} ancestors"))
        parent = lookup(here.parent)
        if parent is None:
            text = f"{_chain(here)} does not exist; create that workspace or remove the parentRef of {here.name!r}"
            return Effective(state, reason, _problem(Reason.PARENT_NOT_FOUND, text))
        if parent.desired.rank > state.rank:
            state, reason = parent.desired, EffectiveReason.PARENT
        visited.add(parent.name)
        here = parent
    return Effective(state, reason)


def _chain(node: Node) -> str:
    return f"parent {node.parent!r} of workspace {node.name!r}"


def _problem(reason: Reason, text: str) -> Failure:
    return Failure(FailureClass.BAD_REQUEST, reason, f"Not started: {text}.")
