"""What the matrix plays: the workspaces of each backend, and delegations between workspaces of one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.crash.act import Named, Player
from tests.crash.delegation_play import DelegationPlayer
from tests.crash.delegation_scenario import DELIVERIES
from tests.crash.lane import Lane
from tests.crash.play import WorkspacePlayer
from tests.crash.rigs import DelegationRig, Rig
from tests.crash.scenario import RENEW, SCENARIOS


@dataclass(frozen=True)
class Subject:
    """One group of rows of the table."""

    rig: Rig
    scenarios: tuple[tuple[Named, ...], ...]
    player: Callable[[Lane], Player[Any]]

    @property
    def name(self) -> str:
        return self.rig.name


def subject(rig: Rig) -> Subject:
    """What is played on a rig."""
    if isinstance(rig, DelegationRig):
        return Subject(rig, tuple((each,) for each in DELIVERIES), lambda lane: DelegationPlayer(lane, rig))
    scenarios = tuple(tuple(step for step in steps if rig.renews or step is not RENEW) for steps in SCENARIOS)
    return Subject(rig, scenarios, lambda lane: WorkspacePlayer(lane, rig))
