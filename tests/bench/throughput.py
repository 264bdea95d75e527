"""Workspaces per second from apply to Ready on a backend that does nothing, beside the bare API writes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.bench.api import (
    CLASSES,
    IN_FLIGHT,
    MERGE,
    NAMESPACE,
    WORKSPACES,
    Eye,
    Object,
    each,
    workspace,
    workspace_class,
)
from tests.bench.lab import Lab, median

from workspace_operator.api.workspace import Workspace
from workspace_operator.kube.identity import _objects as identity_objects

_REPEATS = 2


async def run(lab: Lab) -> dict[str, Any]:
    number, repeats = (200, 1) if lab.quick else (1000, _REPEATS)
    sizes = {"None": (number, repeats), "Token": (number // 4, 1)}  # an identity takes six more writes each
    result: dict[str, Any] = {"workspaces": number, "in_flight": IN_FLIGHT}
    for mode in ("None", "Token"):
        class_ = f"noop-{mode.lower()}"
        await lab.api.call("POST", CLASSES, workspace_class(class_, lab.directory / "none", identity=mode))
        sample = await _sample(lab, class_)
        await _floor(lab, 50, sample, mode)  # the API server gets warm
        floors, ours = [], []
        number, repeats = sizes[mode]
        for _ in range(repeats):
            floors.append(await _floor(lab, number, sample, mode))
            ours.append(await _ours(lab, number, class_))
        result[f"identity {mode}"] = _summary(floors, ours)
    return result


def _summary(floors: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: median([one[key] for one in ours]) for key in ours[0]}
    floor = median([one["per_second"] for one in floors])
    return {
        "floor_per_second": floor,
        "floor_with_event_per_second": median([one["with_event_per_second"] for one in floors]),
        "share_of_floor": round(medians["per_second"] / floor, 3),
        **medians,
        "floor_server_cpu_ms_per_workspace": median([one["server_cpu_ms_per_workspace"] for one in floors]),
        "floor_runs": [round(one["per_second"], 1) for one in floors],
        "runs": [round(one["per_second"], 1) for one in ours],
    }


async def _sample(lab: Lab, class_: str) -> Object:
    """One finished workspace of the operator's: the floor writes statuses of the same size."""
    async with lab.operator("noop", class_), Eye(lab.api) as eye:
        await lab.create(["sample"], class_)
        await lab.all_ready(eye, ["sample"])
        sample = eye.objects["sample"]
        await lab.clear()
    return sample


async def _floor(lab: Lab, number: int, sample: Object, mode: str) -> dict[str, float]:
    """The same writes by a bare loop: object, finalizer, intent and result; identity objects and a token if asked."""
    intent = {**sample["status"], "phase": "Starting"}
    seconds, cpu = [], []
    for event in (False, True):

        async def one(name: str, event: bool = event) -> None:
            made = await lab.api.call("POST", WORKSPACES, workspace(name, "floor"))
            url, version = f"{WORKSPACES}/{name}", made["metadata"]["resourceVersion"]
            patch: Object = {"metadata": {"resourceVersion": version, "finalizers": ["bench.local/floor"]}}
            made = await lab.api.call("PATCH", url, patch, MERGE)
            if mode == "Token":
                await _identity(lab, made)
            for status in (intent, sample["status"]):
                patch = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "status": status}
                made = await lab.api.call("PATCH", f"{url}/status", patch, MERGE)
            if event:
                await lab.api.call("POST", f"/api/v1/namespaces/{NAMESPACE}/events", _event(made))

        server, begin = lab.server_cpu(), time.monotonic()
        await each([f"floor{int(event)}-{i:04}" for i in range(number)], one)
        seconds.append(time.monotonic() - begin)
        cpu.append(lab.server_cpu() - server)
        await lab.clear(by_hand=True)
    result = {"per_second": number / seconds[0], "with_event_per_second": number / seconds[1]}
    result["server_cpu_ms_per_workspace"] = cpu[0] / number * 1e3
    lab.say(f"floor ({mode}): {result['per_second']:.0f}/s, with an Event each {result['with_event_per_second']:.0f}/s")
    return result


async def _identity(lab: Lab, body: Object) -> None:
    objects = identity_objects(Workspace.model_validate(body))
    made = await asyncio.gather(*(lab.api.call("POST", url, content) for url, content in objects))
    name = made[0]["metadata"]["name"]
    bound = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": made[0]["metadata"]["uid"]}
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600, "boundObjectRef": bound},
    }
    await lab.api.call("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}/token", request)


def _event(body: Object) -> Object:
    metadata = body["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{metadata['uid'][:8]}", "namespace": NAMESPACE},
        "involvedObject": {"kind": "Workspace", "name": metadata["name"], "namespace": NAMESPACE},
        "type": "Normal",
        "reason": "Running",
        "message": "Running and serving.",
        "source": {"component": "bench"},
    }


async def _ours(lab: Lab, number: int, class_: str) -> dict[str, float]:
    names = [f"wsp-{i:04}" for i in range(number)]
    async with lab.operator("noop", class_) as operator, Eye(lab.api) as eye:
        server = lab.server_cpu()
        writes, cpu, passes = await lab.writes(), operator.cpu, await lab.operator_metric(operator, _PASSES)
        begin = time.monotonic()
        await lab.create(names, class_)
        posted = time.monotonic() - begin
        await lab.all_ready(eye, names)
        took = max(eye.ready_at[name] for name in names) - begin
        at_ready, server = operator.cpu - cpu, lab.server_cpu() - server
        conflicts = await lab.operator_metric(operator, r'workspace_operator_kube_requests_total\{code="409"')
        await asyncio.sleep(3)  # Events and class counts are still on their way
        passes = await lab.operator_metric(operator, _PASSES) - passes
        written = await lab.writes() - writes
        own = sum(count for what, count in written.items() if " workspaces" in what) - number
        result = {
            "per_second": number / took,
            "posting_seconds": posted,
            "operator_cpu_ms_per_workspace": at_ready / number * 1e3,
            "server_cpu_ms_per_workspace": server / number * 1e3,
            "passes_per_workspace": passes / number,
            "conflicts": conflicts,
            "writes_on_workspace": own / number,
            "deletions_per_second": number / await lab.clear(),
        }
    lab.say(f"ours: {result['per_second']:.0f}/s, {result['operator_cpu_ms_per_workspace']:.2f} ms CPU each; {result}")
    return result


_PASSES = r'workspace_operator_pass_seconds_count\{.*resource="workspace"'
