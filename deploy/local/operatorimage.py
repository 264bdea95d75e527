"""The operator's own image, from local files (controlplane/pythonimage.py): `make operator-image`.

The same layout as deploy/Dockerfile makes: the same user, the same entry point, and a shell, with which backend
`process` starts its workspaces.
"""

from __future__ import annotations

import sys
from pathlib import Path

from controlplane.pythonimage import Recipe, main

RECIPE = Recipe(
    tag="workspace-operator/operator:dev",
    uid=65532,
    user="operator",
    roots=("workspace-operator",),
    package=Path(__file__).resolve().parents[2] / "operator" / "workspace_operator",
    tools={"bin/sh": Path("/bin/sh")},
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))
