"""The orphan sweeper: what a sweep costs with ever more instances, and how long a leak lives on every backend.

Sizes: the real sweeper and client against the real API server, which holds as many Workspaces as the backend shows
instances; the backend is a list in memory, so the time is the sweeper's and the API server's. Leaks: the real drivers
on real processes, a real Docker engine and moto's server; instances are made at random moments, and each is timed until
its backend no longer shows it.
"""

from __future__ import annotations

import asyncio
import random
import time
import tracemalloc
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from tests.bench.api import NAMESPACE, WORKSPACES, workspace
from tests.bench.lab import Lab, each, median, spread
from tests.support.sweeps import Sweeps

from workspace_operator.api.states import Reading
from workspace_operator.backends.protocol import Backend, Instance, Progress, StopRequest, WorkspaceRef
from workspace_operator.kube.client import PAGE, KubeClient, read_cluster_id

INTERVAL, GRACE, STOP_GRACE = 5, 3, 1  # seconds
CLASS = "swept"


async def run(lab: Lab) -> dict[str, Any]:
    sizes, orphans, leaks = ((200, 600), 10, 4) if lab.quick else ((1000, 10_000), 100, 20)
    result: dict[str, Any] = {"orphans": orphans, "sizes": [], "leaks": {}, "leaks_each": leaks}
    made = 0
    for size in sizes:
        names = [f"held-{number:05}" for number in range(made, size)]
        await each(names, lambda name: lab.api.call("POST", WORKSPACES, workspace(name, CLASS)))
        made = size
        result["sizes"].append(await _measure(lab, size, orphans))
        lab.say(str(result["sizes"][-1]))
    await lab.clear(by_hand=True)
    result["bound_seconds"] = INTERVAL + GRACE
    result["stop_grace_seconds"] = STOP_GRACE
    async for name, lived in _leaks(lab, leaks):
        result["leaks"][name] = spread(lived)
        lab.say(f"{name}: a leak lived {result['leaks'][name]} s")
    return result


# -- what a sweep costs ------------------------------------------------------------------------------------------------


class Held:
    """Shows what it holds; a stop is over at once."""

    capabilities: frozenset[Any] = frozenset()

    def __init__(self, refs: list[WorkspaceRef]) -> None:
        self.calls: Counter[str] = Counter()
        self.instances = {ref.uid: Instance(ref, 1, Reading.RUNNING, ref.uid) for ref in refs}

    async def list_owned(self) -> tuple[Instance, ...]:
        self.calls["list"] += 1
        return tuple(self.instances.values())

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        self.calls["stop"] += 1
        self.instances.pop(request.ref.uid, None)
        return ()


@asynccontextmanager
async def _client(kubeconfig: Path) -> AsyncIterator[tuple[KubeClient, Counter[str]]]:
    """The operator's own client, with its requests counted."""
    configuration = Configuration()
    await kube_config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    client, counts = KubeClient(configuration), Counter[str]()
    ask = client._request

    async def counted(method: str, url: str, *rest: Any) -> Any:
        counts["page" if "limit=" in url else f"{method}"] += 1
        return await ask(method, url, *rest)

    client._request = counted  # type: ignore[method-assign]
    yield client, counts
    await client.close()


async def _measure(lab: Lab, size: int, orphans: int) -> dict[str, Any]:
    async with _client(lab.cluster.kubeconfig) as (client, counts):
        cluster = await read_cluster_id(client)
        refs = [
            WorkspaceRef(cluster, body["metadata"]["uid"], "bench", body["metadata"]["name"], CLASS)
            for body in (await lab.api.call("GET", WORKSPACES))["items"]
        ]
        backend = Held(refs)
        settings = {"gracePeriod": "0s", "maxPercent": 100, "maxPerMinute": 6000}
        sweeps = Sweeps(backend, cluster, CLASS, client=client, **settings)  # type: ignore[arg-type]
        seconds, cpu, bare = await _rounds(lab, sweeps)
        peak = await _peak(sweeps)
        for _ in range(orphans):
            lost = WorkspaceRef(cluster, str(uuid.uuid4()), "bench", "lost", CLASS)
            backend.instances[lost.uid] = Instance(lost, 1, Reading.RUNNING, lost.uid)
        await sweeps.sweep()
        backend.calls.clear()
        counts.clear()
        await sweeps.sweep()
        left = len(backend.instances) - size
        return {
            "instances": size,
            "seconds": median(seconds),
            "cpu_seconds": round(fmean(cpu), 3),  # the mean: one in three small sweeps pays for a garbage collection
            "bare_list_seconds": median(bare),
            "rounds": {"seconds": _rounded(seconds), "cpu_seconds": _rounded(cpu), "bare_list_seconds": _rounded(bare)},
            "peak_mb": peak,
            "removing": {"backend": dict(backend.calls), "api": dict(counts), "left": left},
            "pages_aimed": -(-size // PAGE),
        }


async def _rounds(lab: Lab, sweeps: Sweeps) -> tuple[list[float], list[float], list[float]]:
    """Sweeps and bare listings in turn: seconds of a sweep, its CPU seconds in this process, seconds of a listing."""
    seconds, cpu, bare = [], [], []
    for _ in range(3 if lab.quick else 9):
        await _stir(lab)
        begun = time.perf_counter()
        await _bare(lab)
        bare.append(time.perf_counter() - begun)
        await _stir(lab)
        begun, used = time.perf_counter(), time.process_time()
        assert (await sweeps.sweep()).status.orphans == 0
        seconds.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    return seconds, cpu, bare


async def _stir(lab: Lab) -> None:
    """Write something that is no Workspace, as somebody always does on a live cluster.

    As long as a Workspace was the last thing written, the API server (v1.36) has the second page and later ones from
    its watch cache, about 15 ms each; after any other write it reads each from etcd and decodes it, about 100 ms. The
    sizes and the bare listing can only be compared in one of the two states, and this is the usual one.
    """
    await lab.api.call("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", {"metadata": {"generateName": "stir-"}})


async def _bare(lab: Lab) -> None:
    """The same pages by a bare client, as the least that anybody could do."""
    token = ""
    while True:
        page = await lab.api.call("GET", f"{WORKSPACES}?limit={PAGE}&continue={token}")
        token = page["metadata"].get("continue", "")
        if not token:
            return


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 3) for value in values]


async def _peak(sweeps: Sweeps) -> float:
    tracemalloc.start()
    await sweeps.sweep()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(peak / 1e6, 1)


# -- how long a leak lives ---------------------------------------------------------------------------------------------


class _Config:
    """What the rigs ask of pytest's configuration."""

    def __init__(self, stack: ExitStack) -> None:
        self.add_cleanup = stack.callback


class _Request:
    """What the rigs ask of a pytest request."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.config, self._stack, self._directory = _Config(stack), stack, directory

    def getfixturevalue(self, name: str) -> Any:
        from controlplane.engine import DockerEngine

        assert name == "engine"
        return self._stack.enter_context(DockerEngine(self._directory / "engine", always_private=True))


async def _leaks(lab: Lab, number: int) -> AsyncIterator[tuple[str, list[float]]]:
    from tests.backends.ec2_rig import Ec2Rig
    from tests.conformance.rigs import DockerRig, ProcessRig

    for kind in (ProcessRig, DockerRig, Ec2Rig):
        with ExitStack() as stack:
            (directory := lab.directory / f"leaks-{kind.name}").mkdir()
            rig = kind(_Request(stack, directory), directory)  # type: ignore[arg-type]
            try:
                yield kind.name, await _lived(rig, number)
            finally:
                await rig.clean()


async def _lived(rig: Any, number: int) -> list[float]:
    backend: Backend = await rig.make()
    sweep = {"interval": f"{INTERVAL}s", "gracePeriod": f"{GRACE}s", "maxPercent": 100, "maxPerMinute": 6000}
    more = {"observeInterval": "1s", "stopGracePeriod": f"{STOP_GRACE}s"}
    sweeps = Sweeps(backend, rig.cluster, "conformance", more=more, **sweep)
    sweeping = asyncio.create_task(_sweeping(sweeps))
    try:
        async with asyncio.TaskGroup() as group:
            lives = [group.create_task(_life(rig, backend)) for _ in range(number)]
        return [life.result() for life in lives]
    finally:
        sweeping.cancel()


async def _sweeping(sweeps: Sweeps) -> None:
    """As the kopf timer does."""
    while True:
        if sweeps.sweeper.is_due(sweeps.name):
            await sweeps.sweeper(sweeps.name)
        await asyncio.sleep(0.2)


async def _life(rig: Any, backend: Backend) -> float:
    """Leak one instance at a random moment; returns how long it was seen, in seconds."""
    await asyncio.sleep(random.uniform(0, 3 * INTERVAL))
    request = rig.provision(rig.ref())
    begun = time.monotonic()
    while isinstance(await backend.provision(request), Progress):
        await asyncio.sleep(0.2)
    while await backend.observe(request.ref):
        await asyncio.sleep(0.1)
    return time.monotonic() - begun


def rows(part: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """For the table."""
    found = []
    for one in part["sizes"]:
        bare = f"bare paged list {one['bare_list_seconds']} s"
        found.append(
            (f"a sweep over {one['instances']} instances", f"{one['seconds']} s, {one['peak_mb']} MB", bare, "")
        )
        calls = one["removing"]
        aim = f"1 list + {part['orphans']}; {one['pages_aimed']} pages"
        measured = f"{calls['backend']['list']} list + {calls['backend']['stop']} stops; {calls['api']['page']} pages"
        found.append(
            (f"  calls when {part['orphans']} are orphans", measured, f"{calls['api'].get('GET', 0)} reads", aim)
        )
    small, large = part["sizes"][0], part["sizes"][-1]
    what, aim = f"growth from {small['instances']} to {large['instances']}", large["instances"] / small["instances"]
    grew = {key: f"× {large[key] / small[key]:.1f}" for key in ("seconds", "cpu_seconds", "bare_list_seconds")}
    own = f"own CPU {grew['cpu_seconds']} to {large['cpu_seconds']} s"
    found.append((f"  {what}", f"{grew['seconds']}, {own}", f"bare {grew['bare_list_seconds']}", f"≤ × {aim:g}"))
    bound = f"{part['bound_seconds']} s + its stop ({part['stop_grace_seconds']} s grace)"
    for name, lived in part["leaks"].items():
        what = f"a leak lived, {name}, p50 / max of {part['leaks_each']}"
        found.append((what, f"{lived['p50']} / {lived['max']} s", "", bound))
    return found
