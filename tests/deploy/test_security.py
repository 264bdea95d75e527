"""The operator's pod can do no more than it must, and a real API server takes every object."""

from __future__ import annotations

import pytest
import yaml
from tests.support.helm import NAMESPACE, Object, by_key, kustomize, only
from tests.support.operator import ROOT

from controlplane.cluster import LocalCluster

WAYS = ["kustomize", "helm"]


@pytest.mark.parametrize("way", WAYS)
def test_the_pod_is_confined(rendered: dict[str, list[Object]], way: str) -> None:
    pod = only(rendered[way], "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(set(volume) <= {"name", "emptyDir"} for volume in pod["volumes"])
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert {"livenessProbe", "readinessProbe", "startupProbe"} <= set(container)


@pytest.mark.parametrize("way", WAYS)
def test_who_may_lead_is_never_both_down(rendered: dict[str, list[Object]], way: str) -> None:
    """Neither an upgrade nor a drained node takes the last one."""
    deployment = only(rendered[way], "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budget = only(rendered[way], "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        budget["selector"]["matchLabels"],
        only(rendered[way], "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        only(rendered[way], "Service")["spec"]["selector"],
    ):
        assert selector.items() <= labels.items()


@pytest.mark.parametrize("way", WAYS)
def test_the_operator_holds_no_wildcard(rendered: dict[str, list[Object]], way: str) -> None:
    for found in rendered[way]:
        for rule in found.get("rules", ()):
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}, found["metadata"]["name"]
    subjects = [s for found in rendered[way] for s in found.get("subjects", ())]
    own = {"kind": "ServiceAccount", "name": "workspace-operator", "namespace": NAMESPACE}
    assert subjects and all(subject == own for subject in subjects)


def test_the_namespace_asks_for_the_strictest_standard(rendered: dict[str, list[Object]]) -> None:
    labels = only(rendered["kustomize"], "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.cluster
@pytest.mark.parametrize("way", [*WAYS, "local", "production"])
def test_the_api_server_takes_every_object(cluster: LocalCluster, rendered: dict[str, list[Object]], way: str) -> None:
    """With nothing to warn of: no unknown field, no deprecated version, no doubt about the pod's security."""
    found = rendered.get(way) or kustomize(ROOT / "deploy" / "overlays" / way)
    command = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    said = cluster.kubectl(*command, input=yaml.safe_dump_all(found), check=False)
    assert said.count("(server dry run)") == len(by_key(found)), said
    assert "Warning" not in said


@pytest.mark.cluster
def test_a_pod_that_asks_for_more_is_warned_of(cluster: LocalCluster, rendered: dict[str, list[Object]]) -> None:
    """The check above sees it."""
    loose = only(rendered["helm"], "Deployment")
    loose = yaml.safe_load(yaml.safe_dump(loose))
    loose["spec"]["template"]["spec"]["hostNetwork"] = True
    command = ("apply", "--dry-run=server", "-f", "-")
    assert "would violate PodSecurity" in cluster.kubectl(*command, input=yaml.safe_dump(loose), check=False)


@pytest.mark.parametrize("way", WAYS)
def test_no_registry_is_named(rendered: dict[str, list[Object]], way: str) -> None:
    """Where images are is yours to say: a host would have a dot, or a port."""
    (container,) = only(rendered[way], "Deployment")["spec"]["template"]["spec"]["containers"]
    assert not set(container["image"].partition("/")[0]) & {".", ":"}
