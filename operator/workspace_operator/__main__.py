"""The command line: ``workspace-operator run`` and the generators of crds/ and docs."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from workspace_operator import __version__, settings


def main(argv: list[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="workspace-operator", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the operator against the current cluster")
    settings.add_arguments(run)
    crds = commands.add_parser("crds", help="write the CustomResourceDefinitions")
    crds.add_argument("directory", type=Path)
    commands.add_parser("states", help="print the state diagram (mermaid) and the table of reasons")
    arguments = parser.parse_args(argv)
    return {"run": _run, "crds": _crds, "states": _states}[arguments.command](arguments)


def _run(arguments: argparse.Namespace) -> int:
    import uvloop

    from workspace_operator.app import App

    async def run() -> int:
        return await App(settings.from_arguments(arguments)).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _crds(arguments: argparse.Namespace) -> int:
    from workspace_operator.api.crds import render

    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (arguments.directory / name).write_text(text)
    return 0


def _states(_: argparse.Namespace) -> int:
    from workspace_operator.lifecycle import diagram

    sys.stdout.write(diagram.render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
