"""Who may delegate to whom, from the family that ``spec.parentRef`` makes and from what the classes allow.

Within a namespace: siblings, roots among each other, an ancestor and its descendant. Across namespaces: two roots whose
classes both name the other's namespace. Nothing else; and what cannot be looked up is not allowed (yet).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle.effective import MAX_DEPTH


class Name(NamedTuple):
    """Where a workspace is."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Member:
    """What the rules need to know of one workspace."""

    namespace: str
    name: str
    parent: str | None
    to_namespaces: tuple[str, ...] = ()  # spec.delegations of its class
    from_namespaces: tuple[str, ...] = ()
    class_known: bool = True  # False: its class does not exist or could not be read


class Outcome(StrEnum):
    """Whether a task may be handed over. Nothing is delivered unless it is allowed."""

    ALLOWED = "Allowed"
    DENIED = "Denied"
    UNKNOWN = "Unknown"  # something cannot be looked up; it is looked at again


class Rule(StrEnum):
    """What allows it."""

    SIBLINGS = "siblings"
    ROOTS = "roots"
    ANCESTOR = "ancestor"  # the target is one of the sender
    DESCENDANT = "descendant"  # the target is one of the sender
    ACROSS = "roots of two namespaces"


@dataclass(frozen=True)
class Verdict:
    """``failure`` says why not, and is there unless it is allowed; then ``rule`` says why."""

    outcome: Outcome
    failure: Failure | None = None
    rule: Rule | None = None


Lookup = Callable[[str, str], Member | None]

_WITHIN = (
    "siblings may, roots among each other, and an ancestor and its descendant up to "
    f"{MAX_DEPTH} levels apart; give both the same spec.parentRef, or make one an ancestor of the other"
)


def permission(sender: Member | None, receiver: Member | None, names: tuple[Name, Name], lookup: Lookup) -> Verdict:
    """Judge. ``names`` are the sender's and the receiver's; ``lookup`` finds a workspace by namespace and name."""
    said = _Said(*names)
    if names[0] == names[1]:
        return said.denied("a workspace cannot delegate to itself; name another one in spec.to")
    if sender is None:
        return said.unknown(Reason.SOURCE_NOT_FOUND, f"workspace {said.sender} does not exist")
    if receiver is None:
        return said.unknown(Reason.TARGET_NOT_FOUND, f"workspace {said.receiver} does not exist")
    if sender.namespace != receiver.namespace:
        return _across(sender, receiver, said)
    return _within(sender, receiver, said, lookup)


class _Said:
    """Verdicts in sentences that name both workspaces."""

    def __init__(self, sender: Name, receiver: Name) -> None:
        across = sender.namespace != receiver.namespace
        self.sender, self.receiver = (repr("/".join(name) if across else name.name) for name in (sender, receiver))

    def denied(self, why: str, reason: Reason = Reason.NOT_PERMITTED) -> Verdict:
        text = f"Workspace {self.sender} may not delegate to {self.receiver}: {why}."
        return Verdict(Outcome.DENIED, Failure(FailureClass.BAD_REQUEST, reason, text))

    def unknown(self, reason: Reason, why: str) -> Verdict:
        text = f"Whether workspace {self.sender} may delegate to {self.receiver} is not known: {why}."
        return Verdict(Outcome.UNKNOWN, Failure(FailureClass.BAD_REQUEST, reason, text))


def _across(sender: Member, receiver: Member, said: _Said) -> Verdict:
    for member in (sender, receiver):
        if member.parent is not None:
            whose = f"{member.name!r} of namespace {member.namespace!r} has the parent {member.parent!r}"
            return said.denied(f"only roots may, across namespaces, and {whose}")
    unknown = []
    for member, field, patterns, other in (
        (sender, "toNamespaces", sender.to_namespaces, receiver.namespace),
        (receiver, "fromNamespaces", receiver.from_namespaces, sender.namespace),
    ):
        if not member.class_known:
            unknown.append(f"the class of {member.name!r} in namespace {member.namespace!r} cannot be read")
        elif not any(fnmatchcase(other, pattern) for pattern in patterns):
            allows = f"its spec.delegations.{field} has no pattern that matches {other!r}"
            return said.denied(f"the class of {member.name!r} does not allow it: {allows}")
    if unknown:
        return said.unknown(Reason.CLASS_NOT_FOUND, " and ".join(unknown))
    return Verdict(Outcome.ALLOWED, rule=Rule.ACROSS)


def _within(sender: Member, receiver: Member, said: _Said, lookup: Lookup) -> Verdict:
    if sender.parent == receiver.parent:
        if sender.parent is None:
            return Verdict(Outcome.ALLOWED, rule=Rule.ROOTS)
        if lookup(sender.namespace, sender.parent) is not None:
            return Verdict(Outcome.ALLOWED, rule=Rule.SIBLINGS)
    up, down = _climb(sender, receiver, lookup), _climb(receiver, sender, lookup)
    if up.found or down.found:
        return Verdict(Outcome.ALLOWED, rule=Rule.ANCESTOR if up.found else Rule.DESCENDANT)
    for climb in (up, down):
        if climb.problem in (Reason.PARENT_NOT_FOUND, Reason.PARENT_CYCLE):
            return said.unknown(climb.problem, climb.why)
    for climb in (up, down):
        if climb.problem is not None:
            return said.denied(f"{climb.why}; within a namespace {_WITHIN}", climb.problem)
    return said.denied(f"within a namespace {_WITHIN}")


@dataclass(frozen=True)
class _Climb:
    """How the way up from one workspace ended: at the other one, at a root (no problem), or otherwise."""

    found: bool = False
    problem: Reason | None = None
    why: str = ""


def _climb(low: Member, high: Member, lookup: Lookup) -> _Climb:
    here, visited = low, {low.name}
    while here.parent is not None:
        if len(visited) > MAX_DEPTH:
            return _Climb(problem=Reason.PARENT_TOO_DEEP, why=f"{low.name!r} has more than {MAX_DEPTH} ancestors")
        if here.parent == high.name:
            return _Climb(found=True)
        chain = f"parent {here.parent!r} of workspace {here.name!r}"
        if here.parent in visited:
            return _Climb(problem=Reason.PARENT_CYCLE, why=f"{chain} leads back to itself")
        parent = lookup(here.namespace, here.parent)
        if parent is None:
            return _Climb(problem=Reason.PARENT_NOT_FOUND, why=f"{chain} does not exist")
        visited.add(parent.name)
        here = parent
    return _Climb()
