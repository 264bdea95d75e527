"""Workspaces on the kubernetes backend beside bare pods made by a loop, and what the operator needs at rest.

The scheduler is the real one, and the nodes are kwok's: a pod that is placed runs at once, and nothing executes. This
measures the operator, the API server and the scheduler, and no node.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from tests.bench.api import CLASSES, NAMESPACE, WORKSPACES, Eye, Object, each, workspace_class
from tests.bench.lab import Lab, Subject

from controlplane.fakenodes import SELECTOR, TOLERATION, FakeNodes

CLASS, IMAGE = "pods", "sleep"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_NODES = 5
_REST = 30.0  # seconds of rest that are measured
_ANYWAY = ("leases", "workspaceclasses/status", "endpointslices", "nodes/status", "pods/status", "pods/binding")


async def run(lab: Lab) -> dict[str, Any]:
    number = 60 if lab.quick else 300
    nodes = FakeNodes(lab.cluster, _NODES, say=lab.say)
    await asyncio.to_thread(nodes.start)
    try:
        result: dict[str, Any] = {"workspaces": number}
        for mode in ("None", "Token"):
            class_ = f"{CLASS}-{mode.lower()}"
            await lab.api.call("POST", CLASSES, _class(lab, class_, mode))
            result[f"identity {mode}"] = await _beside_bare_pods(lab, number, class_)
            lab.say(f"identity {mode}: {result[f'identity {mode}']}")
        result["at rest"] = await _at_rest(lab, (0, 100, 200) if lab.quick else (0, 500, 2000))
    finally:
        await asyncio.to_thread(nodes.stop)
    return result


def _class(lab: Lab, name: str, identity: str) -> Object:
    body = workspace_class(name, lab.directory / "none", identity=identity)
    del body["spec"]["process"]
    body["spec"]["kubernetes"] = {"nodeSelector": SELECTOR, "tolerations": [TOLERATION], "imagePullPolicy": "Never"}
    return body


# -- (a) beside bare pods ----------------------------------------------------------------------------------------------


async def _beside_bare_pods(lab: Lab, number: int, class_: str) -> dict[str, Any]:
    """Floors before and after, because the API server and the machine change meanwhile."""
    async with lab.operator("own", class_) as operator:
        sample = await _sample(lab, class_)
        floors = [await _floor(lab, number, sample)]
        ours = await _ours(lab, operator, number, class_)
        floors.append(await _floor(lab, number, sample))
    floor = sum(floors) / len(floors)
    return {
        **ours,
        "bare_pods_per_second": round(floor, 1),
        "floors": [round(one, 1) for one in floors],
        "ratio": round(ours["per_second"] / floor, 3),
    }


async def _sample(lab: Lab, class_: str) -> Object:
    """A pod of the operator's, as it would be written by hand: the bare ones are of the same size."""
    async with Eye(lab.api) as eye:
        await lab.create(["sample"], class_)
        await lab.all_ready(eye, ["sample"])
        pods = (await lab.api.call("GET", PODS))["items"]
        await _clear(lab)
    spec = {k: v for k, v in pods[0]["spec"].items() if k not in ("nodeName", "schedulingGates", "volumes")}
    for container in spec["containers"]:
        container.pop("envFrom", None)
        container.pop("volumeMounts", None)
    spec["serviceAccountName"] = spec["serviceAccount"] = "default"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"bench": "bare"}}, "spec": spec}


async def _floor(lab: Lab, number: int, sample: Object) -> float:
    """The same number of bare pods per second, created by a loop, until the last one runs."""
    names = [f"bare-{n:04}" for n in range(number)]

    async def one(name: str) -> None:
        await lab.api.call("POST", PODS, {**sample, "metadata": {**sample["metadata"], "name": name}})

    async with Eye(lab.api, PODS, lambda body: body["status"].get("phase") == "Running") as eye:
        begin = time.monotonic()
        await each(names, one)
        await lab.all_ready(eye, names)
        took = max(eye.ready_at[name] for name in names) - begin
    await lab.api.call("DELETE", f"{PODS}?labelSelector=bench%3Dbare")
    await _gone(lab, PODS)
    return number / took


async def _ours(lab: Lab, operator: Subject, number: int, class_: str) -> dict[str, Any]:
    names = [f"wsp-{n:04}" for n in range(number)]
    async with Eye(lab.api) as eye:
        before, cpu, server = await lab.writes(), operator.cpu, lab.server_cpu()
        begin = time.monotonic()
        await lab.create(names, class_)
        await lab.all_ready(eye, names)
        took = max(eye.ready_at[name] for name in names) - begin
        cpu, server = operator.cpu - cpu, lab.server_cpu() - server
        await asyncio.sleep(3)  # Events and the class's counts are still on their way
        written = await lab.writes() - before
    cleared = await _clear(lab)
    return {
        "per_second": round(number / took, 1),
        "operator_cpu_ms_each": round(cpu / number * 1e3, 2),
        "server_cpu_ms_each": round(server / number * 1e3, 2),
        "writes": _writes_each(written, number),
        "deletions_per_second": round(number / cleared, 1),
    }


def _writes_each(written: Counter[str], number: int) -> dict[str, Any]:
    """Per workspace; without what other components write of pods and nodes, and what is written anyway."""
    each_ = {
        what: round(n / number, 2)
        for what, n in sorted(written.items())
        if what.split(" ")[1] not in _ANYWAY and n / number >= 0.01
    }
    creation, events = each_.pop("POST workspaces", 0.0), each_.pop("POST events", 0.0)
    return {"creation": creation, "events": events, "operator": round(sum(each_.values()), 2), "by": each_}


# -- (b) at rest -------------------------------------------------------------------------------------------------------


async def _at_rest(lab: Lab, numbers: tuple[int, ...]) -> list[dict[str, float]]:
    class_, found, there = f"{CLASS}-none", [], 0
    async with lab.operator("own", class_) as operator, Eye(lab.api) as eye:
        for number in numbers:
            names = [f"rest-{n:04}" for n in range(there, number)]
            begin, cpu = time.monotonic(), operator.cpu
            await lab.create(names, class_)
            await lab.all_ready(eye, names, 600)
            starting = (operator.cpu - cpu) / (time.monotonic() - begin) if names else 0.0
            there = number
            await asyncio.sleep(12)  # kopf's idle workers end after 5 s
            await operator.counts()  # collects garbage on its side
            begin, cpu = time.monotonic(), operator.cpu
            await asyncio.sleep(_REST)
            found.append(
                {
                    "workspaces": number,
                    "rss_mb": round(operator.memory()["Rss"] / 1e6, 1),
                    "cpu_cores": round((operator.cpu - cpu) / (time.monotonic() - begin), 4),
                    "cpu_cores_while_starting": round(starting, 3),
                }
            )
            lab.say(f"at rest: {found[-1]}")
        await _clear(lab)
    return found


# -- parts -------------------------------------------------------------------------------------------------------------


async def _clear(lab: Lab) -> float:
    took = await lab.clear(WORKSPACES)
    await _gone(lab, PODS)
    return took


async def _gone(lab: Lab, path: str) -> None:
    async with asyncio.timeout(300):
        while (await lab.api.call("GET", f"{path}?limit=1"))["items"]:
            await asyncio.sleep(0.2)


# -- the table ---------------------------------------------------------------------------------------------------------


def rows(part: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """For the table."""
    found = [("nodes are kwok's: a pod that is placed runs at once, and nothing executes", "", "", "")]
    for mode in ("None", "Token"):
        one = part[f"identity {mode}"]
        beside = f"bare pods {one['bare_pods_per_second']}/s ({one['ratio']:.0%})"
        found.append(
            (f"{part['workspaces']} workspaces → Ready, identity {mode}", f"{one['per_second']}/s", beside, "")
        )
        cpu = f"{one['operator_cpu_ms_each']} ms operator, {one['server_cpu_ms_each']} ms API server and etcd"
        found.append(("  CPU each", cpu, "", ""))
        writes = one["writes"]
        beside = ", ".join(f"{n:g} {what}" for what, n in writes["by"].items())
        found.append(("  the operator's API writes each", f"{writes['operator']:g}", beside, ""))
    for one in part["at rest"]:
        measured = f"{one['rss_mb']} MB, {one['cpu_cores'] * 1e3:.0f} millicores"
        beside = f"while they start {one['cpu_cores_while_starting'] * 1e3:.0f} millicores" if one["workspaces"] else ""
        found.append((f"operator with {one['workspaces']:.0f} pods at rest (RSS, CPU)", measured, beside, ""))
    return found
