"""API writes from apply to Ready, and what a fleet at rest costs: counted by the API server and the backend."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import Any

from tests.bench.api import APPLY, CLASSES, WORKSPACES, Eye, each, workspace, workspace_class
from tests.bench.lab import Lab, Subject

AIM = {"writes_on_workspace": 3, "steady_writes": 0}
_INTERVAL = 5.0


async def run(lab: Lab) -> dict[str, Any]:
    number, seconds = (50, 15.0) if lab.quick else (200, 60.0)
    result: dict[str, Any] = {"workspaces": number, "aim": AIM}
    for mode in ("None", "Token"):
        class_ = f"counted-{mode.lower()}"
        body = workspace_class(class_, lab.directory / "none", mode, f"{_INTERVAL:.0f}s")
        await lab.api.call("POST", CLASSES, body)
        names = [f"wsp-{i:04}" for i in range(number)]
        async with lab.operator("noop", class_) as operator, Eye(lab.api) as eye:
            before = await lab.writes()
            await each(names, partial(_apply, lab, class_))
            await lab.all_ready(eye, names)
            await asyncio.sleep(6)
            result[f"identity {mode}"] = _to_ready(await lab.writes() - before, number)
            if mode == "None":
                result["at rest"] = await _rest(lab, eye, operator, seconds, ())
                result["re-applied every second"] = await _rest(lab, eye, operator, seconds, names)
            await lab.clear()
    lab.say(f"writes on a workspace: {result['identity None']['writes_on_workspace']}")
    return result


async def _apply(lab: Lab, class_: str, name: str) -> None:
    """Server-side apply, as ``kubectl apply --server-side`` sends it; counted as APPLY, so never taken for ours."""
    path = f"{WORKSPACES}/{name}?fieldManager=bench&force=true"
    await lab.api.call("PATCH", path, workspace(name, class_), APPLY)


def _to_ready(written: Counter[str], number: int) -> dict[str, Any]:
    on_workspace = {w: c for w, c in written.items() if " workspaces" in w and not w.startswith("APPLY")}
    identity = ("secrets", "serviceaccounts", "serviceaccounts/token", "roles", "rolebindings")
    other = {w: c for w, c in written.items() if w.partition(" ")[2] in identity}
    return {
        "writes_on_workspace": round(sum(on_workspace.values()) / number, 3),
        "on_workspace": {what: round(count / number, 3) for what, count in sorted(on_workspace.items())},
        "events": round(written["POST events"] / number, 3),
        "identity": {what: round(count / number, 3) for what, count in sorted(other.items())},
        "leases_created": round(written["POST leases"] / number, 3),
        "class_status_writes_in_all": written["PATCH workspaceclasses/status"],
    }


async def _rest(lab: Lab, eye: Eye, operator: Subject, seconds: float, reapply: Any) -> dict[str, Any]:
    class_ = "counted-none"
    versions = {name: body["metadata"]["resourceVersion"] for name, body in eye.objects.items()}
    writes, calls, cpu = await lab.writes(), await operator.counts(), operator.cpu
    begin, rounds = time.monotonic(), 0
    while (passed := time.monotonic() - begin) < seconds:
        if reapply:
            await each(reapply, partial(_apply, lab, class_))
            rounds += 1
        await asyncio.sleep(max(0.0, min(begin + passed + 1 - time.monotonic(), begin + seconds - time.monotonic())))
    written = await lab.writes() - writes
    return {
        "seconds": round(time.monotonic() - begin),
        "rounds": rounds,
        "writes_on_workspaces": sum(c for w, c in written.items() if " workspaces" in w and not w.startswith("APPLY")),
        "objects_changed": sum(
            body["metadata"]["resourceVersion"] != versions.get(name) for name, body in eye.objects.items()
        ),
        "all_writes": {what: count for what, count in sorted(written.items()) if not what.startswith("APPLY")},
        "backend_calls": dict(await operator.counts() - calls),
        "operator_cpu_percent": round((operator.cpu - cpu) / (time.monotonic() - begin) * 100, 2),
    }
