"""The proxy itself: each fault shown once to a plain client, and nothing else changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from tests.chaos.apifaults import ApiFaults
from tests.chaos.apiserver import ApiServer, Call
from tests.ec2.counterpart import Rule
from tests.support.fleet import Fleet, until

from controlplane.cluster import LocalCluster

pytestmark = pytest.mark.cluster

Names = Callable[..., set[str]]


class Client:
    """requests, with a token, at the proxy."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        self._token = document["users"][0]["user"]["token"]
        self.server = document["clusters"][0]["cluster"]["server"]
        self.maps = f"/api/v1/namespaces/{namespace}/configmaps"

    def ask(self, method: str, path: str, body: Any = None, patience: float = 10, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.server + path, json=body, headers=headers, timeout=patience, **more)

    def make(self, name: str) -> requests.Response:
        return self.ask("POST", self.maps, {"metadata": {"name": name}})

    def exists(self, name: str) -> bool:
        return self.ask("GET", f"{self.maps}/{name}").status_code == 200

    def names(self, query: str = "") -> set[str]:
        items = self.ask("GET", self.maps + query).json()["items"]
        return {each["metadata"]["name"] for each in items} - {"kube-root-ca.crt"}

    def version(self) -> str:
        return str(self.ask("GET", self.maps).json()["metadata"]["resourceVersion"])

    @contextmanager
    def watch(self, patience: float = 20) -> Iterator[Iterator[dict[str, Any]]]:
        """The events from now on."""
        path = f"{self.maps}?watch=true&resourceVersion={self.version()}"
        answer = self.ask("GET", path, patience=patience, stream=True)
        with answer:
            yield (json.loads(line) for line in answer.iter_lines(chunk_size=None) if line)


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[ApiServer]:
    with ApiServer(cluster.server, cluster.ca_file) as running:
        yield running


@pytest.fixture
def client(cluster: LocalCluster, proxy: ApiServer, fleet: Fleet, tmp_path: Path) -> Iterator[Client]:
    """An administrator of ConfigMaps in a namespace of the test's own."""
    fleet.kubectl("create", "serviceaccount", "person")
    fleet.kubectl(
        "create", "rolebinding", "person", "--clusterrole=admin", f"--serviceaccount={fleet.namespace}:person"
    )
    direct = cluster.service_account_kubeconfig(fleet.namespace, "person")
    made = Client(proxy.kubeconfig(direct, tmp_path / "kubeconfig"), fleet.namespace)
    until(lambda: made.ask("GET", made.maps).status_code == 200)  # the rights are there
    proxy.faults = ApiFaults(seed=7)
    yield made
    proxy.heal()


def refused(answer: requests.Response, code: int, reason: str) -> bool:
    """Whether it is that refusal, in the API server's own form."""
    body = answer.json()
    assert (answer.status_code, body["kind"], body["code"], body["reason"]) == (code, "Status", code, reason)
    return True


def lose(client: Client, name: str) -> None:
    with pytest.raises(requests.ConnectionError):
        client.make(name)


def test_a_kind_one_only_hands_on(client: Client, proxy: ApiServer) -> None:
    assert client.make("a").status_code == 201
    assert refused(client.make("a"), 409, "AlreadyExists")
    assert client.ask("PATCH", f"{client.maps}/a", {"data": {"k": "v"}}).json()["data"] == {"k": "v"}
    assert client.ask("DELETE", f"{client.maps}/a").status_code == 200
    assert not client.exists("a")
    assert client.ask("GET", "/api").json()["versions"] == ["v1"]
    assert not proxy.faults.injected


def test_requests_are_named_as_rbac_names_them() -> None:
    group = "/apis/workspace-operator.dev/v1alpha1"
    cases = {
        ("GET", "/api/v1/namespaces"): "list namespaces",
        ("GET", "/api/v1/namespaces/kube-system"): "get namespaces",
        ("GET", f"{group}/workspaces"): "list workspaces",
        ("PATCH", f"{group}/namespaces/n/workspaces/w/status"): "patch workspaces/status",
        ("DELETE", f"{group}/namespaces/n/workspaces"): "deletecollection workspaces",
        ("POST", "/api/v1/namespaces/n/serviceaccounts/s/token"): "create serviceaccounts/token",
    }
    assert {key: Call.of(*key, {}).action for key in cases} == cases
    assert Call.of("GET", f"{group}/workspaces", {"watch": "true"}).action == "watch workspaces"


@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [("throttled", 429, "TooManyRequests"), ("server_error", 500, "InternalError"), ("timeout", 504, "Timeout")],
)
def test_refusals_have_no_effect(client: Client, proxy: ApiServer, fault: str, code: int, reason: str) -> None:
    setattr(proxy.faults, fault, Rule("create configmaps", every=2, seconds=3))
    assert client.make("a").status_code == 201
    answer = client.make("b")
    assert refused(answer, code, reason)
    assert answer.headers.get("Retry-After") == ("3" if code == 429 else None)
    assert client.names() == {"a"}
    assert proxy.faults.injected == {fault: 1}


def test_a_conflict_changes_nothing_and_hits_writes_only(client: Client, proxy: ApiServer) -> None:
    client.make("a")
    proxy.faults.conflict = Rule("* configmaps")
    assert refused(client.ask("PATCH", f"{client.maps}/a", {"data": {"k": "v"}}), 409, "Conflict")
    assert refused(client.ask("DELETE", f"{client.maps}/a"), 409, "Conflict")
    assert client.make("b").status_code == 201
    assert "data" not in client.ask("GET", f"{client.maps}/a").json()


def test_a_reset_connection_did_nothing_and_a_lost_answer_did_it(client: Client, proxy: ApiServer) -> None:
    proxy.faults.reset = Rule("create *", times=1)
    lose(client, "reset")
    proxy.faults.lost = Rule("create *", times=1)
    lose(client, "lost")
    assert client.names() == {"lost"}


def test_a_timeout_after_the_effect(client: Client, proxy: ApiServer) -> None:
    proxy.faults.timeout_after = Rule("create *")
    assert refused(client.make("a"), 504, "Timeout")
    assert client.exists("a")


def test_slow_and_never_answered(client: Client, proxy: ApiServer) -> None:
    proxy.faults.slow = Rule("get configmaps", seconds=1)
    begin = time.monotonic()
    client.exists("a")
    assert time.monotonic() - begin >= 1
    proxy.faults.slow = Rule("create configmaps", seconds=60)
    with pytest.raises(requests.ReadTimeout):
        client.ask("POST", client.maps, {"metadata": {"name": "a"}}, patience=1)


def test_what_is_expired_is_gone(client: Client, proxy: ApiServer) -> None:
    for name in ("a", "b"):
        client.make(name)
    page = client.ask("GET", f"{client.maps}?limit=1").json()
    proxy.faults.expired = Rule("list *,watch *")
    token = page["metadata"]["continue"]
    assert refused(client.ask("GET", f"{client.maps}?limit=1&continue={token}"), 410, "Expired")
    assert refused(client.ask("GET", f"{client.maps}?watch=true&resourceVersion=1"), 410, "Expired")
    assert client.names() == {"a", "b"}, "a list from its beginning never expires"


def test_a_stale_list_is_the_past_and_a_watch_from_it_brings_the_rest(client: Client, proxy: ApiServer) -> None:
    client.make("old")
    before = time.monotonic()
    client.names()
    until(lambda: time.monotonic() - before > 1.5)
    client.make("new")
    proxy.faults.stale = Rule("list configmaps", seconds=1)
    stale = client.ask("GET", client.maps).json()
    assert {each["metadata"]["name"] for each in stale["items"]} - {"kube-root-ca.crt"} == {"old"}
    version = stale["metadata"]["resourceVersion"]
    path = f"{client.maps}?watch=true&resourceVersion={version}"
    with client.ask("GET", path, stream=True) as answer:
        event = json.loads(next(line for line in answer.iter_lines(chunk_size=None) if line))
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "new")
    proxy.heal()
    assert client.names() == {"old", "new"}


def test_a_watch_is_cut(client: Client, proxy: ApiServer) -> None:
    proxy.faults.watch_cut = Rule("watch configmaps", every=2)
    with client.watch() as events:
        client.make("a")
        assert next(events)["object"]["metadata"]["name"] == "a"
        client.make("b")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            next(events)


def test_a_watch_expires_within(client: Client, proxy: ApiServer) -> None:
    proxy.faults.watch_expired = Rule("watch configmaps")
    with client.watch() as events:
        client.make("a")
        event = next(events)
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert next(events, None) is None


def test_a_watch_falls_silent_and_ends_when_all_is_well_again(client: Client, proxy: ApiServer) -> None:
    proxy.faults.watch_silent = Rule("watch configmaps", seconds=60)
    with client.watch(patience=1.5) as events:
        client.make("a")
        with pytest.raises(requests.ConnectionError):  # urllib3's time-out while reading a stream
            next(events)
    with client.watch() as events:
        client.make("b")
        until(lambda: proxy.faults.injected["watch_silent"] == 2)
        proxy.heal()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            next(events)


def test_the_exempt_are_spared_and_the_dice_fall_the_same_way_again(client: Client, proxy: ApiServer) -> None:
    namespace = client.maps.split("/")[4]
    proxy.faults.exempt = (f"configmaps/{namespace}/spared", "secrets")
    proxy.faults.server_error = Rule("get *")
    assert client.ask("GET", f"{client.maps}/spared").status_code == 404
    assert client.ask("GET", f"{client.maps}/other").status_code == 500
    falls = []
    for _ in range(2):
        proxy.faults = ApiFaults(seed=3, server_error=Rule("get *", share=0.5))
        falls.append([client.exists("a") or client.ask("GET", f"{client.maps}/a").status_code for _ in range(6)])
    assert falls[0] == falls[1]
    assert {404, 500} == set(falls[0])
