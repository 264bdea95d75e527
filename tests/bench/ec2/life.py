"""EC2 calls of a whole life: create, pause, resume, stop, delete; for one workspace alone and for many at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tests.bench.ec2.site import CHANGES, LOOKS, Site, site, tally
from tests.bench.lab import Lab
from tests.ec2.counterpart import Faults

_TRAILING = 3.0  # seconds in which looks that a change has caused are over
_STEPS = {"pause": "Paused", "resume": "Running", "stop": "Stopped"}


async def run(lab: Lab) -> dict[str, Any]:
    """Each step waits until all have arrived and the looks that it caused are over."""
    many, takes = (10, 1.0) if lab.quick else (50, 5.0)
    slow = Faults(seed=7, pending=takes, stopping=takes, shutting_down=takes)
    result: dict[str, Any] = {"state_changes_take_seconds": takes}
    async with site(lab, "ec2-life", slow, provisionTimeout="30m") as here:
        for volume in (True,) if lab.quick else (False, True):
            for number in (1, many):
                key = f"{number} {'with' if volume else 'without'} a volume"
                result[key] = _summary(number, await _life(here, number, volume))
                lab.say(f"{key}: {result[key]}")
    return result


def _summary(number: int, steps: dict[str, Counter[str]]) -> dict[str, Any]:
    """Listings and checks of the class go on besides, and are no workspace's."""
    calls = sum(steps.values(), Counter[str]())
    looks = {kind: calls[kind] for kind in sorted(LOOKS) if calls[kind]}
    changes = {kind: count for kind, count in sorted(calls.items()) if kind in CHANGES}
    return {
        "changes": changes,
        "changes_per_workspace": round(sum(changes.values()) / number, 3),
        "looks": looks,
        "looks_per_workspace": round(sum(looks.values()) / number, 3),
        "steps": {step: dict(counts) for step, counts in steps.items()},
    }


async def _life(here: Site, number: int, volume: bool) -> dict[str, Counter[str]]:
    names = [f"wsp-{'volume' if volume else 'plain'}-{i:04}" for i in range(number)]
    data = {"size": "1Gi", "mountPath": "/data", "whenDeleted": "Delete"}
    spec: dict[str, Any] = {"storage": data} if volume else {}
    steps: dict[str, Counter[str]] = {}
    mark = len(here.ec2.calls)

    async def note(step: str) -> None:
        nonlocal mark
        await asyncio.sleep(_TRAILING)
        calls = here.ec2.calls
        steps[step], mark = tally(calls[mark:]), len(calls)

    await here.lab.create(names, here.class_, **spec)
    await here.reach(names, "Running")
    await note("create")
    here.foresee_end(names)
    for step, state in _STEPS.items():
        await here.wish(names, state)
        await note(step)
    await here.delete(names)
    await note("delete")
    return steps
