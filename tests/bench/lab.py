"""The laboratory: a control plane, the processes under measurement, and the instruments."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.api import MERGE, NAMESPACE, WORKSPACES, Api, ApiError, Eye, each, ready, workspace

from controlplane.cluster import LocalCluster

ROOT = Path(__file__).resolve().parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")
_PATHS = ("operator", "deploy/local", ".")


@dataclass
class Subject:
    """A process under measurement."""

    process: asyncio.subprocess.Process
    log: Path
    counts_file: Path
    stamps_file: Path

    @property
    def cpu(self) -> float:
        """CPU seconds used so far, all threads."""
        return cpu_of(self.process.pid)

    def memory(self) -> dict[str, int]:
        """Resident and proportional memory in bytes."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return {name: int(re.search(rf"^{name}: +(\d+)", text, re.M)[1]) * 1024 for name in ("Rss", "Pss")}  # type: ignore[index]

    async def counts(self) -> Counter[str]:
        """Collect its garbage and ask for its counts."""
        self.counts_file.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        for _ in range(400):
            if self.counts_file.exists():
                return Counter(json.loads(self.counts_file.read_text()))
            await asyncio.sleep(0.05)
        raise RuntimeError(f"the process does not answer; see {self.log}")

    def stamps(self) -> list[dict[str, Any]]:
        text = self.stamps_file.read_text() if self.stamps_file.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def alive(self) -> bool:
        return self.process.returncode is None

    async def end(self) -> None:
        if self.alive():
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 40)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


@dataclass
class Lab:
    """What a benchmark works with."""

    directory: Path
    cluster: LocalCluster
    api: Api
    quick: bool
    profile: Path | None = None
    _made: int = 0
    notes: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    @asynccontextmanager
    async def subject(self, module: str, *arguments: str) -> AsyncIterator[Subject]:
        """A Python process of ours, from start to end."""
        self._made += 1
        base = self.directory / f"{module.replace('.', '-')}-{self._made}"
        log, counts, stamps = (base.with_suffix(s) for s in (".log", ".counts", ".stamps"))
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "PYTHONPATH": os.environ.get("PYTHONPATH") or os.pathsep.join(str(ROOT / p) for p in _PATHS),
        }
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        files = ("--counts", str(counts), "--stamps", str(stamps))
        command = (sys.executable, "-m", f"tests.bench.{module}", *files, *arguments)
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        subject = Subject(process, log, counts, stamps)
        try:
            yield subject
            if not subject.alive():
                raise RuntimeError(f"{module} ended early:\n{log.read_text()[-3000:]}")
        finally:
            await subject.end()

    @asynccontextmanager
    async def operator(self, driver: str, class_: str, *arguments: str) -> AsyncIterator[Subject]:
        """The operator, leading and warmed up: one workspace went all the way to Ready and was deleted."""
        log_level = os.environ.get("BENCH_LOG_LEVEL", "INFO")
        fixed: tuple[str, ...] = (
            "--driver",
            driver,
            "--listen-host",
            "127.0.0.1",
            "--listen-port",
            "0",
            "--log-level",
            log_level,
        )
        if self.profile is not None:
            fixed += ("--profile", str(self.profile.with_suffix(f".{self._made}.pstats")))
        async with self.subject("operator_main", *fixed, *arguments) as subject, Eye(self.api) as eye:
            await self.api.call("POST", WORKSPACES, workspace("warm-up", class_))
            await eye.until(lambda seen: "warm-up" in seen and ready(seen["warm-up"]), 60, f"a start; {subject.log}")
            await self.api.call("DELETE", f"{WORKSPACES}/warm-up")
            await eye.until(lambda seen: "warm-up" not in seen, 60, f"a deletion; {subject.log}")
            yield subject

    def server_cpu(self) -> float:
        """CPU seconds used so far by the API server and its store."""
        return sum(cpu_of(self.cluster.processes[name].pid) for name in ("kube-apiserver", "etcd"))

    async def create(self, names: Sequence[str], class_: str, **spec: Any) -> None:
        await each(names, lambda name: self.api.call("POST", WORKSPACES, workspace(name, class_, **spec)))

    async def all_ready(self, eye: Eye, names: Sequence[str], seconds: float = 300) -> None:
        wanted = set(names)

        def test(_: dict[str, Any]) -> bool:
            return len(eye.ready_at) >= len(wanted) and wanted <= eye.ready_at.keys()

        await eye.until(test, seconds, f"{len(names)} workspaces Ready")

    async def clear(self, path: str = WORKSPACES, *, by_hand: bool = False) -> float:
        """Delete all workspaces, or all of ``path``; ``by_hand`` takes finalizers off, for when no operator runs.

        Returns the seconds.
        """
        begin = time.monotonic()

        async def free(item: dict[str, Any]) -> None:
            with suppress(ApiError):
                url = f"{path}/{item['metadata']['name']}"
                await self.api.call("PATCH", url, {"metadata": {"finalizers": None}}, MERGE)

        if by_hand:
            await each((await self.api.call("GET", path))["items"], free)
        await self.api.call("DELETE", path)
        while (await self.api.call("GET", f"{path}?limit=1"))["items"]:
            if time.monotonic() - begin > 300:
                raise RuntimeError(f"{path.rpartition('/')[2]} were not deleted within 300 s")
            await asyncio.sleep(0.2)
        return time.monotonic() - begin

    async def writes(self) -> Counter[str]:
        """Successful writes that the API server has answered so far, as ``VERB resource[/subresource]``."""
        counts: Counter[str] = Counter()
        for line in (await self.api.text("/metrics")).splitlines():
            if not line.startswith("apiserver_request_total{"):
                continue
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if labels["verb"] in ("POST", "PUT", "PATCH", "APPLY", "DELETE") and labels["code"] < "300":
                resource = "/".join(filter(None, (labels["resource"], labels["subresource"])))
                counts[f"{labels['verb']} {resource}"] += int(float(line.rpartition(" ")[2]))
        return counts

    async def operator_metric(self, subject: Subject, pattern: str) -> float:
        """Sum of the operator's own metric samples that match a regular expression."""
        address = re.search(r"health and metrics on (http\S+)", subject.log.read_text())
        assert address is not None
        import aiohttp

        async with aiohttp.ClientSession() as session, session.get(f"{address[1]}/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(pattern, line))


@asynccontextmanager
async def laboratory(directory: Path, cluster: LocalCluster, quick: bool, profile: Path | None) -> AsyncIterator[Lab]:
    """A lab on a running cluster: the CRDs, a namespace, a client."""
    cluster.kubectl("apply", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"), "--timeout=60s")
    cluster.kubectl("create", "namespace", NAMESPACE)
    async with Api(cluster.kubeconfig) as api:
        yield Lab(directory, cluster, api, quick, profile)


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def spread(values: Sequence[float]) -> dict[str, float]:
    """Percentiles in the unit of the values."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": round(ordered[-1], 2), "n": len(ordered)}


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


def kill_workloads(directory: Path) -> int:
    """End the processes that process-backed workspaces left under this directory of ours; returns how many."""
    mark = f"WORKSPACE_STATE={directory}/".encode()
    ended = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
                    ended += 1
    return ended
