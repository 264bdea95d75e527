"""Kustomize and Helm install the same; what a value says arrives where it belongs; a wrong value is refused by name."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.helm import BASE, CHART, NAMESPACE, Helm, HelmError, Object, by_key, key, kustomize, objects, only
from tests.support.operator import ROOT

from workspace_operator import __main__ as cli
from workspace_operator import settings

OVERLAYS = ROOT / "deploy" / "overlays"
# Whose hand it is, and that Helm leaves CRDs where they are.
HELMS_OWN = {
    "labels": (
        "app.kubernetes.io/instance",
        "app.kubernetes.io/version",
        "app.kubernetes.io/managed-by",
        "helm.sh/chart",
    ),
    "annotations": ("helm.sh/resource-policy",),
}


def plain(found: Object) -> Object:
    """Without what Helm adds to every object."""
    found = copy.deepcopy(found)
    for group, names in HELMS_OWN.items():
        for name in names:
            found["metadata"].get(group, {}).pop(name, None)
        if not found["metadata"].get(group, True):
            del found["metadata"][group]
    return found


def test_both_ways_install_the_same_objects(rendered: dict[str, list[Object]]) -> None:
    """But for the namespace: Helm's release lives in one that was made before it."""
    by_kustomize = by_key(rendered["kustomize"])
    del by_kustomize["v1", "Namespace", "", NAMESPACE]
    by_helm = by_key(map(plain, rendered["helm"]))
    assert set(by_helm) == set(by_kustomize)
    for name, found in by_kustomize.items():
        assert by_helm[name] == found, name


def test_the_chart_is_whole_when_it_is_packed(helm: Helm, rendered: dict[str, list[Object]], tmp_path: Path) -> None:
    """Its links lead out of its folder; a package has the files themselves. Helm's own check finds nothing."""
    helm("lint", "--strict", str(CHART))
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("workspace-operator-*.tgz")
    assert objects(helm("template", "workspace-operator", str(package), "--namespace", NAMESPACE)) == rendered["helm"]


@pytest.mark.parametrize("way", ["kustomize", "helm"])
def test_everything_bears_our_name(rendered: dict[str, list[Object]], way: str) -> None:
    for found in rendered[way]:
        assert found["metadata"]["labels"]["app.kubernetes.io/name"] == "workspace-operator", key(found)


def test_the_rights_can_be_applied_alone() -> None:
    """For an operator outside of the cluster: `kubectl apply -f crds/ -f deploy/base/` must find no pods there."""
    files = [*(ROOT / "crds").glob("*.yaml"), *BASE.glob("*.yaml"), *BASE.glob("*.yml"), *BASE.glob("*.json")]
    kinds = {found["kind"] for file in files for found in yaml.safe_load_all(file.read_text())}
    assert "ClusterRole" in kinds
    assert not kinds & {"Deployment", "Kustomization", "Service", "PodDisruptionBudget", "NetworkPolicy"}


def test_the_overlays_differ_in_what_they_are_for() -> None:
    local = only(kustomize(OVERLAYS / "local"), "Deployment")
    (container,) = local["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("workspace-operator/operator:dev", "Never")
    assert local["spec"]["replicas"] == 1
    production = only(kustomize(OVERLAYS / "production"), "Deployment")
    pod = production["spec"]["template"]["spec"]
    assert production["spec"]["replicas"] == 2
    assert pod["priorityClassName"] == "system-cluster-critical"
    spread = {each["topologyKey"]: each["whenUnsatisfiable"] for each in pod["topologySpreadConstraints"]}
    assert spread == {"kubernetes.io/hostname": "DoNotSchedule", "topology.kubernetes.io/zone": "ScheduleAnyway"}


def at(found: Any, path: str) -> Any:
    """A tilde stands for a slash in a name."""
    for step in path.split("/"):
        found = found[int(step)] if step.isdigit() else found[step.replace("~", "/")]
    return found


POD, MAIN = "spec/template/spec", "spec/template/spec/containers/0"
DIGEST = f"sha256:{'a' * 64}"
VOLUME = {"name": "data", "emptyDir": {}}
MOUNT = {"name": "data", "mountPath": "/data"}
# Value, what it is set to, and where (kind, path) it is then found.
SETTINGS: list[tuple[str, Any, str, str, Any]] = [
    ("image.tag", "1.2.3", "Deployment", f"{MAIN}/image", "team/op:1.2.3"),
    ("image.repository", "team/op", "Deployment", f"{MAIN}/image", "team/op:1.2.3"),
    (
        "image.digest",
        "sha256:" + "a" * 64,
        "Deployment",
        f"{MAIN}/image",
        f"workspace-operator/operator@sha256:{'a' * 64}",
    ),
    ("image.pullPolicy", "Always", "Deployment", f"{MAIN}/imagePullPolicy", "Always"),
    ("imagePullSecrets", [{"name": "pull"}], "Deployment", f"{POD}/imagePullSecrets/0/name", "pull"),
    ("replicas", 3, "Deployment", "spec/replicas", 3),
    ("settings.logFormat", "text", "Deployment", f"{MAIN}/env/0/value", "text"),
    ("settings.logLevel", "DEBUG", "Deployment", f"{MAIN}/env/1/value", "DEBUG"),
    ("settings.workers", 7, "Deployment", f"{MAIN}/env/2/value", "7"),
    ("extraArgs", ["--lease=x"], "Deployment", f"{MAIN}/args", ["run", "--lease=x"]),
    ("extraEnv", [{"name": "A", "value": "b"}], "Deployment", f"{MAIN}/env/3", {"name": "A", "value": "b"}),
    ("extraVolumes", [VOLUME], "Deployment", f"{POD}/volumes/1", VOLUME),
    ("extraVolumeMounts", [MOUNT], "Deployment", f"{MAIN}/volumeMounts/1", MOUNT),
    ("serviceAccount.annotations", {"a": "b"}, "ServiceAccount", "metadata/annotations", {"a": "b"}),
    ("resources", {"limits": {"memory": "2Gi"}}, "Deployment", f"{MAIN}/resources/limits/memory", "2Gi"),
    ("podDisruptionBudget.maxUnavailable", "50%", "PodDisruptionBudget", "spec/maxUnavailable", "50%"),
    ("networkPolicy.metricsFrom", [{"podSelector": {}}], "NetworkPolicy", "spec/ingress/0/from", [{"podSelector": {}}]),
    ("networkPolicy.egressPorts", [443], "NetworkPolicy", "spec/egress/1/ports", [{"protocol": "TCP", "port": 443}]),
    ("networkPolicy.extraEgress", [{"to": []}], "NetworkPolicy", "spec/egress/3", {"to": []}),
    ("terminationGracePeriodSeconds", 60, "Deployment", f"{POD}/terminationGracePeriodSeconds", 60),
    ("podAnnotations", {"a": "b"}, "Deployment", "spec/template/metadata/annotations", {"a": "b"}),
    ("podLabels", {"a": "b"}, "Deployment", "spec/template/metadata/labels/a", "b"),
    ("priorityClassName", "high", "Deployment", f"{POD}/priorityClassName", "high"),
    ("nodeSelector", {"a": "b"}, "Deployment", f"{POD}/nodeSelector", {"a": "b"}),
    ("tolerations", [{"operator": "Exists"}], "Deployment", f"{POD}/tolerations", [{"operator": "Exists"}]),
    ("affinity", {"podAffinity": {}}, "Deployment", f"{POD}/affinity", {"podAffinity": {}}),
    ("podSecurityContext.runAsUser", 7, "Deployment", f"{POD}/securityContext/runAsUser", 7),
    ("securityContext.privileged", False, "Deployment", f"{MAIN}/securityContext/privileged", False),
    (
        "topologySpreadConstraints",
        [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "Deployment",
        f"{POD}/topologySpreadConstraints/0/labelSelector/matchLabels/app.kubernetes.io~component",
        "operator",
    ),
]
SWITCHES = {"crds.install": "CustomResourceDefinition", "podDisruptionBudget.enabled": "PodDisruptionBudget"}
SWITCHES |= {"networkPolicy.enabled": "NetworkPolicy"}


def test_every_value_arrives(helm: Helm) -> None:
    """All at once: a rendering takes half a second."""
    alone = {"image.digest"}
    together = helm.template({name: value for name, value, *_ in SETTINGS if name not in alone})
    for name, value, kind, path, expected in SETTINGS:
        found = only(helm.template({name: value}) if name in alone else together, kind)
        assert at(found, path) == expected, name


def test_every_value_of_the_chart_is_tried() -> None:
    def leaves(node: Any, path: str = "") -> set[str]:
        """Paths of what can be set; what SETTINGS sets as a whole is one."""
        if not isinstance(node, dict) or not node or path in tried:
            return {path}
        return {leaf for name, value in node.items() for leaf in leaves(value, f"{path}.{name}".lstrip("."))}

    tried = {name for name, *_ in SETTINGS} | set(SWITCHES)
    untried = leaves(yaml.safe_load((CHART / "values.yaml").read_text())) - tried
    assert {name for name in untried if not name.lower().startswith(("podsecuritycontext", "securitycontext"))} == set()


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_removes_its_objects_and_no_other(helm: Helm, rendered: dict[str, list[Object]], name: str) -> None:
    without = by_key(helm.template({name: False}))
    gone = set(by_key(rendered["helm"])) - set(without)
    assert {kind for _, kind, *_ in gone} == {SWITCHES[name]}
    assert SWITCHES[name] not in {kind for _, kind, *_ in without}


def test_the_release_may_live_in_another_namespace(helm: Helm) -> None:
    elsewhere = objects(helm("template", "mine", str(CHART), "--namespace", "elsewhere"))
    for found in elsewhere:
        assert found["metadata"].get("namespace", "elsewhere") == "elsewhere", key(found)
        assert {subject["namespace"] for subject in found.get("subjects", ())} <= {"elsewhere"}


WRONG: list[tuple[str, Any, str]] = [
    ("replicas", "two", "replicas"),
    ("replicas", -1, "replicas"),
    ("image.pullPolicy", "Sometimes", "image/pullPolicy"),
    ("image.digest", "sha256:short", "image/digest"),
    ("image.registry", "somewhere", "registry"),
    ("settings.logFormat", "xml", "settings/logFormat"),
    ("settings.workers", 0, "settings/workers"),
    ("podDisruptionBudget.maxUnavailable", "some", "podDisruptionBudget/maxUnavailable"),
    ("networkPolicy.egressPorts", [70000], "networkPolicy/egressPorts/0"),
    ("nodeSelector", {"a": 1}, "nodeSelector/a"),
    ("crds.install", "yes", "crds/install"),
    ("extraVolumes", [{"emptyDir": {}}], "extraVolumes/0"),
    ("terminationGracePeriodSeconds", 5, "terminationGracePeriodSeconds"),
    ("replicaCount", 2, "replicaCount"),
]


@pytest.mark.parametrize(("name", "value", "named"), WRONG, ids=[f"{name}={value}" for name, value, _ in WRONG])
def test_a_wrong_value_is_refused_by_name(helm: Helm, name: str, value: Any, named: str) -> None:
    """A misspelt name too, which Helm by itself would pass over."""
    with pytest.raises(HelmError, match=named.replace("/", "[/.]")):
        helm.template({name: value})


def test_the_pods_variables_are_settings_of_the_operator(
    rendered: dict[str, list[Object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renamed flag would else leave a value of the chart without effect."""
    (container,) = only(rendered["helm"], "Deployment")["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    seen: list[settings.Settings] = []

    def run(arguments: argparse.Namespace) -> int:
        seen.append(settings.from_arguments(arguments))
        return 0

    monkeypatch.setattr(cli, "_run", run)
    assert cli.main(container["args"]) == 0
    assert (seen[0].log_format, seen[0].log_level, seen[0].workers) == ("json", "INFO", 32)
    assert seen[0].listen_port == container["ports"][0]["containerPort"]
    names = {"WORKSPACE_OPERATOR_LOG_FORMAT", "WORKSPACE_OPERATOR_LOG_LEVEL", "WORKSPACE_OPERATOR_WORKERS"}
    assert {variable["name"] for variable in container["env"]} == names
