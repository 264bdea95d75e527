"""Access to another cluster, from a kubeconfig that came out of a Secret.

Whoever may write that Secret must not thereby run programs or read files where the operator runs: so only what stands
in the kubeconfig itself is taken, and anything else in it is refused by name.
"""

from __future__ import annotations

from typing import Any
from urllib.request import getproxies

import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import BadRequest
from workspace_operator.kube.client import CONNECTIONS

_USER = {"token", "client-certificate-data", "client-key-data", "username", "password"}
_CLUSTER = {"server", "certificate-authority-data", "tls-server-name"}


async def configuration_from(content: bytes, field: str) -> Configuration:
    """The configuration of a client. Raises BadRequest, which names ``field`` and quotes nothing of the content."""
    document = _parsed(content, field)
    for kind, allowed in (("user", _USER), ("cluster", _CLUSTER)):
        for entry in _entries(document, f"{kind}s", field):
            foreign = set(entry.get(kind) or {}) - allowed
            if foreign:
                keys = ", ".join(sorted(str(key) for key in foreign)[:5])
                raise _refusal(field, f"{kind} has {keys}; only {', '.join(sorted(allowed))} are taken")
    configuration = Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    try:
        await kube_config.load_kube_config_from_dict(document, client_configuration=configuration)
    except (kube_config.ConfigException, ValueError, KeyError, TypeError, OSError) as error:
        raise _refusal(field, "it is incomplete; it needs a current-context with a cluster and a user") from error
    if not configuration.host.startswith("https://"):
        raise _refusal(field, "its server is no https address")
    return configuration


def _parsed(content: bytes, field: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError):
        document = None  # the exception's text would quote the Secret
    if not isinstance(document, dict):
        raise _refusal(field, "it is no YAML document")
    return document


def _entries(document: dict[str, Any], name: str, field: str) -> list[dict[str, Any]]:
    entries = document.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _refusal(field, f"it has no list of {name}")
    return entries


def _refusal(field: str, what: str) -> BadRequest:
    return BadRequest(Reason.MISCONFIGURED, f"{field}: the kubeconfig in the Secret cannot be used: {what}.")
