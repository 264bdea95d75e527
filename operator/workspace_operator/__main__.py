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
    uninstall = commands.add_parser("uninstall", help="take the finalizers off in order, before everything is deleted")
    uninstall.add_argument(
        "--compute",
        choices=("release", "retain"),
        required=True,
        help="release: have the operator release everything; retain: leave instances as they are",
    )
    uninstall.add_argument(
        "--timeout", type=float, default=600, metavar="SECONDS", help="for a release; 600 by default"
    )
    uninstall.add_argument("--yes", action="store_true", help="do not ask")
    settings.add_lease_arguments(uninstall)
    crds = commands.add_parser("crds", help="write the CustomResourceDefinitions into a directory")
    readme = commands.add_parser("readme", help="write the generated parts of a Markdown file")
    for generator, what in ((crds, "directory"), (readme, "file")):
        generator.add_argument("--check", action="store_true", help="write nothing; fail when something is not current")
        generator.add_argument("target", type=Path, metavar=what)
    arguments = parser.parse_args(argv)
    return {"run": _run, "uninstall": _uninstall, "crds": _crds, "readme": _readme}[arguments.command](arguments)


def _run(arguments: argparse.Namespace) -> int:
    import uvloop

    from workspace_operator.app import App

    async def run() -> int:
        return await App(settings.from_arguments(arguments)).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _uninstall(arguments: argparse.Namespace) -> int:
    from workspace_operator.commands import session, uninstall

    return session.run(lambda client: uninstall.ask_and_do(client, arguments))


def _crds(arguments: argparse.Namespace) -> int:
    from workspace_operator.api.crds import render

    return _write({arguments.target / name: text for name, text in render().items()}, check=arguments.check)


def _readme(arguments: argparse.Namespace) -> int:
    from workspace_operator.lifecycle import diagram

    text = diagram.fill(arguments.target.read_text())
    return _write({arguments.target: text}, check=arguments.check)


def _write(files: dict[Path, str], *, check: bool) -> int:
    """Write what differs; with ``check``, only say so and fail."""
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path} is not current; run `make generate`\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
