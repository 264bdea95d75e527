"""``python -m tests.bench [--quick] [--only NAME] [--json FILE]``: a table for people on stderr and stdout, one JSON.

It starts a control plane of its own in a temporary directory and leaves nothing behind. Exits with 1 only when
something did not work; a figure that misses its aim is a figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from tests.bench import delegations, ec2, latency, memory, pods, sweep, throughput, writes
from tests.bench.api import DELEGATIONS, WORKSPACES
from tests.bench.lab import Lab, kill_workloads, laboratory
from tests.bench.table import table

from controlplane.cluster import LocalCluster

BENCHES: dict[str, Callable[[Lab], Awaitable[dict[str, Any]]]] = {
    "latency": latency.run,
    "throughput": throughput.run,
    "writes": writes.run,
    "memory": memory.run,
    "sweep": sweep.run,
    "delegations": delegations.run,
    "ec2": ec2.run,
    "pods": pods.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: a check that it works, no measurement")
    parser.add_argument("--only", choices=tuple(BENCHES), action="append", help="may be given several times")
    parser.add_argument("--json", type=Path, help="write the JSON document here instead of to standard output")
    parser.add_argument("--profile", type=Path, help="profile the operators with cProfile into FILE.N.pstats")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="workspace-bench-") as temporary:
        directory = Path(temporary)
        cluster = LocalCluster(directory / "cluster", "127.0.0.1", say=_say)
        try:
            cluster.start()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                document, failed = runner.run(_all(directory, cluster, arguments))
        finally:
            kill_workloads(directory)
            cluster.stop()
    text = json.dumps(document, indent=2)
    sys.stdout.write(table(document))
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    else:
        sys.stdout.write(text + "\n")
    return 1 if failed else 0


async def _all(directory: Path, cluster: LocalCluster, arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    document: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "quick": arguments.quick,
        "profiled": arguments.profile is not None,
    }
    failed = False
    async with laboratory(directory, cluster, arguments.quick, arguments.profile) as lab:
        for name in arguments.only or BENCHES:
            _say(f"{name} …")
            begin = time.monotonic()
            try:
                document[name] = await BENCHES[name](lab)
                document[name]["took_seconds"] = round(time.monotonic() - begin)
            except Exception as error:
                traceback.print_exc()
                document[name] = {"error": str(error)}
                failed = True
                for path in (DELEGATIONS, WORKSPACES):
                    await lab.clear(path, by_hand=True)
    document["machine"]["load_after"] = os.getloadavg()[0]
    return document, failed


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
