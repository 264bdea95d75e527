"""The command line: python -m controlplane start | stop | status | load | binaries | kubectl | engine start or stop."""

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
from controlplane.fakenodes import FakeNodes
from controlplane.kubectl import ClusterError
from controlplane.nodes import Node, NodeError, Nodes
from controlplane.processes import say

Command = Callable[[argparse.Namespace], int]
_RUN = Path(__file__).resolve().parents[3] / ".run"


def main(arguments: Sequence[str] | None = None) -> int:
    # A plain kill unwinds like a Ctrl-C does, so that a half-started cluster is taken down again.
    signal.signal(signal.SIGTERM, _leave)
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except (BinariesMissing, ClusterError, EngineError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; what was started is stopped again")
        return 130


def _start(options: argparse.Namespace) -> int:
    cluster = connect(options.directory)
    if isinstance(cluster, LocalCluster):
        if cluster.running:
            say(f"a cluster runs at {cluster.server} already")
        else:
            # Some, but not all, of its parts live: start from a clean slate, on its data.
            cluster.stop(keep=True)
            cluster = LocalCluster(options.directory, detached=True)
            cluster.start()
        _add_nodes(cluster, options)
    elif options.nodes or options.fake_nodes:
        raise NodeError("CLUSTER=current has nodes of its own; none are added to it")
    say(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _add_nodes(cluster: LocalCluster, options: argparse.Namespace) -> None:
    nodes = _nodes(cluster, options)
    running = len(list(nodes))
    if running:
        nodes.prepare()
    for _ in range(running, options.nodes):
        nodes.add()
    if options.fake_nodes:
        FakeNodes(cluster, options.fake_nodes).start()


def _nodes(cluster: LocalCluster, options: argparse.Namespace) -> Nodes:
    directory: Path = options.directory
    return Nodes(cluster, directory.with_name(f"{directory.name}-nodes"))


def _stop(options: argparse.Namespace) -> int:
    cluster = LocalCluster(options.directory)
    _nodes(cluster, options).stop()
    cluster.stop()
    say("stopped")
    return 0


def _status(options: argparse.Namespace) -> int:
    cluster = LocalCluster(options.directory)
    if not cluster.processes:
        say(f"no cluster runs in {options.directory}")
        return 1
    for component, process in cluster.processes.items():
        say(f"{component}: pid {process.pid}, log {cluster.log(component)}")
    for node in _nodes(cluster, options):
        say(f"{node.name}: {node.machine.address}, logs {node.machine.directory}/*.log, {_shell(node)}")
    say(f"server: {cluster.server}\nexport KUBECONFIG={cluster.kubeconfig}")
    return 0 if cluster.running else 1


def _shell(node: Node) -> str:
    """How a person gets inside."""
    machine = node.machine
    return f"inside: nsenter --target {machine.pid} --mount --uts --pid --net" if machine.on else "off"


def _load(options: argparse.Namespace) -> int:
    nodes = list(_nodes(LocalCluster(options.directory), options))
    if not nodes:
        raise NodeError(f"no node runs beside {options.directory}; start one with: start --nodes 1")
    for node in nodes:
        node.load(*options.archives)
        say(f"{node.name} has {', '.join(archive.name for archive in options.archives)}")
    return 0


def _kubectl(options: argparse.Namespace) -> int:
    say(connect(options.directory).kubectl(*options.arguments, timeout=600).rstrip())
    return 0


def _binaries(options: argparse.Namespace) -> int:
    # The largest set first: what must be built is then built in one go.
    found = vars(binaries.ensure_nodes()) if options.nodes else {}
    found |= vars(binaries.ensure())
    if options.fake_nodes:
        found["kwok"] = binaries.ensure_kwok()
    if options.helm:
        found["helm"] = binaries.ensure_helm()
    for name, path in found.items():
        say(f"{name.replace('_', '-')}: {path}")
    return 0


def _engine_start(options: argparse.Namespace) -> int:
    engine = DockerEngine(options.directory, detached=True)
    if engine.process is not None and engine.process.alive:
        say("a private Docker engine runs already")
    else:
        engine.start()
    say(f"export DOCKER_HOST={engine.host}")
    return 0


def _engine_stop(options: argparse.Namespace) -> int:
    DockerEngine(options.directory).stop()
    say("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controlplane", description=__doc__)
    commands = parser.add_subparsers(required=True)
    start = _add(commands, "start", _start, _RUN / "cluster", "start a cluster that outlives this command")
    start.add_argument("--nodes", type=int, default=0, metavar="N", help="with this many real nodes (root)")
    start.add_argument("--fake-nodes", type=int, default=0, metavar="N", help="with this many fake nodes")
    _add(commands, "stop", _stop, _RUN / "cluster", "stop it and its nodes and remove its directory")
    _add(commands, "status", _status, _RUN / "cluster", "say what runs")
    load = _add(commands, "load", _load, _RUN / "cluster", "give all nodes images, from archives like `docker save`'s")
    load.add_argument("archives", nargs="+", type=Path)
    found = _add(commands, "binaries", _binaries, _RUN / "cluster", "make sure that all binaries are there")
    found.add_argument("--nodes", action="store_true", help="also what real nodes need")
    found.add_argument("--fake-nodes", action="store_true", help="also what fake nodes need")
    found.add_argument("--helm", action="store_true", help="also Helm")
    kubectl = commands.add_parser("kubectl", help="kubectl on the local cluster (or on CLUSTER=current)")
    kubectl.add_argument("arguments", nargs=argparse.REMAINDER)
    kubectl.set_defaults(command=_kubectl, directory=_RUN / "cluster")
    engine = commands.add_parser("engine", help="a Docker engine, the machine's own or a private one")
    engines = engine.add_subparsers(required=True)
    _add(engines, "start", _engine_start, _RUN / "engine", "use the running engine, else start a private one")
    _add(engines, "stop", _engine_stop, _RUN / "engine", "stop the private one and remove its directory")
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Command,
    directory: Path,
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--directory", type=Path, default=directory, help="default: %(default)s")
    parser.set_defaults(command=command)
    return parser


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
