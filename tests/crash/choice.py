"""Which deaths are played, and how many share a workspace."""

from __future__ import annotations

import os
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.crash.act import Chain, Kill, S
from tests.crash.points import AFTER, BEFORE
from tests.crash.seams import CLASS_WIDE

SAMPLE = 12  # deaths per backend in `make test`, at least

_RELEASE = r"process rename incarnation-|docker DELETE containers/ID|ec2 TerminateInstances|kube DELETE pods"

#: The moments that went wrong elsewhere (incidents.txt, I-05 to I-10 and I-50 f.): scenario step, call, side. The first
#: point that matches is taken.
DANGEROUS = (
    ("create", r"kube PATCH workspaces #", AFTER),  # the finalizer is on, and nothing else happened
    ("create, regretted", r"kube POST serviceaccounts/token #|kube POST networkpolicies #", AFTER),
    ("create", r"process spawn|docker POST containers/create|ec2 RunInstances|kube POST pods #", AFTER),
    ("create", r"kube PATCH pods #1", BEFORE),  # all stands beside the pod, which is still gated
    ("pause", r"kube DELETE secrets", BEFORE),
    ("pause", r"process signal group|docker POST containers/ID/kill|ec2 StopInstances|kube DELETE pods", AFTER),
    ("resume", r"process spawn|docker POST containers/ID/start|ec2 StartInstances|kube PATCH pods", AFTER),
    ("resume, regretted", r"kube POST pods #", AFTER),  # a pod that is created and will not be started
    ("restart", r"kube PATCH workspaces/status #1", AFTER),
    ("restart", _RELEASE, AFTER),
    ("stop", _RELEASE, BEFORE),
    ("start", r"kube PATCH workspaces/status #2", BEFORE),
    ("delete", r"process rename data|docker DELETE volumes|ec2 DeleteVolume|kube DELETE persistentvolumeclaims", AFTER),
    ("delete", r"kube PATCH workspaces #1", BEFORE),
    ("deliver", r"kube PATCH delegations #1", AFTER),  # the claim is on, and nothing was sent
    ("deliver", r"agent SendMessage #1", AFTER),
    ("deliver", r"kube PATCH delegations/status #1", AFTER),
    ("deliver, unattended", r"agent card #1", AFTER),
    ("deliver, large", r"kube POST configmaps #1", AFTER),
    ("deliver, queued", r"kube PATCH delegations/status #1", BEFORE),
    ("deliver, busy", r"agent SendMessage #1", AFTER),
    ("deliver, mute", r"agent SendMessage #1", AFTER),
    ("deliver, at most once", r"agent SendMessage #1", BEFORE),
    ("deliver, keeping", r"agent SendMessage #1", AFTER),
    ("cancel", r"agent CancelTask #1", AFTER),
    ("delete at work", r"agent CancelTask #1", BEFORE),
    ("deadline", r"agent CancelTask #1", AFTER),
    ("time to live", r"kube DELETE delegations #1", BEFORE),
)


class Points:
    """What was recorded: the points of each step, once, in their order."""

    def __init__(self) -> None:
        self.by_step: dict[str, list[str]] = {}

    def add(self, recorded: dict[str, list[str]]) -> None:
        """Steps that open several scenarios count once. Of listings by the clock, the first one counts."""
        for step, points in recorded.items():
            known = self.by_step.setdefault(step, [])
            for point in points:
                by_clock = CLASS_WIDE in point and not point.endswith("#1")
                if point not in known and not by_clock:
                    known.append(point)

    def kills(self) -> list[Kill]:
        return [
            Kill(step, point, side)
            for step, points in self.by_step.items()
            for point in points
            for side in (BEFORE, AFTER)
        ]


def chosen(kills: Sequence[Kill], *, full: bool, seed: int) -> list[Kill]:
    """All, those that CRASH_ONLY names, or a sample: the dangerous ones, and others by lot."""
    if pattern := os.environ.get("CRASH_ONLY"):
        return [kill for kill in kills if re.search(pattern, str(kill))]
    if full:
        return list(kills)
    found: dict[Kill, None] = {}
    for step, call, side in DANGEROUS:
        matching = (kill for kill in kills if kill.step == step and kill.side == side and re.match(call, kill.point))
        if (kill := next(matching, None)) is not None:
            found[kill] = None
    rest = [kill for kill in kills if kill not in found]
    lot = random.Random(seed).sample(rest, max(0, min(len(rest), SAMPLE - len(found))))
    return [*found, *lot]


def chains(kills: Iterable[Kill], among: Sequence[tuple[S, ...]]) -> list[Chain[S]]:
    """As few workspaces as can be, each with at most one death per step; after the last one it is deleted."""
    waiting: dict[str, list[Kill]] = defaultdict(list)
    for kill in kills:
        waiting[kill.step].append(kill)
    made = []
    for steps in among:
        while any(waiting[step.name] for step in steps):
            taken = {step.name: waiting[step.name].pop(0) for step in steps if waiting[step.name]}
            last = max(index for index, step in enumerate(steps) if step.name in taken)
            ending = () if last == len(steps) - 1 else (steps[-1],)
            made.append(Chain((*steps[: last + 1], *ending), taken))
    return made
