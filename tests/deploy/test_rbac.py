"""The operator's rights suffice, and each is needed: the API server's own audit log says so.

`make test-rbac` takes every right away in turn and prints the sentence with which its play then ends. `make test` looks
at what the plays use when nothing is missing, and takes away those rights that are only held, and a few others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from tests.deploy.plays import HELD, NEEDED_IN, Play, Refused, Stage
from tests.deploy.rights import TABLE, USER, Right, rights, role, used
from tests.support.operator import ROOT, Operator

from controlplane.cluster import LocalCluster

FULL = os.environ.get("RBAC") == "full"
_FEW = {
    Right("", "secrets", "create"),
    Right("", "events", "create"),
    Right("workspace-operator.dev", "delegations", "patch"),
}
TAKEN_AWAY = sorted(NEEDED_IN) if FULL else sorted(HELD | _FEW)
PLAYS = list(dict.fromkeys(NEEDED_IN.values()))


def test_each_right_is_granted_once_and_has_a_row() -> None:
    """A new rule needs a row in tests/deploy/plays.py; a row without a rule is of the past."""
    granted = rights(role())
    assert len(granted) == len(set(granted)), "granted twice"
    unexplained = [str(right) for right in granted if right not in NEEDED_IN]
    assert unexplained == [], "no row of NEEDED_IN in tests/deploy/plays.py says what the operator needs these for"
    past = [str(right) for right in NEEDED_IN if right not in granted]
    assert past == [], "NEEDED_IN in tests/deploy/plays.py has rows for what deploy/base/rbac.yaml does not grant"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A cluster of the module's own: rights are taken away here."""
    home = tmp_path_factory.mktemp("rights")
    with LocalCluster(home / "c", audited_user=USER, say=lambda text: None) as cluster:
        cluster.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        account = cluster.service_account_kubeconfig("workspace-operator-system", "workspace-operator")
        with Operator(account, home) as operator:
            yield Stage(cluster, operator, home / "workspaces")


@pytest.mark.cluster
@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
def test_the_rights_suffice_and_are_used(stage: Stage, play: Play) -> None:
    """Nothing that the operator asks is refused, and it asks for all that is granted for this."""
    stage.audit.mark()
    play(stage)
    asked = stage.audit.requests()
    assert [request for request in asked if request.refused] == []
    due = [right for right, of in NEEDED_IN.items() if of is play and right not in HELD]
    unused = [str(right) for right in due if not used(right, asked)]
    assert unused == [], f"granted for this, and not used in it: {play.__doc__}"


@pytest.mark.cluster
@pytest.mark.parametrize("missing", TAKEN_AWAY, ids=str)
def test_without_a_right_its_play_fails(stage: Stage, missing: Right, request: pytest.FixtureRequest) -> None:
    """With a sentence of the API server's that names it."""
    play = NEEDED_IN[missing]
    stage.restrict(missing)
    try:
        with pytest.raises(Refused) as refused:
            play(stage)
            stage.until(lambda: False)
    finally:
        stage.restrict(None)
        stage.clear()
    sentence = re.sub(rf'user "{USER}"( \(groups=\[.*?\]\))?', "it", " ".join(str(refused.value).split()), flags=re.I)
    table = request.config.stash.setdefault(TABLE, [])
    table.append(f"{missing!s:<60} {play.__name__:<9} {sentence[:200]}")
