"""From an accepted change of desiredState to the backend verb's call, with idle workspaces (real processes) around."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from tests.bench.api import CLASSES, MERGE, WORKSPACES, Eye, ready, workspace_class
from tests.bench.lab import Lab, Subject, kill_workloads, spread

_VERBS = {"Paused": ("stop",), "Running": ("provision", "restart")}
AIM = {"p50": 15.0, "p99": 60.0}


@dataclass(frozen=True)
class _Change:
    """One change of the wish; times are CLOCK_MONOTONIC, in seconds."""

    name: str
    wish: str
    generation: int
    sent: float
    accepted: float


async def run(lab: Lab) -> dict[str, Any]:
    idle, flipped = (60, 20) if lab.quick else (500, 200)
    directory = lab.directory / "workloads"
    await lab.api.call("POST", CLASSES, workspace_class("sleepers", directory))
    names = [f"wsp-{i:04}" for i in range(idle)]
    try:
        async with (
            lab.operator("process", "sleepers") as operator,
            lab.subject("kopf_main") as baseline,
            Eye(lab.api) as eye,
        ):
            begin = time.monotonic()
            await lab.create(names, "sleepers")
            await lab.all_ready(eye, names, 600)
            lab.say(f"{idle} real processes Ready after {time.monotonic() - begin:.1f} s")
            await asyncio.sleep(8)  # whatever the start left to do; kopf's own workers end after 5 idle seconds
            changes = []
            for name in names[:: max(1, idle // flipped)][:flipped]:
                for wish in ("Paused", "Running"):
                    changes.append(await _flip(lab, eye, name, wish))
            await asyncio.sleep(1)
            result = _evaluate(changes, operator, baseline)
            lab.say(f"verb {result['verb_after_accepted']['all']}, bare kopf {result['baseline_event_after_accepted']}")
            await lab.clear()
    finally:
        kill_workloads(directory)
    return {"idle": idle, "aim_ms": AIM, **result}


async def _flip(lab: Lab, eye: Eye, name: str, wish: str) -> _Change:
    await asyncio.sleep(0.03)
    sent = time.monotonic()
    body = await lab.api.call("PATCH", f"{WORKSPACES}/{name}", {"spec": {"desiredState": wish}}, MERGE)
    change = _Change(name, wish, body["metadata"]["generation"], sent, time.monotonic())

    def reached(seen: dict[str, Any]) -> bool:
        return seen[name]["metadata"]["generation"] >= change.generation and ready(seen[name], wish)

    await eye.until(reached, 60, f"{name} {wish}")
    return change


def _evaluate(changes: list[_Change], operator: Subject, baseline: Subject) -> dict[str, Any]:
    verbs: dict[str, list[tuple[str, float]]] = {}
    for stamp in operator.stamps():
        verbs.setdefault(stamp["name"], []).append((stamp["verb"], stamp["at"]))
    events = {(stamp["name"], stamp["generation"]): stamp["at"] for stamp in baseline.stamps()}
    called: dict[_Change, float] = {}
    for change in changes:
        times = [at for verb, at in verbs[change.name] if verb in _VERBS[change.wish] and at >= change.sent]
        called[change] = min(times)
    heard = [events[change.name, change.generation] for change in changes]
    return {
        "verb_after_accepted": _by_wish({c: at - c.accepted for c, at in called.items()}),
        "verb_after_sent": _by_wish({c: at - c.sent for c, at in called.items()}),
        "baseline_event_after_accepted": _ms(at - c.accepted for c, at in zip(changes, heard, strict=True)),
        "baseline_event_after_sent": _ms(at - c.sent for c, at in zip(changes, heard, strict=True)),
    }


def _by_wish(delays: dict[_Change, float]) -> dict[str, Any]:
    """Going down is a verb at once; going up writes its intent first, so that a crash finds it."""
    return {
        "all": _ms(delays.values()),
        "to Paused": _ms(d for c, d in delays.items() if c.wish == "Paused"),
        "to Running": _ms(d for c, d in delays.items() if c.wish == "Running"),
    }


def _ms(seconds: Any) -> dict[str, float]:
    return spread([value * 1000 for value in seconds])
