"""What all commands share: a client with the caller's own rights, and errors as one sentence instead of a traceback."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import yaml
from kubernetes.aio import config as kube_config

from workspace_operator.kube.client import KubeClient, KubeError, load_configuration
from workspace_operator.telemetry import logs


class CommandError(Exception):
    """Why a command could not do what was asked: one sentence or two, with what to do."""


def run(work: Callable[[KubeClient], Awaitable[None]]) -> int:
    """Run a command's work with a client; what goes wrong is told on stderr. Returns the exit code."""
    logs.setup("text", "CRITICAL")  # libraries log what is told here in a sentence
    try:
        asyncio.run(_with_client(work))
    except CommandError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _with_client(work: Callable[[KubeClient], Awaitable[None]]) -> None:
    try:
        client = KubeClient(await load_configuration())
    except (kube_config.ConfigException, yaml.YAMLError, OSError, ValueError) as error:
        text = f"There is no usable kubeconfig ({_first_line(error)}); set KUBECONFIG to one."
        raise CommandError(text) from error
    try:
        await work(client)
    except KubeError as error:
        raise CommandError(f"{error} {_remedy(error, client.server)}") from error
    finally:
        await client.close()


def _remedy(error: KubeError, server: str) -> str:
    if error.status in (401, 403):
        return "Use a kubeconfig with that right; the operator's own has it."
    return f"Check that {server}, of the current kubeconfig context, is the cluster and is up."


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
