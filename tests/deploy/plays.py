"""Small scenarios that make the operator use its rights, and the table of which right is needed in which.

A new right in deploy/base/rbac.yaml needs a row here: the play in which the operator uses it. Those of the kubernetes
backend are in pod_plays.py.
"""

from __future__ import annotations

import itertools
import json
import ssl
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import yaml
from tests.deploy.rights import USER, Audit, Right, refusal, roles, used, without
from tests.support.delegations import Tasks, delegation_class, obedient, sender
from tests.support.fleet import Fleet, Object, workspace, workspace_class
from tests.support.manifests import process_images
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster
from workspace_operator.api import meta

PATIENCE = 60.0
# Of what a workspace has under its name; written as kubectl takes it.
_RBAC, _LEASES = "rbac.authorization.k8s.io", "coordination.k8s.io"
_KINDS = ("ServiceAccount", "Secret", f"Lease.{_LEASES}", f"Role.{_RBAC}", f"RoleBinding.{_RBAC}")
_POLICIES = "NetworkPolicy.networking.k8s.io"
_serial = itertools.count(1)


class Refused(Exception):
    """The API server refused what the play is about; the message is its sentence."""


class Stage:
    """A cluster that notes what the operator asks, the operator, and the rights that it has."""

    def __init__(self, cluster: LocalCluster, operator: Operator, account: Path, directory: Path) -> None:
        self.cluster, self.operator, self.account = cluster, operator, account
        self.heard: list[str] = []  # what was said to others than to workspaces and classes
        self.audit = Audit(cluster.audit_log)
        self.missing: Right | None = None
        self.fleet = Fleet(cluster, "rights")
        self.tasks = Tasks(self.fleet)
        self.directory = directory
        cluster.kubectl("create", "namespace", "rights")
        delegation_class(cluster, directory)

    def restrict(self, missing: Right | None) -> None:
        """Take one right away, or give back what was; from when this returns."""
        was, self.missing = self.missing, missing
        reduced = [each if missing is None else without(each, missing) for each in roles()]
        self.cluster.kubectl("replace", "-f", "-", input=yaml.safe_dump_all(reduced))
        changed = missing or was
        if changed is not None:
            answer = "yes" if missing is None else "no"
            _wait(lambda: self._may(changed) == answer, lambda: f"{changed} is not yet {answer}")
        self.audit.mark()

    def _may(self, right: Right) -> str:
        resource, _, sub = right.resource.partition("/")
        target = f"{resource}.{right.group}" if right.group else resource
        about = (f"{target}/{right.name}" if right.name else target, *((f"--subresource={sub}",) if sub else ()))
        said = self.cluster.kubectl("auth", "can-i", right.verb, *about, "-n=rights", f"--as={USER}", check=False)
        return next((line[:3].strip() for line in said.splitlines() if line.startswith(("yes", "no"))), said)

    def until(self, reached: Callable[[], object]) -> None:
        """Wait for it; end at once when the missing right was refused."""

        def look() -> object:
            sentence = self.missing and refusal(self.missing, self.audit.requests())
            if sentence:
                raise Refused(sentence)
            return reached()

        _wait(look, self.operator.tail)

    def hear(self, listen: Callable[[], str]) -> str:
        """Wait until something is said, whatever is refused meanwhile."""
        said: list[str] = []

        def heard() -> bool:
            said[:] = [listen()]
            return bool(said[0])

        _wait(heard, self.operator.tail)
        return said[0]

    def has_used(self, right: Right) -> bool:
        """The operator has, since the play began."""
        return used(right, self.audit.requests())

    def completed(self, task: str) -> bool:
        return self.tasks.phase(task) == "Completed"

    def start(self) -> None:
        """The operator anew, until it leads."""
        self.operator.stop()
        self.operator.start(wait=False)
        self.until(lambda: self.operator.get("/readyz")[0] == 200)

    def clear(self) -> None:
        """Nothing of a play that was cut short is left to ask for anything in the next."""
        if not self.operator.alive:
            self.operator.start()
        self.until(lambda: self.operator.get("/readyz")[0] == 200)
        self.heard.clear()
        held = json.loads(self.fleet.kubectl("get", ",".join((*_KINDS, _POLICIES)), "-o=json"))["items"]
        for each in held:
            if each["metadata"].get("finalizers"):
                self.free(each["kind"], each["metadata"]["name"])
        wait = f"--timeout={PATIENCE:.0f}s"
        self.fleet.kubectl("delete", "delegations,workspaces", "--all", wait, timeout=PATIENCE + 10)
        self.audit.mark()

    def free(self, kind: str, name: str) -> None:
        """Let an object go that a play has held."""
        finalizers = json.dumps({"metadata": {"finalizers": None}})
        self.fleet.kubectl("patch", kind, name, "--type=merge", "-p", finalizers)

    def new(self, **spec: Any) -> str:
        """A workspace, running."""
        name = f"w{next(_serial)}"
        self.fleet.apply(workspace(name, **{"className": "delegations", "image": "sleep", **spec}))
        self.ready(name)
        return name

    def ready(self, name: str) -> None:
        self.until(lambda: (c := self.fleet.condition(name, "Ready")) is not None and c["status"] == "True")

    def pause(self, name: str) -> None:
        self.fleet.desire(name, "Paused")
        self.until(lambda: self.fleet.phase(name) == "Paused")

    def resume(self, name: str) -> None:
        self.fleet.desire(name, "Running")
        self.until(lambda: self.fleet.phase(name) == "Running")


def _wait(probe: Callable[[], object], explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not probe():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE:.0f} s: {explain()}")
        time.sleep(0.1)


# -- plays -------------------------------------------------------------------------------------------------------------


def start(stage: Stage) -> None:
    """The first operator of a cluster takes the lead and lists everything."""
    stage.operator.kill()
    stage.cluster.kubectl("delete", "lease", "workspace-operator", "-n=workspace-operator-system", "--ignore-not-found")
    stage.start()
    # The watches begin a moment after the lists.
    watches = {Right(meta.GROUP, each, "watch") for each in ("workspaces", "workspaceclasses", "delegations")}
    watches.add(Right(_LEASES, "leases", "watch"))
    stage.until(lambda: all(map(stage.has_used, watches)))
    stage.until(lambda: stage.has_used(Right(_LEASES, "leases", "update")))


def run(stage: Stage) -> None:
    """A workspace starts, with a reference, and tells of it."""
    name = f"refers-{next(_serial)}"
    stage.fleet.kubectl("create", "configmap", name, "--from-literal=A=b")
    name = stage.new(envFrom=[{"configMapRef": {"name": name}}])
    stage.until(
        lambda: (
            name in stage.fleet.kubectl("get", "events", "-o=name", "--field-selector", f"involvedObject.name={name}")
        )
    )


def trust(stage: Stage) -> None:
    """A new operator's first workspace: is the policy bound that sees to it who delegates?"""
    stage.start()
    stage.new()


def again(stage: Stage) -> None:
    """A workspace pauses, which ends its token, and comes back to what is there; one object is of an old release."""
    name = stage.new()
    account = f"workspace-{name}"
    renewed = json.dumps({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z", "holderIdentity": "old"}})
    stage.pause(name)
    stage.fleet.kubectl("patch", "lease", account, "--type=merge", "-p", renewed)
    stage.fleet.kubectl("patch", "role", account, "--type=merge", "-p", json.dumps({"rules": []}))
    stage.resume(name)


def adopt(stage: Stage) -> None:
    """A workspace finds, under the names of its own objects, those of one that is gone."""
    name = f"heir-{next(_serial)}"
    # The garbage collector might be faster: a finalizer keeps the objects, and the operator asks all the same.
    stage.fleet.apply(*(_left_behind(kind, name) for kind in _KINDS))
    stage.fleet.apply(workspace(name, className="delegations", image="sleep"))
    for kind in _KINDS:
        singular, _, group = kind.lower().partition(".")
        right = Right(group, f"{singular}s", "delete")
        stage.until(partial(stage.has_used, right))
        stage.free(kind, f"workspace-{name}")
    stage.ready(name)


def _left_behind(kind: str, name: str) -> Object:
    kind, _, group = kind.partition(".")
    owner = {
        "apiVersion": meta.API_VERSION,
        "kind": "Workspace",
        "name": name,
        "uid": "00000000-0000-0000-0000-000000000000",
    }
    metadata = {
        "name": f"workspace-{name}",
        "finalizers": ["example.com/kept"],
        "labels": {meta.MANAGED_BY_LABEL: meta.MANAGED_BY},
        "ownerReferences": [owner],
    }
    more: Object = {"apiVersion": f"{group}/v1" if group else "v1", "kind": kind, "metadata": metadata}
    if kind == "RoleBinding":
        more["roleRef"] = {"apiGroup": group, "kind": "Role", "name": f"workspace-{name}"}
    return more


def delegate(stage: Stage) -> None:
    """Two long tasks: the second changes what the sender may read; both are deleted after their time."""
    number = next(_serial)
    planner, worker = f"planner-{number}", f"worker-{number}"
    stage.fleet.apply(sender(planner), obedient(worker))
    stage.ready(worker)
    for task in ("one", "two"):
        name = f"{planner}.{task}"
        stage.tasks.give(name, planner, worker, "long 10000", ttlAfterFinished="5s")
        stage.until(partial(stage.completed, name))
    stage.until(lambda: stage.has_used(Right(_RBAC, "roles", "update")))
    stage.until(lambda: not stage.tasks.all(planner))


def offer(stage: Stage) -> None:
    """A class is new, is looked at, and goes."""
    name = f"class-{next(_serial)}"
    stage.fleet.apply(workspace_class(name, process=process_images(stage.directory)))
    stage.until(lambda: "True" in stage.cluster.kubectl("get", "workspaceclass", name))
    stage.cluster.kubectl("delete", "workspaceclass", name, "--wait=false")
    stage.until(lambda: not stage.cluster.kubectl("get", "workspaceclass", name, "--ignore-not-found"))


def collide(stage: Stage) -> None:
    """Somebody writes class and workspace all the time: the operator's writes meet conflicts, and it reads anew."""
    name = stage.new()
    paths = ("workspaceclasses/delegations", f"namespaces/rights/workspaces/{name}")
    reads = [Right(meta.GROUP, each, "get") for each in ("workspaceclasses", "workspaces")]
    wishes = itertools.cycle(("Paused", "Running"))

    def collided() -> bool:
        stage.fleet.desire(name, next(wishes))
        _annotate(stage.cluster, [f"/apis/{meta.API_VERSION}/{path}" for path in paths], times=300)
        return all(map(stage.has_used, reads))

    stage.until(collided)


def _annotate(cluster: LocalCluster, paths: list[str], times: int) -> None:
    """As fast as it goes, on one connection."""
    certificates = cluster.ca_file.parent
    context = ssl.create_default_context(cafile=str(cluster.ca_file))
    context.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")
    connection = HTTPSConnection("127.0.0.1", cluster.port, timeout=20, context=context)
    headers = {"Content-Type": "application/merge-patch+json"}
    for number, path in itertools.product(range(times), paths):
        body = {"metadata": {"annotations": {"example.com/number": str(number)}}}
        connection.request("PATCH", path, json.dumps(body), headers)
        connection.getresponse().read()
    connection.close()


Play = Callable[[Stage], None]


def rows(play: Play, group: str, resource: str, verbs: str, name: str = "") -> dict[Right, Play]:
    return {Right(group, resource, verb, name): play for verb in verbs.split()}


_OURS = meta.GROUP
_POLICY = ("admissionregistration.k8s.io", "validatingadmissionpolicybindings")

#: Each right of the operator, and the play that fails without it.
NEEDED_IN: dict[Right, Play] = {
    **rows(start, "", "namespaces", "get", "kube-system"),
    **rows(start, _OURS, "workspaces", "list watch"),
    **rows(start, _OURS, "workspaceclasses", "list watch"),
    **rows(start, _OURS, "delegations", "list watch"),
    **rows(start, _LEASES, "leases", "create get list update watch"),
    **rows(run, _OURS, "workspaces", "delegate patch"),
    **rows(run, _OURS, "workspaces/status", "patch"),
    **rows(run, _OURS, "delegations", "create"),
    **rows(run, "", "events", "create"),
    **rows(run, "", "configmaps", "get"),
    **rows(run, "", "secrets", "create"),
    **rows(run, "", "serviceaccounts", "create"),
    **rows(run, "", "serviceaccounts/token", "create"),
    **rows(run, _RBAC, "roles", "create"),
    **rows(run, _RBAC, "rolebindings", "create"),
    **rows(trust, *_POLICY, "get", f"delegation-sender.{_OURS}"),
    **rows(again, "", "secrets", "delete get"),
    **rows(again, "", "serviceaccounts", "get"),
    **rows(again, _RBAC, "roles", "get update"),
    **rows(again, _RBAC, "rolebindings", "get"),
    **rows(again, _LEASES, "leases", "patch"),
    **rows(adopt, "", "serviceaccounts", "delete"),
    **rows(adopt, _RBAC, "roles", "delete"),
    **rows(adopt, _RBAC, "rolebindings", "delete"),
    **rows(adopt, _LEASES, "leases", "delete"),
    **rows(delegate, _OURS, "delegations", "delete get patch"),
    **rows(delegate, _OURS, "delegations/status", "patch"),
    **rows(delegate, "", "configmaps", "create"),
    **rows(offer, _OURS, "workspaceclasses", "patch"),
    **rows(offer, _OURS, "workspaceclasses/status", "patch"),
    **rows(collide, _OURS, "workspaceclasses", "get"),
    **rows(collide, _OURS, "workspaces", "get"),
}
#: Held in order to grant them to workspaces; the operator itself uses them never, or only after a conflict.
HELD = {Right(_OURS, "workspaces", "delegate"), *(Right(_OURS, "delegations", verb) for verb in ("create", "get"))}
