"""The baseline: kopf with one ``on.event`` handler and nothing else, on uvloop and one bounded pool of connections.

It notes when each generation of a workspace was first seen (``--stamps``) and keeps the newest raw body of each in a
dict, with its key in a queue, as the smallest thing one could call an informer.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import uvloop
from tests.bench.operator_main import die_with_parent

GROUP = "workspace-operator.dev"


def main() -> None:
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--counts", type=Path, required=True)
    arguments = parser.parse_args()
    file = os.open(arguments.stamps, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    bodies: dict[str, Any] = {}
    generations: dict[str, int] = {}
    queue: asyncio.Queue[str] = asyncio.Queue()
    registry = kopf.OperatorRegistry()

    def dump() -> None:
        gc.collect()
        part = arguments.counts.with_suffix(".part")
        part.write_text(json.dumps({"objects": len(bodies)}))
        part.replace(arguments.counts)

    @kopf.on.event(GROUP, "v1alpha1", "workspaces", registry=registry)
    def seen(event: kopf.RawEvent, **_: Any) -> None:
        at = time.monotonic()
        body: Any = event["object"]
        name, generation = body["metadata"]["name"], body["metadata"]["generation"]
        bodies[name] = body
        queue.put_nowait(name)
        if generations.get(name) != generation:
            generations[name] = generation
            line = {"name": name, "generation": generation, "at": at}
            os.write(file, json.dumps(line).encode() + b"\n")

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.AiohttpSession:
        info = kopf.login_with_kubeconfig(**kwargs)
        assert info is not None
        connector = aiohttp.TCPConnector(limit=24, ssl=info.as_ssl_context())
        session = aiohttp.ClientSession(connector=connector, headers=info.as_http_headers())
        return kopf.AiohttpSession(aiohttp_session=session, server=info.server)

    async def work() -> None:
        while True:
            await queue.get()

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, dump)
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        worker = asyncio.create_task(work())
        try:
            await kopf.operator(registry=registry, settings=settings, standalone=True, clusterwide=True)
        finally:
            worker.cancel()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
