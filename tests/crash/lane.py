"""One API server with one operator at a time: wishes go in, operators die and are replaced."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes.client import CoreV1Api, CustomObjectsApi
from tests.crash import seams
from tests.crash.nursery import Newborn, Nursery
from tests.crash.objects import Objects
from tests.crash.points import Journal, Plan
from tests.crash.rigs import SECRET_OF_CLASS, Rig
from tests.crash.scenario import End, How, Step, soon
from tests.support.fleet import Object, until, workspace, workspace_class
from tests.support.operator import ROOT

from controlplane.cluster import LocalCluster
from kubernetes import config
from workspace_operator.api import meta
from workspace_operator.kube.grants import grants_name

NAMESPACE = "crash"
SETTINGS = "settings"  # a Secret that every workspace refers to
KINDS = "secrets,serviceaccounts,roles,rolebindings,leases,pods,services,networkpolicies,persistentvolumeclaims"


class Lane:
    """Plays one workspace or delegation at a time, of one backend at a time."""

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        self.cluster, self.directory = cluster, directory
        self._serial = itertools.count(1)
        self._rig: Rig | None = None
        self._operator: Newborn | None = None
        cluster.kubectl("apply", "-f", str(ROOT / "crds"), "-f", str(ROOT / "deploy" / "base"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        for namespace in (NAMESPACE, SECRET_OF_CLASS.namespace):
            cluster.kubectl("create", "namespace", namespace)
        self._secret(NAMESPACE, SETTINGS, {"COLOUR": "blue"})
        operator = cluster.service_account_kubeconfig(seams.LEADER_NAMESPACE, "workspace-operator")
        self._nursery = Nursery(operator)
        client = config.new_client_from_config(str(cluster.kubeconfig))
        self.core = CoreV1Api(client)
        self.workspaces = Objects(CustomObjectsApi(client), NAMESPACE, meta.WORKSPACES)
        self.delegations = Objects(CustomObjectsApi(client), NAMESPACE, meta.DELEGATIONS)

    def _secret(self, namespace: str, name: str, content: Any) -> None:
        literals = [f"--from-literal={key}={value}" for key, value in content.items()]
        self.cluster.kubectl("-n", namespace, "create", "secret", "generic", name, *literals)

    def use(self, rig: Rig) -> None:
        """Serve this backend and no other: what an operator does for others would be noise."""
        if self._rig is rig:
            return
        self.kill()
        if self._rig is not None:
            without = '{"metadata": {"finalizers": null}}'  # its operator is dead
            self.cluster.kubectl("patch", "workspaceclass", self._rig.name, "--type=merge", "-p", without)
            self.cluster.kubectl("delete", "workspaceclass", self._rig.name)
            self.cluster.kubectl("-n", SECRET_OF_CLASS.namespace, "delete", "secret", "--all")
        rig.prepare(self.cluster, self.directory, NAMESPACE)
        if rig.secrets():
            self._secret(SECRET_OF_CLASS.namespace, SECRET_OF_CLASS.name, rig.secrets())
        made = workspace_class(rig.name, **rig.class_spec(self.directory, self.cluster.server))
        self.cluster.kubectl("apply", "-f", "-", input=json.dumps(made))
        self._rig = rig

    # -- the operator

    @property
    def alive(self) -> bool:
        return self._operator is not None and self._operator.alive

    @property
    def journal(self) -> Journal:
        return Journal(self._control / "journal")

    def arm(self, plan: Plan) -> None:
        """What the running operator plays from now on."""
        plan.write(self._control)

    def start(self, plan: Plan) -> None:
        """A new operator, on a Lease of its own (see the package's docstring)."""
        assert self._rig is not None
        self.kill()
        number = next(self._serial)
        self._control = self.directory / f"operator-{number}"
        self._control.mkdir()
        plan.write(self._control)
        self._operator = self._nursery.start(
            self._control / "log",
            *("--control", str(self._control), "--root", str(self.directory / "workspaces")),
            *("--listen-host", "127.0.0.1", "--listen-port", "0"),
            *("--namespace", seams.LEADER_NAMESPACE, "--lease", f"crash-{number}"),
        )

    def wait_settled(self) -> bool:
        """Until it leads, has listed everything and follows it, so that a wish finds it idle; False when it died."""
        assert self._rig is not None
        awaited = seams.STREAMS | self._rig.streams

        def missing() -> str:
            return f"{awaited - self.journal.watches()} are not followed"

        until(lambda: not self.alive or awaited <= self.journal.watches(), 60, missing)
        return self.alive

    def kill(self) -> None:
        if self._operator is not None:
            self._operator.close()
            self._operator = None

    def close(self) -> None:
        self.kill()
        self._nursery.close()

    def tail(self) -> str:
        """The end of the log and of the journal of the last two operators."""
        starts = sorted(self.directory.glob("operator-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        parts = []
        for control in starts[-2:]:
            logs = (control / "log").read_text(errors="replace") if (control / "log").exists() else ""
            lines = "\n".join(logs.splitlines()[-25:])
            parts.append(f"--- {control.name}, log\n{lines}\n--- {control.name}, calls")
            parts.append(Journal(control / "journal").tail())
        return "\n".join(parts)

    # -- the user

    def wish(self, name: str, step: Step) -> None:
        """Say it; retried, because the wish itself is not under test."""
        assert self._rig is not None
        if step.how is How.CREATE:
            self.workspaces.create(self._workspace(name))
        elif step.how is How.PATCH:
            self.workspaces.patch(name, dict(step.spec or {}))
        elif step.how is How.EXPIRE:
            self.workspaces.patch_status(name, {"credentials": {"expires": soon()}})
        elif step.how is How.DELETE:
            self.workspaces.delete(name)

    def regret(self, name: str, end: End) -> None:
        """Wish something else."""
        if end is End.GONE:
            self.workspaces.delete(name)
        else:
            self.workspaces.patch(name, {"desiredState": end.value})

    def secrets_of(self, name: str) -> set[str]:
        """Names of the workspace's Secrets: they keep its token valid, or hold what its instance is given."""
        found: Any = self.core.list_secret_for_all_namespaces(label_selector=f"{meta.LABEL_NAME}={name}")
        return {each.metadata.name for each in found.items}

    def granted(self, workspace: str) -> set[str]:
        """Names of the Delegations that a workspace may read."""
        found = self.cluster.kubectl("-n", NAMESPACE, "get", *_grant(workspace), "--ignore-not-found", "-o", "json")
        items = json.loads(found)["items"] if found.strip() else []
        if len(items) < 2:
            return set()
        return {name for rule in items[0]["rules"] for name in rule.get("resourceNames", ())}

    def withdraw(self, workspace: str) -> None:
        """Have it granted anew."""
        self.cluster.kubectl("-n", NAMESPACE, "delete", *_grant(workspace), "--ignore-not-found")

    def objects_of(self, *names: str) -> list[str]:
        """Everything of the Kubernetes API that carries the name of one of these workspaces."""
        wanted = set(names)
        listed = json.loads(self.cluster.kubectl("get", KINDS, "--all-namespaces", "-l", meta.LABEL_NAME, "-o", "json"))
        return [
            f"{item['kind']} {item['metadata']['name']}"
            for item in listed["items"]
            if item["metadata"]["labels"][meta.LABEL_NAME] in wanted
        ]

    def strip(self, name: str) -> None:
        """Give up on a workspace whose test has failed, so that the next one can go on."""
        self.kill()
        self.workspaces.strip(name)

    def _workspace(self, name: str) -> Object:
        assert self._rig is not None
        return workspace(
            name,
            className=self._rig.name,
            storage={"whenDeleted": "Delete"},
            envFrom=[{"secretRef": {"name": SETTINGS}}],
            **self._rig.workspace_spec(),
        )


def _grant(workspace: str) -> tuple[str, str]:
    return f"role/{grants_name(workspace)}", f"rolebinding/{grants_name(workspace)}"


def wait_for(probe: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True


@contextmanager
def lane(directory: Path, say: Callable[[str], None]) -> Iterator[Lane]:
    """A lane on an API server of its own."""
    directory.mkdir()
    with LocalCluster(directory / "cluster", say=lambda _: None) as cluster:
        made = Lane(cluster, directory)
        say(f"an API server for the kill matrix at {cluster.server}")
        try:
            yield made
        finally:
            made.close()
