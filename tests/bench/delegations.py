"""Delegations: what the ledger costs beside a direct call, how many a second, and who waits before swamped agents.

The API server has the policy on who may delegate, and the senders have identities, so that what they are granted is
written too. The rest of the stage is in stage.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from statistics import fmean
from typing import Any

from tests.bench.agents_main import NAMES
from tests.bench.api import CLASSES, DELEGATIONS, MERGE, Object, each, workspace_class
from tests.bench.lab import ROOT, Lab, spread
from tests.bench.stage import CLASS, SOURCE, delegation, phase_of, staged, steady

AIM = {"overhead_p50_ms": 100, "overhead_p99_ms": 400, "per_second": 50, "writes": 4}


async def run(lab: Lab) -> dict[str, Any]:
    lab.cluster.kubectl("apply", "-f", str(ROOT / "deploy/base/admission.yaml"))
    await lab.api.call("POST", CLASSES, workspace_class(CLASS, lab.directory / "none", identity="Token"))
    overhead, sample = await _overhead(lab)
    lab.say(f"overhead: {overhead}")
    throughput = await _throughput(lab, sample)
    lab.say(f"throughput: {throughput}")
    fan_out = await _fan_out(lab)
    lab.say(f"fan-out: {fan_out}")
    return {"aim": AIM, "overhead": overhead, "throughput": throughput, "fan-out": fan_out}


# -- (a) beside a direct call ------------------------------------------------------------------------------------------


async def _overhead(lab: Lab) -> tuple[dict[str, Any], Object]:
    """The figures, and a finished Delegation as a sample."""
    pairs = 30 if lab.quick else 500
    source, agent = SOURCE.format(0), NAMES.format(0)
    direct, through, arrived, accepted = [], [], {}, []
    async with staged(lab, agents=1, sources=1) as stage:
        for number in range(-5, pairs):  # the first ones find cold caches, and do not count
            begun = time.monotonic()
            await stage.call(agent, f"direct{number:05}")
            took = time.monotonic() - begun
            begun = time.monotonic()
            name, stored = await stage.delegate(source, agent)
            ended = await stage.ledger.end(name)
            if number >= 0:
                direct.append(took)
                through.append(ended - begun)
                accepted.append(stored - begun)
                arrived[name] = begun
        reached = [stamp["at"] - arrived[stamp["text"]] for stamp in stage.stamps() if stamp["text"] in arrived]
        sample = stage.ledger.objects[name]
    result = {
        "pairs": pairs,
        "direct_ms": _ms(direct),
        "through_ms": _ms(through),
        "overhead_ms": _ms([whole - alone for whole, alone in zip(through, direct, strict=True)]),
        "accepted_after_ms": _ms(accepted),
        "at_the_agent_after_ms": _ms(reached),
    }
    return result, sample


def _ms(seconds: Sequence[float]) -> dict[str, float]:
    return spread([value * 1e3 for value in seconds])


# -- (b) many a second -------------------------------------------------------------------------------------------------


async def _throughput(lab: Lab, sample: Object) -> dict[str, Any]:
    agents, seconds, in_flight = (10, 5.0, 20) if lab.quick else (50, 40.0, 100)
    floors = [await _floor(lab, sample, in_flight, seconds / 4)]
    names: list[str] = []
    async with staged(lab, agents, sources=10, capacity=4) as stage:
        turn = count()

        async def direct() -> None:
            n = next(turn)
            await stage.call(NAMES.format(n % agents), f"direct{n:06}")

        async def through() -> None:
            n = next(turn)
            name, _ = await stage.delegate(SOURCE.format(n % 10), NAMES.format(n % agents))
            names.append(name)
            await stage.ledger.end(name)

        direct_per_second = await steady(direct, in_flight, seconds / 4)
        before, cpu, server = await lab.writes(), stage.operator.cpu, lab.server_cpu()
        per_second = await steady(through, in_flight, seconds)
        cpu, server = stage.operator.cpu - cpu, lab.server_cpu() - server
        await stage.ledger.all(names, lambda body: not body["metadata"].get("finalizers"), "no claim left")
        await asyncio.sleep(3)  # Events and lists of names are still on their way
        written = await lab.writes() - before
        began = Counter(stamp["text"] for stamp in stage.stamps())
    floors.append(await _floor(lab, sample, in_flight, seconds / 4))
    return {
        "targets": agents,
        "in_flight": in_flight,
        "seconds": seconds,
        "per_second": round(per_second, 1),
        "direct_per_second": round(direct_per_second, 1),
        "floor_per_second": round(fmean(floors), 1),
        "floors": [round(one, 1) for one in floors],
        "share_of_floor": round(per_second / fmean(floors), 3),
        "delegations": len(names),
        "lost_or_doubled": sum(began[name] != 1 for name in names),
        "operator_cpu_ms_each": round(cpu / len(names) * 1e3, 2),
        "server_cpu_ms_each": round(server / len(names) * 1e3, 2),
        "writes": _writes_each(written, len(names)),
    }


def _writes_each(written: Counter[str], number: int) -> dict[str, Any]:
    """Per delegation; Leases and the statuses of classes and workspaces are written anyway."""
    anyway = ("leases", "workspaceclasses/status", "workspaces/status")
    each_ = {what: round(n / number, 3) for what, n in sorted(written.items()) if what.split(" ")[1] not in anyway}
    creation = each_.pop("POST delegations", 0.0)
    events = sum(each_.pop(what) for what in list(each_) if what.endswith(" events"))
    return {"creation": creation, "operator": round(sum(each_.values()), 3), "events": events, "by": each_}


async def _floor(lab: Lab, sample: Object, in_flight: int, seconds: float) -> float:
    """The least writes by a bare loop: the object, the claim, its end with a status of the same size, no claim."""
    numbers = count()

    async def one() -> None:
        name = f"floor-{next(numbers):05}"
        await lab.api.call("POST", DELEGATIONS, delegation(name, "nobody", "anybody"))
        for path, body in (
            ("", {"metadata": {"finalizers": ["bench.local/floor"]}}),
            ("/status", {"status": sample["status"]}),
            ("", {"metadata": {"finalizers": None}}),
        ):
            await lab.api.call("PATCH", f"{DELEGATIONS}/{name}{path}", body, MERGE)

    try:
        return await steady(one, in_flight, seconds)
    finally:
        await lab.clear(DELEGATIONS, by_hand=True)


# -- (c) a thousand to ten ---------------------------------------------------------------------------------------------


async def _fan_out(lab: Lab) -> dict[str, Any]:
    """All are there before the first can go, because the agents are paused; and they came source after source, so that
    going by age alone would serve the last one last.
    """
    number, agents, sources, work = (100, 5, 5, 0.02) if lab.quick else (1000, 10, 10, 0.02)
    source_of: dict[str, str] = {}
    async with staged(lab, agents, sources, work=work) as stage:
        await stage.desire("Paused")

        async def one(n: int) -> None:
            source = SOURCE.format(n * sources // number)
            name, _ = await stage.delegate(source, NAMES.format(n % agents))
            source_of[name] = source

        await each(range(number), one)
        await stage.ledger.all(list(source_of), lambda body: phase_of(body) == "Queued", "all Queued")
        begun = time.monotonic()
        await stage.desire("Running")
        ends = {}
        with suppress(TimeoutError):
            for name in source_of:
                ends[name] = await stage.ledger.end(name)
        stamps = sorted(stage.stamps(), key=lambda stamp: float(stamp["at"]))
    began: dict[str, float] = {}
    for stamp in stamps:
        began.setdefault(stamp["text"], stamp["at"])
    times, ids = Counter(stamp["text"] for stamp in stamps), Counter(stamp["id"] for stamp in stamps)
    order = {name: rank / (number - 1) for rank, name in enumerate(sorted(ends, key=lambda name: ends[name]))}
    return {
        "delegations": number,
        "agents": agents,
        "sources": sources,
        "work_seconds": work,
        "seconds": round(max(ends.values()) - begun, 1),
        "completed": len(ends),
        "lost": sum(times[name] == 0 for name in source_of),
        "doubled": sum(times[name] > 1 for name in source_of),
        "doubled_within_one_message_id": sum(n > 1 for n in ids.values()),
        "most_at_once_at_one_agent": max(stamp["at_work"] for stamp in stamps),
        "waited_seconds": _by_source(source_of, {name: at - begun for name, at in began.items()}),
        "finishing_order": _by_source(source_of, order),
        "finishing_order_by_age": _by_source(source_of, {n: i / (number - 1) for i, n in enumerate(sorted(source_of))}),
    }


def _by_source(source_of: Mapping[str, str], values: Mapping[str, float]) -> dict[str, Any]:
    """The mean of each source, and what the worst off have beside the best off."""
    grouped: defaultdict[str, list[float]] = defaultdict(list)
    for name, value in values.items():
        grouped[source_of[name]].append(value)
    means = {source: round(fmean(some), 3) for source, some in sorted(grouped.items())}
    least, most = min(means.values()), max(means.values())
    return {"least": least, "most": most, "ratio": round(most / max(least, 1e-9), 2), "means": means}


# -- the table ---------------------------------------------------------------------------------------------------------


def rows(part: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """For the table."""
    aim, cost, many, fan = part["aim"], part["overhead"], part["throughput"], part["fan-out"]
    found = [
        (
            f"overhead over a direct A2A call, {share}",
            f"{cost['overhead_ms'][share]} ms",
            f"direct {cost['direct_ms'][share]} ms, through {cost['through_ms'][share]} ms",
            f"≤ {aim[f'overhead_{share}_ms']} ms",
        )
        for share in ("p50", "p99")
    ]
    stored, reached = cost["accepted_after_ms"], cost["at_the_agent_after_ms"]
    found.append(
        ("  until accepted / at the agent, p50", f"{stored['p50']} / {reached['p50']} ms", f"{cost['pairs']} pairs", "")
    )
    floor, direct = many["floor_per_second"], many["direct_per_second"]
    beside = f"bare writes {floor}/s ({many['share_of_floor']:.0%}), direct calls {direct}/s"
    what = f"delegations over {many['targets']} targets, {many['in_flight']} in flight, {many['seconds']:.0f} s"
    found.append((what, f"{many['per_second']}/s", beside, f"≥ {aim['per_second']}/s"))
    cpu = f"{many['operator_cpu_ms_each']} ms operator, {many['server_cpu_ms_each']} ms API server and etcd"
    found.append(("  CPU each", cpu, "", ""))
    found.append(("  lost or doubled", f"{many['lost_or_doubled']} of {many['delegations']}", "", "0"))
    writes = many["writes"]
    beside = f"creation {writes['creation']}, Events {writes['events']}"
    found.append(("  the operator's API writes each", f"{writes['operator']}", beside, f"≤ {aim['writes']}"))
    what = f"{fan['delegations']} to {fan['agents']} agents of capacity 1"
    bound = fan["delegations"] / fan["agents"] * fan["work_seconds"]
    beside = f"the tasks alone {bound:.0f} s"
    found.append((what, f"{fan['completed']} Completed in {fan['seconds']} s", beside, f"{fan['delegations']}"))
    found.append(("  lost / doubled", f"{fan['lost']} / {fan['doubled']}", "", "0 / 0"))
    found.append(("  most at once at one agent", f"{fan['most_at_once_at_one_agent']}", "", "1"))
    waited, order, age = fan["waited_seconds"], fan["finishing_order"], fan["finishing_order_by_age"]
    measured = f"{waited['least']:.2f} … {waited['most']:.2f} s, × {waited['ratio']}"
    found.append((f"  mean wait of {fan['sources']} sources", measured, "", ""))
    measured, beside = (f"{one['least']:.2f} … {one['most']:.2f}" for one in (order, age))
    found.append(("  mean place in the finishing order (0 first, 1 last)", measured, f"by age alone {beside}", ""))
    return found
