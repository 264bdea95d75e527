"""The operator's own settings, from flags or environment variables."""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import dataclass
from uuid import uuid4

_PREFIX = "WORKSPACE_OPERATOR_"


@dataclass(frozen=True)
class Settings:
    """How this process runs; what the fleet should be is in the custom resources."""

    namespace: str  # of the leader Lease
    lease: str
    identity: str
    listen_host: str
    listen_port: int
    log_format: str
    log_level: str
    workers: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``workspace-operator run``; each has an environment variable of the same name."""
    add_lease_arguments(parser)
    _flag(parser, "listen-host", "0.0.0.0", "address of /healthz, /readyz and /metrics")  # noqa: S104
    _flag(parser, "listen-port", "8080", "their port; 0 takes a free one", type=int)
    _flag(parser, "log-format", "text", "json or text", choices=("json", "text"))
    _flag(parser, "log-level", "INFO", "a Python logging level")
    _flag(parser, "workers", "32", "passes under way at once", type=int)


def add_lease_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where the leader Lease is."""
    _flag(parser, "namespace", _own_namespace(), "namespace of the leader Lease")
    _flag(parser, "lease", "workspace-operator", "name of the leader Lease")


def from_arguments(arguments: argparse.Namespace) -> Settings:
    """Settings from parsed flags."""
    return Settings(
        namespace=arguments.namespace,
        lease=arguments.lease,
        identity=f"{socket.gethostname()}_{uuid4().hex[:8]}",
        listen_host=arguments.listen_host,
        listen_port=arguments.listen_port,
        log_format=arguments.log_format,
        log_level=arguments.log_level,
        workers=arguments.workers,
    )


def _flag(parser: argparse.ArgumentParser, name: str, default: str, text: str, **more: object) -> None:
    variable = _PREFIX + name.upper().replace("-", "_")
    parser.add_argument(
        f"--{name}",
        default=os.environ.get(variable, default),
        help=f"{text} [${variable}]",
        **more,  # type: ignore[arg-type]
    )


def _own_namespace() -> str:
    try:
        with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as stream:  # noqa: PTH123
            return stream.read().strip()
    except OSError:
        return "default"
