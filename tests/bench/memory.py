"""Memory per workspace held, beside a bare kopf informer with a queue that sees the same events."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from tests.bench.api import CLASSES, Eye, workspace_class
from tests.bench.lab import Lab, Subject

AIM_KB = 30.0


async def run(lab: Lab) -> dict[str, Any]:
    few, many = (100, 400) if lab.quick else (500, 2000)
    await lab.api.call("POST", CLASSES, workspace_class("held", lab.directory / "none"))
    names = [f"wsp-{i:04}" for i in range(many)]
    result: dict[str, Any] = {"between": [few, many], "aim_kb": AIM_KB}
    async with (
        lab.operator("noop", "held") as operator,
        lab.subject("kopf_main") as baseline,
        Eye(lab.api) as eye,
    ):
        await lab.create(names[:few], "held")
        await lab.all_ready(eye, names[:few])
        before = await _settled(operator), await _settled(baseline)
        await lab.create(names[few:], "held")
        await lab.all_ready(eye, names)
        after = await _settled(operator), await _settled(baseline)
        await lab.clear()
    for which, low, high in zip(("operator", "baseline kopf informer"), before, after, strict=True):
        result[which] = _figures(low, high, many - few)
    lab.say(f"{result['operator']} / {result['baseline kopf informer']}")
    return result


async def _settled(subject: Subject) -> dict[str, float]:
    """Median of several samples, after kopf's idle workers have ended (5 s) and garbage was collected."""
    await asyncio.sleep(12)
    samples = []
    for _ in range(5):
        await subject.counts()  # collects garbage on its side
        samples.append(subject.memory())
        await asyncio.sleep(0.5)
    return {key: statistics.median(sample[key] for sample in samples) for key in ("Rss", "Pss")}


def _figures(low: dict[str, float], high: dict[str, float], number: int) -> dict[str, float]:
    return {
        "rss_kb_per_workspace": round((high["Rss"] - low["Rss"]) / number / 1024, 1),
        "pss_kb_per_workspace": round((high["Pss"] - low["Pss"]) / number / 1024, 1),
        "rss_mb_low": round(low["Rss"] / 1e6, 1),
        "rss_mb_high": round(high["Rss"] / 1e6, 1),
    }
