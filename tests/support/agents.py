"""Talking to agents and, with an agent's token, to the API server."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from controlplane.kubectl import Cluster


def card(endpoint: str) -> dict[str, Any]:
    """The agent's card, as a client would read it."""
    with urllib.request.urlopen(f"{endpoint}/.well-known/agent-card.json", timeout=5) as answer:
        return dict(json.load(answer))


def fault(endpoint: str, mode: str, **more: float) -> None:
    """Tell the reference agent to misbehave (deploy/agent/CONTRACT.md)."""
    body = json.dumps({"mode": mode, **more}).encode()
    request = urllib.request.Request(f"{endpoint}/faults", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5):
        pass


def api_status(cluster: Cluster, token: str, path: str) -> int:
    """What the API server answers to a GET with this token."""
    request = urllib.request.Request(cluster.server + path, headers={"Authorization": f"Bearer {token}"})
    try:
        context = ssl.create_default_context(cafile=str(cluster.ca_file))
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
