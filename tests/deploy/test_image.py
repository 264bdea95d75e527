"""The two ways to make the operator's image come to the same; that it runs is shown by e2e/test_in_cluster.py."""

from __future__ import annotations

import json
import re

import pytest
from tests.support.helm import Object, only
from tests.support.operator import ROOT

import operatorimage
from workspace_operator.__main__ import main


def instruction(name: str) -> str:
    """The last one of this name: that of the final stage."""
    return re.findall(rf"^{name} (.*)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)[-1]


def test_the_dockerfile_and_the_local_build_agree(rendered: dict[str, list[Object]]) -> None:
    """On the user, which the manifests name too, and on what is run."""
    recipe = operatorimage.RECIPE
    assert instruction("USER") == recipe.config["User"] == f"{recipe.uid}:{recipe.uid}"
    pod = only(rendered["kustomize"], "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == recipe.uid
    local = [part.rpartition("/")[2] for part in recipe.config["Entrypoint"]]  # type: ignore[attr-defined]
    assert json.loads(instruction("ENTRYPOINT")) == local == ["python", "-m", "workspace_operator"]
    assert json.loads(instruction("CMD")) == pod["containers"][0]["args"] == ["run"]


def test_the_dockerfile_names_no_registry_and_copies_what_there_is() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    sources = [part for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for part in line.split()[:-1]]
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored, f"{source} is not part of the build's context"


def test_the_entry_point_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", "--help"])
    assert left.value.code == 0
    assert "--listen-port" in capsys.readouterr().out
