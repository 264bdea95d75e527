"""A workspace's token: delivered as a file, good for its own Lease and Delegations, and worthless after a pause."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import api_status, fault
from tests.support.containers import Containers
from tests.support.fleet import Fleet, until, workspace
from tests.support.manifests import LEASED
from tests.support.operator import Operator
from tests.support.processes import room_of

from controlplane.cluster import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.engine]

REVOKED_WITHIN = 15  # seconds; the API server caches a good token for 10
DIRECTORY = "/var/run/secrets/workspace-operator.dev"
OFTEN = [{"name": "AGENT_LEASE_INTERVAL", "value": "1"}]


BACKENDS = ("process", "docker")


@dataclass(frozen=True)
class Inside:
    """What workspaces see, and what their surroundings show of them. Names begin with the backend's."""

    cluster: LocalCluster
    fleet: Fleet
    containers: Containers

    def token(self, name: str) -> str:
        if name.startswith("process"):
            return room_of(self.fleet, name).token
        container = self.containers.only(self.fleet.get(name))
        return self.containers.files(container, DIRECTORY)["token"]

    def surroundings(self, name: str) -> str:
        """Environment, command line, labels: all that others on the machine can read."""
        if name.startswith("process"):
            room = room_of(self.fleet, name)
            proc = Path(f"/proc/{room.pid}")
            files = (proc / "environ", proc / "cmdline", room.path / "instance.json", room.path / "output.log")
            return "\n".join(file.read_bytes().decode(errors="replace") for file in files)
        container = self.containers.only(self.fleet.get(name))
        return json.dumps(container.attrs) + container.logs().decode()

    def lease(self, token: str, name: str) -> int:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.fleet.namespace}/leases/workspace-{name}"
        return api_status(self.cluster, token, path)


@pytest.fixture
def inside(
    cluster: LocalCluster,
    fleet: Fleet,
    containers: Containers,
    operator: Operator,
    process_class: str,
    docker_class: str,
) -> Inside:
    """The same on every backend (I-01), side by side because revoking takes its time."""
    assert (process_class, docker_class) == BACKENDS
    return Inside(cluster, fleet, containers)


def leased(name: str) -> dict[str, Any]:
    return workspace(name, className=name.partition("-")[0], agent=LEASED, env=OFTEN)


def test_a_token_works_until_pause_stop_and_delete(inside: Inside, operator: Operator) -> None:
    """Refused by the API server within 15 s of the wish (I-51); it opens nothing else, and without it nobody gets in
    (I-52); nobody shows it (I-53)."""
    fleet = inside.fleet
    names = [f"{backend}-{fate}" for backend in BACKENDS for fate in ("paused", "stopped", "deleted")]
    fleet.apply(*(leased(name) for name in names))
    fleet.wait_ready()
    tokens = {name: inside.token(name) for name in names}
    assert {name: inside.lease(token, name) for name, token in tokens.items()} == dict.fromkeys(names, 200)
    for backend in BACKENDS:
        _opens_nothing_else(inside, f"{backend}-paused", tokens[f"{backend}-paused"])
    _is_nowhere_to_be_read(inside, operator, tokens)
    wished = {}
    for name in names:
        wished[name] = time.monotonic()
        if name.endswith("deleted"):
            fleet.kubectl("delete", "workspace", name, "--wait=false")
        else:
            fleet.desire(name, name.split("-")[1].capitalize())
    for name, token in tokens.items():
        until(
            lambda name=name, token=token: inside.lease(token, name) == 401,
            wished[name] + REVOKED_WITHIN - time.monotonic(),
            lambda name=name: f"{name}: the token is still taken",
        )
    back = [name for name in names if not name.endswith("deleted")]
    for name in back:
        fleet.wait_phase(name, name.split("-")[1].capitalize())
        assert "credentials" not in fleet.status(name)
        fleet.desire(name, "Running")
    for name in back:
        fleet.wait_phase(name, "Running")
        assert inside.token(name) != tokens[name]
        assert inside.lease(inside.token(name), name) == 200
        assert inside.lease(tokens[name], name) == 401, "the old one stays worthless"


def _opens_nothing_else(inside: Inside, name: str, token: str) -> None:
    """Of what may be read, only its own Lease; and no token is no access. What it may do with Delegations is all in
    test_delegation_rights.py."""
    namespace = inside.fleet.namespace
    assert inside.lease("", name) == 401
    assert inside.lease("not-a-token", name) == 401
    assert inside.lease(token, name.replace("paused", "stopped")) == 403
    for path in (
        f"/api/v1/namespaces/{namespace}/secrets",
        f"/api/v1/namespaces/{namespace}/secrets/workspace-{name}",
        f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
        f"/apis/workspace-operator.dev/v1alpha1/namespaces/{namespace}/workspaces/{name}",
        f"/apis/workspace-operator.dev/v1alpha1/namespaces/{namespace}/delegations",
        f"/api/v1/namespaces/{namespace}/configmaps",
        "/api/v1/namespaces",
    ):
        assert api_status(inside.cluster, token, path) == 403, path


def _is_nowhere_to_be_read(inside: Inside, operator: Operator, tokens: dict[str, str]) -> None:
    """Neither in the API nor in logs, labels or environments."""
    shown = inside.fleet.kubectl("get", "workspaces,events,leases,serviceaccounts,secrets", "-o", "json")
    shown += operator.all_logs() + operator.get("/metrics")[1]
    shown += "".join(inside.surroundings(name) for name in tokens)
    for name, token in tokens.items():
        head, _, signature = token.rpartition(".")
        assert head not in shown and signature not in shown
        secret = json.loads(inside.fleet.kubectl("get", "secret", f"workspace-{name}", "-o", "json"))
        assert not secret.get("data"), "the anchor holds nothing"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_agents_own_report_is_shown_and_restarts_nothing(inside: Inside, backend: str) -> None:
    """Renewals make it Available; wedged says so (I-42); silence alone restarts nothing (I-41)."""
    fleet, name = inside.fleet, f"{backend}-agent"
    fleet.apply(leased(name))
    fleet.wait_ready(name)
    assert fleet.condition(name, "Available")["status"] == "True"
    before = fleet.status(name)
    fault(before["endpoint"], "wedged")
    wedged = fleet.wait_reason(name, "AgentWedged", "Available", 10)
    assert wedged["status"] == "False" and "wedged" in wedged["message"]
    assert fleet.condition(name, "Ready")["status"] == "False"
    assert fleet.phase(name) == "Running"
    fault(before["endpoint"], "busy")
    assert fleet.wait_reason(name, "AgentBusy", "Available", 10)["status"] == "True"
    fault(before["endpoint"], "none")
    fleet.wait_reason(name, "Serving", "Available", 10)

    fault(before["endpoint"], "silent")
    time.sleep(1.2)  # one renewal may have been under way
    renewed = _renewed(fleet, name)
    time.sleep(3)
    assert _renewed(fleet, name) == renewed, "three intervals of silence"
    after = fleet.status(name)
    assert after["instance"] == before["instance"]
    assert "failures" not in after
    assert fleet.condition(name, "Ready")["status"] == "True"


def _renewed(fleet: Fleet, name: str) -> str:
    return fleet.kubectl("get", "lease", f"workspace-{name}", "-o", "jsonpath={.spec.renewTime}")
