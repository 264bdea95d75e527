"""What a fleet of EC2 workspaces asks of EC2 while nothing changes."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from typing import Any

from tests.bench.ec2.site import CHECK, LISTING, Site, site, tally
from tests.bench.lab import Lab
from tests.ec2.counterpart import Faults

from workspace_operator.api import meta
from workspace_operator.backends.ec2.looking import PAGE


async def run(lab: Lab) -> dict[str, Any]:
    """A fleet that was started by the operator itself, a tenth of it paused; then nothing is asked of it."""
    number, interval, windows = (100, 3, (15.0, 15.0)) if lab.quick else (1000, 15, (90.0, 60.0))
    names = [f"wsp-{i:04}" for i in range(number)]
    # A terminated instance is listed for an hour; the warm-up's must not make a page of its own.
    faults = Faults(seed=7, terminated_visible=5.0)
    async with site(lab, "ec2-steady", faults, interval=f"{interval}s", provisionTimeout="30m") as here:
        began = time.monotonic()
        await lab.create(names, here.class_)
        await here.reach(names, "Running")
        lab.say(f"{number} instances Ready after {time.monotonic() - began:.0f} s")
        here.foresee_end(names)
        await here.wish(names[::10], "Paused")
        await asyncio.sleep(10)  # what the changes left to look at
        result: dict[str, Any] = {"workspaces": number, "paused": len(names[::10]), "interval_seconds": interval}
        for seconds, size in zip(windows, (PAGE, PAGE // 4 if number > PAGE // 4 else 25), strict=True):
            here.ec2.faults.page_size = size
            result[f"pages of {size}"] = await _rest(here, number, seconds, size)
        await lab.clear()
    return result


async def _rest(here: Site, number: int, seconds: float, size: int) -> dict[str, Any]:
    """Whole listings only: what began before this window, or has not ended in it, does not count."""
    mark, cpu = len(here.ec2.calls), here.operator.cpu
    await asyncio.sleep(seconds)
    calls, cpu = here.ec2.calls[mark:], here.operator.cpu - cpu
    listed = [call for call in calls if tally([call])[LISTING]]
    begins = [index for index, call in enumerate(listed) if "NextToken" not in call.params]
    pages = [end - begin for begin, end in itertools.pairwise(begins)]
    kinds = tally(calls)
    result = {
        "seconds": seconds,
        "page_size": size,
        "listings": len(pages),
        "calls": sum(pages),
        "pages_each": sorted(set(pages)),
        "pages_aimed": math.ceil(number / size),
        "boto3_paginator_pages": await asyncio.to_thread(_paginate, here),
        "class_checks": {kind: kinds[kind] for kind in CHECK if kinds[kind]},
        "any_other_call": {kind: count for kind, count in kinds.items() if kind not in {LISTING, *CHECK}},
        "listing_seconds": max(call.seconds for call in listed),
        "operator_cpu_percent": round(cpu / seconds * 100, 2),
    }
    here.lab.say(f"at rest: {result}")
    return result


def _paginate(here: Site) -> int:
    """How many pages the SDK's own paginator reads for the same instances."""
    filters = [{"Name": f"tag:{meta.LABEL_CLASS}", "Values": [here.class_]}]
    paginator = here.ec2.client("ec2").get_paginator("describe_instances")
    return len(list(paginator.paginate(Filters=filters, PaginationConfig={"PageSize": PAGE})))
