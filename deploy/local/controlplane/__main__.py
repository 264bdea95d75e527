"""The command line: python -m controlplane start | stop | status | binaries | engine start | engine stop."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from controlplane import binaries
from controlplane.binaries import BinariesMissing
from controlplane.cluster import LocalCluster
from controlplane.current import connect
from controlplane.engine import DockerEngine, EngineError
from controlplane.kubectl import ClusterError
from controlplane.processes import say

_RUN = Path(__file__).resolve().parents[3] / ".run"


def main(arguments: Sequence[str] | None = None) -> int:
    # A plain kill unwinds like a Ctrl-C does, so that a half-started cluster is taken down again.
    signal.signal(signal.SIGTERM, _leave)
    options = _parser().parse_args(arguments)
    command: Callable[[Path], int] = options.command or (lambda directory: _kubectl(directory, options.arguments))
    try:
        return command(options.directory)
    except (BinariesMissing, ClusterError, EngineError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; what was started is stopped again")
        return 130


def _start(directory: Path) -> int:
    cluster = connect(directory)
    if isinstance(cluster, LocalCluster):
        if cluster.running:
            say(f"a cluster runs at {cluster.server} already")
        else:
            # Some, but not all, of its parts live: start from a clean slate, on its data.
            cluster.stop(keep=True)
            LocalCluster(directory, detached=True).start()
    say(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _stop(directory: Path) -> int:
    LocalCluster(directory).stop()
    say("stopped")
    return 0


def _status(directory: Path) -> int:
    cluster = LocalCluster(directory)
    if not cluster.processes:
        say(f"no cluster runs in {directory}")
        return 1
    for component, process in cluster.processes.items():
        say(f"{component}: pid {process.pid}, log {cluster.log(component)}")
    say(f"server: {cluster.server}\nexport KUBECONFIG={cluster.kubeconfig}")
    return 0 if cluster.running else 1


def _kubectl(directory: Path, arguments: Sequence[str]) -> int:
    say(connect(directory).kubectl(*arguments, timeout=600).rstrip())
    return 0


def _binaries(_directory: Path) -> int:
    for name, path in vars(binaries.ensure()).items():
        say(f"{name.replace('_', '-')}: {path}")
    return 0


def _engine_start(directory: Path) -> int:
    engine = DockerEngine(directory, detached=True)
    if engine.process is not None and engine.process.alive:
        say("a private Docker engine runs already")
    else:
        engine.start()
    say(f"export DOCKER_HOST={engine.host}")
    return 0


def _engine_stop(directory: Path) -> int:
    DockerEngine(directory).stop()
    say("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controlplane", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add(commands, "start", _start, _RUN / "cluster", "start a cluster that outlives this command")
    _add(commands, "stop", _stop, _RUN / "cluster", "stop it and remove its directory")
    _add(commands, "status", _status, _RUN / "cluster", "say what runs")
    _add(commands, "binaries", _binaries, _RUN / "cluster", "make sure that all binaries are there")
    kubectl = commands.add_parser("kubectl", help="kubectl on the local cluster (or on CLUSTER=current)")
    kubectl.add_argument("arguments", nargs=argparse.REMAINDER)
    kubectl.set_defaults(command=None, directory=_RUN / "cluster")
    engine = commands.add_parser("engine", help="a Docker engine, the machine's own or a private one")
    engines = engine.add_subparsers(required=True)
    _add(engines, "start", _engine_start, _RUN / "engine", "use the running engine, else start a private one")
    _add(engines, "stop", _engine_stop, _RUN / "engine", "stop the private one and remove its directory")
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[Path], int],
    directory: Path,
    text: str,
) -> None:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--directory", type=Path, default=directory, help="default: %(default)s")
    parser.set_defaults(command=command)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
