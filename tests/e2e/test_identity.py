"""A workspace's token: delivered as a file, good for one Lease, and worthless after a pause."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Inside:
    """What a workspace sees, and what its surroundings show of it."""

    cluster: LocalCluster
    fleet: Fleet
    containers: Containers
    class_name: str

    def token(self, name: str) -> str:
        if self.class_name == "process":
            return room_of(self.fleet, name).token
        container = self.containers.only(self.fleet.get(name))
        return self.containers.files(container, DIRECTORY)["token"]

    def surroundings(self, name: str) -> str:
        """Environment, command line, labels: all that others on the machine can read."""
        if self.class_name == "process":
            room = room_of(self.fleet, name)
            proc = Path(f"/proc/{room.pid}")
            files = (proc / "environ", proc / "cmdline", room.path / "instance.json", room.path / "output.log")
            return "\n".join(file.read_bytes().decode(errors="replace") for file in files)
        container = self.containers.only(self.fleet.get(name))
        return json.dumps(container.attrs) + container.logs().decode()

    def lease(self, token: str, name: str) -> int:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.fleet.namespace}/leases/workspace-{name}"
        return api_status(self.cluster, token, path)


@pytest.fixture(params=["process", "docker"])
def inside(
    request: pytest.FixtureRequest, cluster: LocalCluster, fleet: Fleet, containers: Containers, operator: Operator
) -> Inside:
    """The same tests on every backend (I-01)."""
    return Inside(cluster, fleet, containers, str(request.getfixturevalue(f"{request.param}_class")))


def test_a_token_works_until_pause_stop_and_delete(inside: Inside, operator: Operator) -> None:
    """Refused by the API server within 15 s of the wish (I-51); it may do one thing (I-52); nobody shows it (I-53)."""
    fleet = inside.fleet
    names = ("paused", "stopped", "deleted")
    fleet.apply(*(workspace(name, className=inside.class_name, agent=LEASED, env=OFTEN) for name in names))
    fleet.wait_ready()
    tokens = {name: inside.token(name) for name in names}
    assert {name: inside.lease(token, name) for name, token in tokens.items()} == dict.fromkeys(names, 200)
    _may_do_one_thing(inside, tokens["paused"])
    _is_nowhere_to_be_read(inside, operator, tokens)

    wished = time.monotonic()
    fleet.desire("paused", "Paused")
    fleet.desire("stopped", "Stopped")
    fleet.kubectl("delete", "workspace", "deleted", "--wait=false")
    for name, token in tokens.items():
        until(
            lambda name=name, token=token: inside.lease(token, name) == 401,
            wished + REVOKED_WITHIN - time.monotonic(),
            lambda name=name: f"{name}: the token is still taken",
        )
    fleet.wait_phase("paused", "Paused")
    fleet.wait_phase("stopped", "Stopped")
    assert "credentials" not in fleet.status("paused")
    for name in ("paused", "stopped"):
        fleet.desire(name, "Running")
    fleet.wait_phase("paused", "Running")
    fleet.wait_phase("stopped", "Running")
    for name in ("paused", "stopped"):
        assert inside.token(name) != tokens[name]
        assert inside.lease(inside.token(name), name) == 200
        assert inside.lease(tokens[name], name) == 401, "the old one stays worthless"


def _may_do_one_thing(inside: Inside, token: str) -> None:
    """Only its own Lease."""
    namespace = inside.fleet.namespace
    assert inside.lease(token, "stopped") == 403
    for path in (
        f"/api/v1/namespaces/{namespace}/secrets",
        f"/api/v1/namespaces/{namespace}/secrets/workspace-paused",
        f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
        f"/apis/workspace-operator.dev/v1alpha1/namespaces/{namespace}/workspaces/paused",
        "/api/v1/namespaces",
    ):
        assert api_status(inside.cluster, token, path) == 403, path


def _is_nowhere_to_be_read(inside: Inside, operator: Operator, tokens: dict[str, str]) -> None:
    """Neither in the API nor in logs, labels or environments."""
    shown = inside.fleet.kubectl("get", "workspaces,events,leases,serviceaccounts,secrets", "-o", "json")
    shown += operator.all_logs() + operator.get("/metrics")[1]
    shown += "".join(inside.surroundings(name) for name in tokens)
    for token in tokens.values():
        head, _, signature = token.rpartition(".")
        assert head not in shown and signature not in shown
    secret = json.loads(inside.fleet.kubectl("get", "secret", "workspace-paused", "-o", "json"))
    assert not secret.get("data"), "the anchor holds nothing"


def test_the_agents_own_report_is_shown_and_restarts_nothing(inside: Inside) -> None:
    """Renewals make it Available; wedged says so (I-42); silence alone restarts nothing (I-41)."""
    fleet = inside.fleet
    fleet.apply(workspace("agent", className=inside.class_name, agent=LEASED, env=OFTEN))
    fleet.wait_ready("agent")
    assert fleet.condition("agent", "Available")["status"] == "True"
    before = fleet.status("agent")
    fault(before["endpoint"], "wedged")
    wedged = fleet.wait_reason("agent", "AgentWedged", "Available", 10)
    assert wedged["status"] == "False" and "wedged" in wedged["message"]
    assert fleet.condition("agent", "Ready")["status"] == "False"
    assert fleet.phase("agent") == "Running"
    fault(before["endpoint"], "busy")
    assert fleet.wait_reason("agent", "AgentBusy", "Available", 10)["status"] == "True"
    fault(before["endpoint"], "none")
    fleet.wait_reason("agent", "Serving", "Available", 10)

    fault(before["endpoint"], "silent")
    time.sleep(1.2)  # one renewal may have been under way
    renewed = _renewed(fleet)
    time.sleep(5)
    assert _renewed(fleet) == renewed, "five intervals of silence"
    after = fleet.status("agent")
    assert after["instance"] == before["instance"]
    assert "failures" not in after
    assert fleet.condition("agent", "Ready")["status"] == "True"


def _renewed(fleet: Fleet) -> str:
    return fleet.kubectl("get", "lease", "workspace-agent", "-o", "jsonpath={.spec.renewTime}")
