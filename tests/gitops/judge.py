"""What GitOps tools say of objects, by the programs' own code: a Go program, built once and cached."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gitops import customizations
from tests.support.fleet import Object

from controlplane import binaries, gobuild
from controlplane.processes import Say, say

SOURCE = Path(__file__).parent / "verdicts"


@dataclass(frozen=True)
class Verdict:
    """On one object. ``actions``: name → whether it is disabled, and the object as it would leave it."""

    argo: str
    message: str
    kstatus: str
    actions: dict[str, Any]


def program(tell: Say = say) -> Path:
    """The program; a changed source is another version."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(SOURCE.iterdir()))).hexdigest()
    return binaries.ensure_built("verdicts", gobuild.Module(SOURCE, "local", digest[:12]), tell)


class Judge:
    """Gives one verdict per object, in order; with the scripts as the ConfigMap carries them."""

    def __init__(self, executable: Path) -> None:
        self._executable = executable

    def __call__(self, objects: list[Object]) -> list[Verdict]:
        asked = {"scripts": customizations.scripts(), "objects": objects}
        done = subprocess.run([self._executable], input=json.dumps(asked), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [
            Verdict(each["argo"]["status"], each["argo"]["message"], each["kstatus"]["status"], each["actions"])
            for each in json.loads(done.stdout)
        ]
