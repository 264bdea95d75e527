"""Scenarios of the kubernetes backend, for the rights that only it needs. There is no node: no pod is placed, and where
one must be Running, the play says so in the kubelet's stead."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter

from tests.deploy.plays import NEEDED_IN, Play, Stage, rows
from tests.deploy.rights import Right
from tests.support.fleet import Fleet, Object, workspace, workspace_class
from tests.support.operator import ROOT
from tests.support.pods import pod

from workspace_operator.api import meta

HOME, APART = "pods", "pods-apart"  # classes; the second has all pods in a namespace of that name
_NAMED = "rights"  # what a class may name
_NET = "networking.k8s.io"
_serial = itertools.count(1)


def prepare(stage: Stage) -> None:
    """Two classes of pods, and what a third will name."""
    stage.cluster.kubectl("create", "namespace", APART)
    Fleet(stage.cluster, "default").apply(
        _class(stage, HOME),
        _class(stage, APART, namespace=APART),
        _cluster_wide("storage.k8s.io/v1", "StorageClass", provisioner="example.com/none"),
        _cluster_wide("node.k8s.io/v1", "RuntimeClass", handler="none"),
        _cluster_wide("scheduling.k8s.io/v1", "PriorityClass", value=1),
    )


def apply_class(stage: Stage, name: str, **block: object) -> None:
    """One more class of pods."""
    Fleet(stage.cluster, "default").apply(_class(stage, name, **block))


def _class(stage: Stage, name: str, **block: object) -> Object:
    spec = {"stopGracePeriod": "1s", "observeInterval": "2s", "identity": {"server": stage.cluster.server}}
    return workspace_class(name, kubernetes={"storageSize": "1Mi", **block}, **spec)


def _cluster_wide(api_version: str, kind: str, **more: object) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": _NAMED}, **more}


def told(stage: Stage, missing: Right) -> str:
    """What the operator says of a missing right: of a workspace, of a class, or to who asked for logs.

    A class that is new is looked at at once.
    """
    fleet, name = Fleet(stage.cluster, "default"), f"asked-{next(_serial)}"
    fleet.apply(_class(stage, name))
    what = f"{missing.verb} {missing.resource}"
    fits = re.compile(rf"right to {what} .* is missing; deploy/base/rbac|may not (.*, )?{what}\b.*; deploy/base/rbac")
    try:
        return stage.hear(lambda: next(filter(fits.search, [*stage.heard, *_messages(stage, name)]), ""))
    finally:
        fleet.drop_classes(name)


def _messages(stage: Stage, asked: str) -> list[str]:
    """Those of workspaces first; none until the new class has been looked at."""
    said: list[str] = []
    for kind in ("workspaces", "workspaceclasses"):
        for each in json.loads(stage.fleet.kubectl("get", kind, "-o=json"))["items"]:
            conditions = each.get("status", {}).get("conditions", ())
            if each["metadata"]["name"] == asked and not conditions:
                return []
            said += [f"{each['kind']}: {condition['message']}" for condition in conditions]
    return said


def doubles(stage: Stage) -> list[str]:
    """Workspaces with more than one pod."""
    pods = json.loads(stage.cluster.kubectl("get", "pods", "-A", "-l", meta.LABEL_UID, "-o=json"))["items"]
    count = Counter(each["metadata"]["labels"][meta.LABEL_UID] for each in pods)
    return [uid for uid, number in count.items() if number > 1]


def pods_of(stage: Stage, name: str) -> list[Object]:
    selector = f"{meta.LABEL_NAME}={name},{meta.LABEL_ROLE}=instance"
    return list(json.loads(stage.cluster.kubectl("get", "pods", "-A", "-l", selector, "-o=json"))["items"])


def running(stage: Stage, name: str = "", class_name: str = HOME, **spec: object) -> Object:
    """The pod of a workspace that is Ready; of a new one, if none is named."""
    if not name:
        name = f"pod-{next(_serial)}"
        stage.fleet.apply(workspace(name, className=class_name, **spec))
    stage.until(lambda: any("schedulingGates" not in pod["spec"] for pod in pods_of(stage, name)))
    (found,) = pods_of(stage, name)
    _say(stage, found, phase="Running")
    stage.ready(name)
    return found


def _say(stage: Stage, pod: Object, **status: object) -> None:
    """As its kubelet would."""
    place = ("-n", pod["metadata"]["namespace"], "patch", "pod", pod["metadata"]["name"], "--subresource=status")
    stage.cluster.kubectl(*place, "-p", json.dumps({"status": status}))


def _unstarted(stage: Stage, class_name: str = HOME, **spec: object) -> tuple[str, str]:
    """Name and UID of a workspace that does not start yet."""
    name = f"pod-{next(_serial)}"
    stage.fleet.apply(workspace(name, className=class_name, desiredState="Stopped", **spec))
    return name, str(stage.fleet.get(name)["metadata"]["uid"])


def _unplaced(stage: Stage, **spec: object) -> str:
    """A workspace with a data volume, whose pod waits for a node."""
    name = f"pod-{next(_serial)}"
    data = {"mountPath": "/data", "whenDeleted": "Delete"}
    stage.fleet.apply(workspace(name, className=HOME, storage=data, **spec))
    stage.until(lambda: stage.has_used(Right("", "pods", "patch")))
    return name


# -- plays -------------------------------------------------------------------------------------------------------------


def live(stage: Stage) -> None:
    """A pod starts behind its policy, and is deleted for a pause."""
    stage.pause(running(stage)["metadata"]["labels"][meta.LABEL_NAME])


def keep(stage: Stage) -> None:
    """A second pod comes to the claim and the Service of the first, on another port; then the data goes."""
    name = _unplaced(stage, agent={"port": 8080, "probe": "TCP"})
    stage.pause(name)
    stage.fleet.patch(name, agent={"port": 8081}, desiredState="Running")
    stage.until(lambda: stage.has_used(Right("", "services", "patch")))
    stage.fleet.kubectl("delete", "workspace", name, "--wait=false")
    stage.until(lambda: not stage.fleet.kubectl("get", "workspace", name, "--ignore-not-found"))


def half(stage: Stage) -> None:
    """The policy of an earlier pod of the same name is still going; meanwhile what is in the Secret changes."""
    settings = f"settings-{next(_serial)}"
    stage.fleet.kubectl("create", "configmap", settings, "--from-literal=A=b")
    name, uid = _unstarted(stage, envFrom=[{"configMapRef": {"name": settings}}])
    left = _left_behind(stage, uid, apiVersion=f"{_NET}/v1", kind="NetworkPolicy", spec={"podSelector": {}})
    stage.fleet.apply(left)
    stage.fleet.desire(name, "Running")
    stage.until(lambda: stage.has_used(Right(_NET, "networkpolicies", "delete")))
    stage.fleet.kubectl("patch", "configmap", settings, "--type=merge", "-p", json.dumps({"data": {"A": "c"}}))
    stage.until(lambda: stage.has_used(Right("", "secrets", "update")))
    stage.free(f"networkpolicy.{_NET}", left["metadata"]["name"])
    running(stage, name)


def heir(stage: Stage, class_name: str) -> tuple[str, str]:
    """A workspace of a class apart starts over a Secret that is still going; its name and the Secret's."""
    name, uid = _unstarted(stage, class_name)
    left = _left_behind(stage, uid, apiVersion="v1", kind="Secret")
    Fleet(stage.cluster, APART).apply(left)
    stage.fleet.desire(name, "Running")
    return name, str(left["metadata"]["name"])


def _left_behind(stage: Stage, uid: str, **more: object) -> Object:
    """What goes with an earlier pod of a workspace's first name."""
    name = f"wsp-{uid}-1"
    cluster = stage.cluster.kubectl("get", "namespace", "kube-system", "-o=jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "00000000-0000-0000-0000-000000000000"}
    labels = {meta.LABEL_CLUSTER: cluster, meta.LABEL_UID: uid}
    # As in plays.adopt: the garbage collector might be faster.
    metadata = {"name": name, "labels": labels, "finalizers": ["example.com/kept"], "ownerReferences": [owner]}
    return {"metadata": metadata, **more}


def meet(stage: Stage) -> None:
    """A pod of somebody else has the name; it is looked at, and left alone."""
    name, uid = _unstarted(stage)
    stranger = f"wsp-{uid}-1"
    stage.fleet.apply(pod(stranger))
    stage.fleet.desire(name, "Running")
    stage.until(lambda: stage.has_used(Right("", "pods", "get")))
    stage.until(lambda: "left alone" in (stage.fleet.condition(name, "Ready") or {}).get("message", ""))
    stage.fleet.kubectl("delete", "pod", stranger)
    running(stage, name)


def renew(stage: Stage) -> None:
    """A token that the operator has delivered ends soon, and the next one replaces it."""
    name = running(stage, class_name=APART)["metadata"]["labels"][meta.LABEL_NAME]
    soon = json.dumps({"status": {"credentials": {"expires": "2020-01-01T00:00:00Z"}}})
    stage.fleet.kubectl("patch", "workspace", name, "--subresource=status", "--type=merge", "-p", soon)
    stage.until(lambda: stage.has_used(Right("", "secrets", "patch")))


def doubt(stage: Stage) -> None:
    """A pod looks as if its node had fallen silent: does that still answer?"""
    pod = running(stage)
    reference = {"name": pod["metadata"]["name"]}
    target = {"apiVersion": "v1", "kind": "Node", "name": "nobody"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": reference, "target": target}
    stage.fleet.kubectl("create", "-f", "-", input=json.dumps(binding))
    try:
        silent = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
        _say(stage, pod, conditions=silent)
        stage.until(lambda: stage.has_used(Right("", "nodes", "get")))
    finally:
        # Only its kubelet would end it otherwise.
        stage.fleet.kubectl("delete", "pod", reference["name"], "--force", "--grace-period=0", "--ignore-not-found")


def name_all(stage: Stage) -> None:
    """A class is new that names whatever a class of pods can name, and its pods are followed."""
    name = f"naming-{next(_serial)}"
    named = dict.fromkeys(("storageClassName", "runtimeClassName", "priorityClassName"), _NAMED)
    Fleet(stage.cluster, "default").apply(_class(stage, name, namespace=APART, **named))
    try:
        stage.until(lambda: "True" in stage.cluster.kubectl("get", "workspaceclass", name))
        stage.until(lambda: stage.has_used(Right("", "pods", "watch")))
    except BaseException:
        stage.heard += _messages(stage, name)  # it alone names these
        raise
    finally:
        Fleet(stage.cluster, "default").drop_classes(name)


def read(stage: Stage) -> None:
    """Somebody asks for logs with the operator's account: `kubectl exec … -- workspace-operator logs`."""
    name = _unplaced(stage)  # so the API server itself answers that there is no output yet
    environment = {"KUBECONFIG": str(stage.account), "PYTHONPATH": str(ROOT / "operator")}
    command = [sys.executable, "-m", "workspace_operator", "logs", name, "-n", stage.fleet.namespace]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    stage.heard.append(asked.stderr.strip())
    stage.until(lambda: stage.has_used(Right("", "pods/log", "get")))


#: Each right that the kubernetes backend alone needs, and the play that fails without it.
NEEDED_BY_PODS: dict[Right, Play] = {
    **rows(live, "", "pods", "create delete list patch"),
    **rows(live, _NET, "networkpolicies", "create"),
    **rows(live, "discovery.k8s.io", "endpointslices", "list"),
    **rows(keep, "", "persistentvolumeclaims", "create delete get"),
    **rows(keep, "", "services", "create get patch"),
    **rows(half, _NET, "networkpolicies", "delete get"),
    **rows(half, "", "secrets", "update"),
    **rows(meet, "", "pods", "get"),
    **rows(renew, "", "secrets", "patch"),
    **rows(doubt, "", "nodes", "get"),
    **rows(name_all, "", "namespaces", "get"),
    **rows(name_all, "", "pods", "watch"),
    **rows(name_all, "storage.k8s.io", "storageclasses", "get"),
    **rows(name_all, "node.k8s.io", "runtimeclasses", "get"),
    **rows(name_all, "scheduling.k8s.io", "priorityclasses", "get"),
    **rows(read, "", "pods/log", "get"),
}

#: All of them.
ROWS: dict[Right, Play] = {**NEEDED_IN, **NEEDED_BY_PODS}
