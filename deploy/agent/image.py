"""The reference agent's image, from local files (controlplane/pythonimage.py): `make image`. It has no shell."""

from __future__ import annotations

import sys
from pathlib import Path

from controlplane.pythonimage import Recipe, main

RECIPE = Recipe(
    tag="workspace-operator/reference-agent:dev",
    uid=10001,
    user="agent",
    roots=("a2a-sdk[http-server]", "uvicorn", "httpx"),
    package=Path(__file__).resolve().parent / "reference_agent",
    # A new named volume takes owner and mode from the directory it is mounted over.
    directories=("data", "workspace"),
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))
