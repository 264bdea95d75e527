"""The command line: ``workspace-operator run``, the commands for people, and the generators of crds/ and docs."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from workspace_operator import __version__, settings

AddParser = Callable[..., argparse.ArgumentParser]

_LOGS = """\
What is shown: process - the file that the process writes to; docker - the container's log, both streams; ec2 - the
workload's lines on the serial console, which EC2 updates with delay and of which it keeps the last 64 KB.

The command asks the backend itself, from this machine. The files of a process class are on the operator's own machine,
and so is an engine behind a unix:// socket: run it there, as the operator's user. It needs the rights to get the
workspace, the namespace kube-system and the Secrets that the class names, and to list classes.
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="workspace-operator", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the operator against the current cluster")
    settings.add_arguments(run)
    _add_logs(commands.add_parser)
    _add_uninstall(commands.add_parser)
    crds = commands.add_parser("crds", help="write the CustomResourceDefinitions into a directory")
    readme = commands.add_parser("readme", help="write the generated parts of a Markdown file")
    for generator, what in ((crds, "directory"), (readme, "file")):
        generator.add_argument("--check", action="store_true", help="write nothing; fail when something is not current")
        generator.add_argument("target", type=Path, metavar=what)
    arguments = parser.parse_args(argv)
    return {"run": _run, "logs": _logs, "uninstall": _uninstall, "crds": _crds, "readme": _readme}[arguments.command](
        arguments
    )


def _add_logs(add: AddParser) -> None:
    logs = add(
        "logs",
        help="show the output of a workspace, whatever backend runs it",
        epilog=_LOGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    logs.add_argument("name", metavar="NAME", help="the workspace")
    logs.add_argument("-n", "--namespace", help="its namespace; the kubeconfig context's by default")
    logs.add_argument("--tail", type=_lines, default=100, metavar="N", help="how many lines; 100 by default")


def _add_uninstall(add: AddParser) -> None:
    uninstall = add("uninstall", help="take the finalizers off in order, before everything is deleted")
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


def _lines(text: str) -> int:
    """A number of lines."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _run(arguments: argparse.Namespace) -> int:
    import uvloop

    from workspace_operator.app import App

    async def run() -> int:
        return await App(settings.from_arguments(arguments)).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _logs(arguments: argparse.Namespace) -> int:
    from workspace_operator.commands import logs, session

    return session.run(lambda client: logs.show(client, arguments.namespace, arguments.name, arguments.tail))


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
