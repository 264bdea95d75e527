"""Many starts at once within a budget of calls, while EC2 throttles."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.bench.ec2.site import Site, bare, site, tally
from tests.bench.lab import Lab
from tests.ec2.counterpart import Counterpart, Faults, Rule
from tests.ec2.counterpart.proxy import Call

from workspace_operator.api import meta
from workspace_operator.api.ec2 import ApiRate, ApiRates

_BUDGET = ApiRate(per_second=5, burst=5)
_REFUSED = 0.3
_THREADS = 16  # as many as the driver has


async def run(lab: Lab) -> dict[str, Any]:
    """Starts at once, three calls of ten refused, launches within 5/s; beside boto3's adaptive retries alone."""
    number = 20 if lab.quick else 200
    names = [f"wsp-{i:04}" for i in range(number)]
    rates = ApiRates(run=_BUDGET)
    result: dict[str, Any] = {"workspaces": number, "refused": _REFUSED, **_BUDGET.model_dump()}
    async with site(lab, "ec2-rush", Faults(seed=7), rates=rates, provisionTimeout="2h") as here:
        await asyncio.sleep(_BUDGET.burst / _BUDGET.per_second)  # the warm-up's turns are there again
        here.ec2.faults.throttled = Rule("*", share=_REFUSED)
        mark, began = len(here.ec2.calls), time.time()
        await lab.create(names, here.class_)
        await here.reach(names, "Running", 1200)
        result["seconds"] = round(time.time() - began, 1)
        result["ready"] = sum(name in here.eye.ready_at for name in names)
        result["launches"] = _launches(here.ec2.calls[mark:])
        result["all_calls"] = dict(tally(here.ec2.calls[mark:]))
        result["incarnations"] = sorted({here.eye.objects[n]["status"]["instance"]["incarnation"] for n in names})
        result["failures"] = sum(here.eye.objects[name]["status"].get("failures") is not None for name in names)
        here.ec2.faults.throttled = None
        result["duplicates"] = _duplicates(here, names)
        result["pause"] = await _pause(here, names)
        await lab.clear()
    lab.say(f"rush: {result}")
    result["bare boto3"] = await _bare_rush(lab, number)
    return result


async def _pause(here: Site, names: Sequence[str]) -> dict[str, Any]:
    """The same ones paused at once, with the class's default rates for all but launches and nothing refused."""
    here.foresee_end(names)
    mark, began = len(here.ec2.calls), time.time()
    await here.wish(names, "Paused")
    seconds = round(time.time() - began, 1)
    return {"seconds": seconds, "calls": dict(tally(here.ec2.calls[mark:]))}


def _launches(calls: Sequence[Call]) -> dict[str, Any]:
    """RunInstances against the budget: from the first to the last one, and in the busiest second."""
    sent = sorted(call.at for call in calls if call.action == "RunInstances")
    outcomes = Counter(call.outcome for call in calls if call.action == "RunInstances")
    seconds = sent[-1] - sent[0]
    busiest = max(sum(begin <= at < begin + 1 for at in sent) for begin in sent)
    return {
        "calls": len(sent),
        "outcomes": dict(outcomes),
        "seconds": round(seconds, 1),
        "budget": math.floor(_BUDGET.burst + _BUDGET.per_second * seconds),
        "busiest_second": busiest,
        "busiest_second_allowed": _BUDGET.burst + _BUDGET.per_second,
        "ahead_of_bucket": round(_ahead(sent), 2),
    }


def _ahead(sent: Sequence[float]) -> float:
    """By how many calls a bucket of the budget would have been overdrawn at worst, on arrival at EC2."""
    tokens, at, worst = float(_BUDGET.burst), sent[0], 0.0
    for now in sent:
        tokens = min(_BUDGET.burst, tokens + (now - at) * _BUDGET.per_second) - 1
        at, worst = now, max(worst, -tokens)
    return worst


def _duplicates(here: Site, names: Sequence[str]) -> dict[str, int]:
    """The console's truth: machines beyond one per workspace, ever made, and alive at once."""
    uids = {here.eye.objects[name]["metadata"]["uid"] for name in names}
    made = Counter(machine.tags.get(meta.LABEL_UID, "") for machine in here.ec2.instances())
    together = here.ec2.max_alive_per(meta.LABEL_UID)
    return {
        "machines_made": sum(made[uid] for uid in uids),
        "beyond_one_each": sum(made[uid] - 1 for uid in uids),
        "most_alive_at_once": max(together[uid] for uid in uids),
    }


async def _bare_rush(lab: Lab, number: int) -> dict[str, Any]:
    """The same launches by boto3 alone, whose adaptive retries are its own answer to throttling."""
    with Counterpart(Faults(seed=7, throttled=Rule("*", share=_REFUSED))) as ec2:
        async with bare(lab, ec2, "rush", number, _THREADS) as program:
            result = {**_launches(ec2.calls), "gave_up": program.counts["failed"]}
    lab.say(f"bare boto3, adaptive: {result}")
    return result
