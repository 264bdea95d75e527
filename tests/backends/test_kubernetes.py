"""What only the kubernetes driver can get wrong: what stands in a pod, what refusals are called, a start that died
half-way. Against the real API server; whether pods run is shown by tests/conformance and tests/e2e."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.backends.kubernetes_kit import NAMESPACE, SECRET, driver_of, no_secret, request_of, spec_of
from tests.backends.kubernetes_rig import restricted_namespace
from tests.support.fleet import workspace_class

from controlplane.cluster import LocalCluster
from workspace_operator.api import meta
from workspace_operator.api.base import NamespacedRef
from workspace_operator.api.kubernetes import NetworkPolicy, Toleration
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends import kubernetes
from workspace_operator.backends.kubernetes import beside, shape
from workspace_operator.backends.kubernetes.place import Place
from workspace_operator.backends.protocol import ProvisionRequest, Reading, StopRequest
from workspace_operator.errors import BackendUnreachable, BadRequest, OperatorError, QuotaExceeded
from workspace_operator.kube.client import KubeClient, Object, path
from workspace_operator.kube.elsewhere import configuration_from

pytestmark = pytest.mark.cluster
PODS = path("v1/pods", NAMESPACE)


@pytest.fixture
async def client(cluster: LocalCluster, operator_kubeconfig: Path) -> AsyncIterator[KubeClient]:
    """With the operator's own rights, on a namespace that admits the restricted standard; no node runs what is made."""
    restricted_namespace(cluster, NAMESPACE)
    made = KubeClient(await configuration_from(operator_kubeconfig.read_bytes(), "test"))
    yield made
    await made.close()


# -- shape -------------------------------------------------------------------------------------------------------------


def made_pod(request: ProvisionRequest, spec: WorkspaceClassSpec) -> Object:
    assert spec.kubernetes is not None
    return shape.pod(request, spec, Place(spec.kubernetes, Any, no_secret))  # type: ignore[arg-type]


def test_no_secret_stands_in_a_pod_and_no_dollar_is_expanded() -> None:
    """I-53: environment and identity come out of the pod's Secret."""
    made = made_pod(request_of(), spec_of())
    assert SECRET not in json.dumps(made)
    (container,) = made["spec"]["containers"]
    assert container["command"] == ["run", "$$(HOME)"]
    assert {entry["name"]: "value" in entry for entry in container["env"]} == {"API_KEY": False, "WORKSPACE_NAME": True}


def test_the_names_of_the_class_are_in_the_pod() -> None:
    spec = spec_of(
        runtime_class_name="gvisor",
        node_selector={"pool": "agents"},
        tolerations=(Toleration(key="agents", operator="Exists"),),
        priority_class_name="low",
        image_pull_secrets=("registry",),
        run_as_user=1000,
        read_only_root_filesystem=False,
    )
    made = made_pod(request_of(), spec)["spec"]
    assert (made["runtimeClassName"], made["priorityClassName"]) == ("gvisor", "low")
    assert made["nodeSelector"] == {"pool": "agents"}
    assert made["tolerations"] == [{"key": "agents", "operator": "Exists"}]
    assert made["imagePullSecrets"] == [{"name": "registry"}]
    assert (made["securityContext"]["runAsUser"], made["securityContext"]["fsGroup"]) == (1000, 1000)
    assert "tmp" not in [volume["name"] for volume in made["volumes"]]


def test_at_home_the_kubelet_brings_the_token_and_elsewhere_it_is_delivered() -> None:
    """I-50, I-51: one that dies with the pod where that can be; no owner where none can be seen."""
    files = {"lease": b"x"}
    home = made_pod(request_of(files=files), spec_of(namespace=None))
    assert home["metadata"]["ownerReferences"][0]["kind"] == "Workspace"
    assert home["spec"]["serviceAccountName"].startswith("workspace-agent-")
    assert "serviceAccountToken" in json.dumps(home["spec"]["volumes"])
    away = made_pod(request_of(files=files), spec_of())
    assert away["metadata"]["ownerReferences"] == []
    assert away["spec"]["serviceAccountName"] == "default"
    assert "serviceAccountToken" not in json.dumps(away["spec"]["volumes"])
    kube: Any = None
    assert Capability.TOKENS in driver_of(kube, spec_of(namespace=None)).capabilities
    assert Capability.DELIVER in driver_of(kube).capabilities


def test_the_policy_opens_what_the_class_says_and_no_private_address() -> None:
    wish = NetworkPolicy(ingress_namespaces=("ops",), ingress_cidrs=("10.9.0.0/16",), egress_cidrs=("10.1.0.0/16",))
    made = beside.policy(request_of(), wish, [])
    (ingress,) = made["ingress"]
    assert ingress["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert len(ingress["from"]) == 2
    blocks = [each["ipBlock"] for opening in made["egress"] for each in opening.get("to", ())]
    assert {"cidr": "10.1.0.0/16"} in blocks
    (public,) = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(public["except"])
    nobody = beside.policy(request_of(), NetworkPolicy(ingress_namespaces=()), [])
    assert nobody["ingress"] == [], "an empty list of sources would let everybody in"


# -- on the API server -------------------------------------------------------------------------------------------------


async def test_a_start_that_died_half_way_is_finished_by_asking_again(client: KubeClient) -> None:
    """I-05, I-06, I-09: the pod waits behind its gate, belongs to somebody, and what it needs is made for it."""
    driver, request = driver_of(client), request_of()
    url = f"{PODS}/{shape.pod_name(request.ref.uid, 3)}"
    await client.create(PODS, made_pod(request, spec_of()))
    (seen,) = await driver.observe(request.ref)
    assert (seen.reading, seen.incarnation) == (Reading.HALTED, 3)
    await driver.provision(request)
    found = await client.get(url)
    assert "schedulingGates" not in found["spec"]
    for resource in (beside.SECRETS, beside.POLICIES):
        there = await client.get(path(resource, NAMESPACE, found["metadata"]["name"]))
        assert [owner["uid"] for owner in there["metadata"]["ownerReferences"]] == [found["metadata"]["uid"]]
    await driver.stop(StopRequest(request.ref, timedelta(0), release=True))


async def test_a_claim_has_no_owner_and_is_not_deleted_under_a_pod(client: KubeClient) -> None:
    """I-13: neither the garbage collector nor a deletion that comes too early takes data."""
    driver, request = driver_of(client), request_of()
    await driver.provision(request)
    claim = await client.get(path(beside.CLAIMS, NAMESPACE, shape.claim_name(request.ref.uid)))
    assert "ownerReferences" not in claim["metadata"]
    assert await driver.delete_data(request.ref) is False
    again = await client.get(path(beside.CLAIMS, NAMESPACE, shape.claim_name(request.ref.uid)))
    assert "deletionTimestamp" not in again["metadata"]
    await driver.stop(StopRequest(request.ref, timedelta(0), release=True))


async def test_a_claim_asks_for_the_size_of_its_workspace_and_is_then_taken_as_it_is(client: KubeClient) -> None:
    """Without a size it is the class's; one that exists is neither changed nor made anew (I-13)."""
    asked: list[tuple[int | None, str]] = [(None, "7Mi"), (3 * 2**30, "3Gi"), (2**20 + 1, "1025Ki")]
    for size, claimed in asked:
        request = request_of()
        driver, sized = driver_of(client, spec_of(storage_size="7Mi")), replace(request.template, storage=size)
        await driver.provision(replace(request, template=sized))
        url = path(beside.CLAIMS, NAMESPACE, shape.claim_name(request.ref.uid))
        claim = await client.get(url)
        assert claim["spec"]["resources"]["requests"] == {"storage": claimed}
        await driver.stop(StopRequest(request.ref, timedelta(0), release=True))
        other = replace(request, incarnation=4, template=replace(sized, storage=5 * 2**30))
        await driver_of(client, spec_of(storage_size="9Mi")).provision(other)
        again = await client.get(url)
        assert again["metadata"]["uid"] == claim["metadata"]["uid"]
        assert again["spec"]["resources"] == claim["spec"]["resources"]
        await driver.stop(StopRequest(request.ref, timedelta(0), release=True))


async def test_a_limit_range_of_claims_is_named(cluster: LocalCluster, client: KubeClient) -> None:
    """What the namespace allows comes on top of the class's ceiling."""
    small = "pods-with-small-claims"
    restricted_namespace(cluster, small)
    limits = [{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]
    manifest = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": limits}}
    cluster.kubectl("-n", small, "apply", "-f", "-", input=yaml.safe_dump(manifest))
    request = request_of()
    wide = replace(request, template=replace(request.template, storage=2 * 2**30))
    with pytest.raises(BadRequest, match=r"LimitRange .* \(maximum\).* another spec\.storage\.size") as caught:
        await driver_of(client, spec_of(namespace=small)).provision(wide)
    assert caught.value.failure.reason == Reason.RESOURCES_EXCEED_CLASS


async def test_a_stranger_of_our_name_is_left_alone(client: KubeClient) -> None:
    """I-11, I-15."""
    driver, request = driver_of(client), request_of()
    stranger = made_pod(request, spec_of())
    stranger["metadata"]["labels"] = {"app": "theirs"}
    await client.create(PODS, stranger)
    with pytest.raises(OperatorError, match="left alone"):
        await driver.provision(request)
    assert await driver.stop(StopRequest(request.ref, timedelta(0), release=True)) == ()
    there = f"{PODS}/{stranger['metadata']['name']}"
    await client.delete(there, uid=(await client.get(there))["metadata"]["uid"])


async def test_a_grace_is_never_longer_than_the_classs_and_never_by_force(client: KubeClient) -> None:
    sent: list[int | None] = []

    class Watched(KubeClient):
        async def delete(self, url: str, uid: str | None = None, grace: int | None = None) -> None:
            assert uid is not None
            sent.append(grace)

    watched: Any = object.__new__(Watched)
    watched.__dict__ = client.__dict__
    driver, request = driver_of(watched), request_of()
    await driver.provision(request)
    for seconds in (0, 5, 3600):
        await driver.stop(StopRequest(request.ref, timedelta(seconds=seconds)))
    assert sent == [1, 5, 10]
    await driver_of(client).stop(StopRequest(request.ref, timedelta(0), release=True))


async def test_refusals_say_what_to_change(cluster: LocalCluster, client: KubeClient) -> None:
    """I-28, I-53: our sentence, our reason, and nothing of the request."""
    cases: list[tuple[dict[str, Any], dict[str, Any], type[OperatorError], str, str]] = [
        ({"runtime_class_name": "none"}, {}, BadRequest, Reason.MISCONFIGURED, "runtimeClassName"),
        ({"priority_class_name": "none"}, {}, BadRequest, Reason.MISCONFIGURED, "priorityClassName"),
        ({"namespace": "no-such-place"}, {}, BadRequest, Reason.MISCONFIGURED, "does not exist"),
    ]
    for block, more, kind, reason, words in cases:
        with pytest.raises(kind, match=words) as caught:
            await driver_of(client, spec_of(**block)).provision(request_of(**more))
        assert caught.value.failure.reason == reason
        assert SECRET not in str(caught.value)
    full = "pods-without-room"
    restricted_namespace(cluster, full)
    cluster.kubectl("-n", full, "create", "quota", "none", "--hard=pods=0")
    cluster.kubectl("-n", full, "wait", "--for=jsonpath={.status.hard.pods}=0", "resourcequota/none", "--timeout=30s")
    with pytest.raises(QuotaExceeded, match="ResourceQuota none is used up"):
        await driver_of(client, spec_of(namespace=full)).provision(request_of())


async def test_check_names_what_is_missing(cluster: LocalCluster, client: KubeClient) -> None:
    """A field of the class, or a right of the operator; and no answer is no verdict."""
    assert NAMESPACE in await driver_of(client).check()
    for field in ("storage_class_name", "runtime_class_name", "priority_class_name"):
        with pytest.raises(BadRequest, match="no-such-thing does not exist"):
            await driver_of(client, spec_of(**{field: "no-such-thing"})).check()
    with pytest.raises(BadRequest, match=r"kubernetes\.namespace"):
        await driver_of(client, spec_of(namespace="no-such-place")).check()
    reader = cluster.service_account_kubeconfig(NAMESPACE, "default")
    cluster.kubectl(
        "create", "clusterrolebinding", "reader", "--clusterrole=view", f"--serviceaccount={NAMESPACE}:default"
    )
    little = KubeClient(await configuration_from(reader.read_bytes(), "test"))
    try:
        with pytest.raises(BadRequest, match="may not create pods, delete pods"):
            await driver_of(little).check()
        with pytest.raises(BadRequest, match="right to create persistentvolumeclaims in the namespace"):
            await driver_of(little).provision(request_of())
    finally:
        await little.close()


# -- another cluster ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "entry", "told"),
    [
        ("users", {"user": {"exec": {"command": "sh"}}}, "user has exec"),
        ("users", {"user": {"auth-provider": {"name": "gcp"}}}, "user has auth-provider"),
        ("users", {"user": {"tokenFile": "/etc/shadow"}}, "user has tokenFile"),
        ("users", {"user": {"client-key": "/etc/shadow"}}, "user has client-key"),
        ("clusters", {"cluster": {"certificate-authority": "/etc/passwd"}}, "cluster has certificate-authority"),
        ("clusters", {"cluster": {"proxy-url": "http://evil"}}, "cluster has proxy-url"),
        ("clusters", {"cluster": {"server": "http://plain"}}, "no https address"),
        ("clusters", None, "no list of clusters"),
        ("current-context", None, "incomplete"),
    ],
)
async def test_a_kubeconfig_from_a_secret_runs_nothing_and_reads_no_file(part: str, entry: Any, told: str) -> None:
    """I-53: who may write that Secret gets nothing of the operator's machine by it."""
    document: Object = {
        "clusters": [{"name": "n", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "n", "user": {"token": SECRET}}],
        "contexts": [{"name": "n", "context": {"cluster": "n", "user": "n"}}],
        "current-context": "n",
    }
    await configuration_from(yaml.safe_dump(document).encode(), "field")
    if entry is None:
        del document[part]
    else:
        document[part] = [{"name": "n", **entry}]
    with pytest.raises(BadRequest, match=told) as caught:
        await configuration_from(yaml.safe_dump(document).encode(), "field")
    assert SECRET not in str(caught.value)


async def test_a_cluster_that_is_away_is_no_reading() -> None:
    """I-40."""
    content = {"kubeconfig": b"nonsense: ["}

    async def resolve(namespace: str, name: str) -> Mapping[str, bytes]:
        return content

    spec = spec_of(kubeconfig_secret_ref=NamespacedRef(namespace="a", name="b"))
    own: Any = None
    driver = kubernetes.create("pods", spec, "cluster-1", resolve, own)
    with pytest.raises(BadRequest, match="no YAML"):
        await driver.list_owned()
    document = {
        "clusters": [{"name": "n", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "n", "user": {"token": "t"}}],
        "contexts": [{"name": "n", "context": {"cluster": "n", "user": "n"}}],
        "current-context": "n",
    }
    content["kubeconfig"] = yaml.safe_dump(document).encode()
    with pytest.raises(BackendUnreachable):
        await driver.list_owned()
    await driver.close()


def test_what_a_pod_is_called_fits_a_label() -> None:
    """I-05: names are DNS labels of at most 63 characters, also in a hundred years of restarts."""
    assert len(shape.pod_name(str(uuid.uuid4()), 10**9)) <= 63
    assert meta.LABEL_UID in shape.selector(uid="u")


# -- the class's block -------------------------------------------------------------------------------------------------


def asked(cluster: LocalCluster, block: Object) -> str:
    """What the API server says to a class with this block; nothing is stored."""
    manifest = yaml.safe_dump(workspace_class("asked", kubernetes=block))
    return cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=manifest, check=False)


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"runAsUser": 0}, "greater than or equal to 1"),
        ({"storageSize": "1"}, "must be a quantity from 1Mi to 64Ti"),
        ({"accessMode": "ReadOnlyMany"}, '"ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"'),
        ({"namespace": "Not_A_Name"}, "should match"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "operator Exists takes no value"),
        ({"tolerations": [{"value": "b"}]}, "without a key, operator must be Exists"),
        ({"tolerations": [{"key": "a", "tolerationSeconds": 5}]}, "needs effect: NoExecute"),
        ({"networkPolicy": {"egressCidrs": ["10.0.0.0"]}}, "write address ranges"),
        ({"networkPolicy": {"enabled": False, "ingressCidrs": ["10.0.0.0/8"]}}, "openings need networkPolicy.enabled"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write_instead(
    cluster: LocalCluster, block: Object, told: str
) -> None:
    assert told in asked(cluster, block)


def test_an_empty_block_is_a_whole_class(cluster: LocalCluster) -> None:
    assert "created (server dry run)" in asked(cluster, {})
