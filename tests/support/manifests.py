"""Manifests that several scenarios share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.support.fleet import Object, workspace
from tests.support.operator import ROOT

AGENT = "workspace-operator/reference-agent:dev"
LEASED = {"port": 8080, "probe": "Lease"}
CARD = {"port": 8080, "probe": "AgentCard"}

#: The agent's image without the agent: runs in 50 ms, and ends at once on SIGTERM.
IDLE_COMMAND = ["/usr/local/bin/python", "-S", "-c", "import signal; signal.pause()"]


def idle(name: str, **spec: Any) -> Object:
    """A workspace of the Docker class that only runs."""
    return workspace(name, className="docker", command=IDLE_COMMAND, **spec)


def process_images(directory: Path | str) -> dict[str, Any]:
    """A process backend with the reference agent, and two programs that need no time to start."""
    images = [
        {
            "name": AGENT,
            "command": [sys.executable, "-m", "reference_agent"],
            "env": [{"name": "PYTHONPATH", "value": str(ROOT / "deploy" / "agent")}],
        },
        {"name": "sleep", "command": ["sleep", "infinity"]},
        {"name": "exit-3", "command": ["sh", "-c", "sleep 0.3; exit 3"]},
    ]
    return {"directory": str(directory), "images": images}
