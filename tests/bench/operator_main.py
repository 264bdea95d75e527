"""The operator as it is, with a driver of ours, in a process that can be asked for its counts and dies with us.

SIGUSR1 collects garbage and writes the counts to ``--counts`` (atomically); they are written at exit, too.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path

import uvloop
from tests.bench.drivers import Recorder, drivers

from workspace_operator import settings
from workspace_operator.app import App


def main() -> int:
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", choices=("noop", "process", "ec2", "own"), default="noop")
    parser.add_argument("--counts", type=Path, required=True)
    parser.add_argument("--stamps", type=Path)
    parser.add_argument("--profile", type=Path, help="write cProfile statistics here (slows everything down)")
    settings.add_arguments(parser)
    arguments = parser.parse_args()
    recorder = Recorder(arguments.stamps if arguments.driver == "process" else None)
    served = drivers(arguments.driver, recorder, arguments.stamps)

    def dump() -> None:
        gc.collect()
        part = arguments.counts.with_suffix(".part")
        part.write_text(json.dumps(dict(recorder.calls)))
        part.replace(arguments.counts)

    async def run() -> int:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, dump)
        try:
            return await App(settings.from_arguments(arguments), served).run()
        finally:
            dump()

    def whole() -> int:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())

    if arguments.profile is None:
        return whole()
    import cProfile

    profile = cProfile.Profile()
    code: int = profile.runcall(whole)
    profile.dump_stats(arguments.profile)
    return code


def die_with_parent() -> None:
    """Have the kernel end this process when the benchmark does, however that ends (PR_SET_PDEATHSIG)."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
