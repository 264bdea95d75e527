"""What the API server accepts and refuses, and the sentence with which it does: nothing here runs an operator."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.gitops.judge import Judge
from tests.support.fleet import Fleet, Object, workspace, workspace_class

from controlplane.cluster import LocalCluster
from controlplane.kubectl import KubectlError

pytestmark = pytest.mark.cluster

PROCESS = {"directory": "/tmp/w", "images": [{"name": "sleep", "command": ["sleep", "9"]}]}
SECRET, CONFIG_MAP = {"secretRef": {"name": "a"}}, {"configMapRef": {"name": "b"}}


@pytest.fixture(scope="module")
def desk(cluster: LocalCluster) -> Iterator[Fleet]:
    """A namespace with objects to change; all tests only ask (``--dry-run=server``)."""
    cluster.kubectl("create", "namespace", "desk")
    made = Fleet(cluster, "desk")
    made.apply(
        workspace("plain"),
        workspace("classed", className="here"),
        workspace("stored", storage={"mountPath": "/data"}),
        workspace("sized", storage={"mountPath": "/data", "size": "2Gi"}),
        workspace_class("desk-process", process=PROCESS),
    )
    yield made
    made.kubectl("delete", "workspaces", "--all")
    made.drop_classes("desk-process")
    made.kubectl("delete", "namespace", "desk", "--wait=false")


def ask(desk: Fleet, *objects: Object) -> str:
    return desk.kubectl("apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump_all(objects))


@pytest.mark.timeout(1800)  # the first run of a machine builds the judge
def test_what_no_operator_has_looked_at_is_not_current(desk: Fleet, judge: Judge) -> None:
    """I-89: kstatus takes an object without any status for current, and Flux would wait for nothing."""
    items = json.loads(desk.kubectl("get", "workspace/plain", "workspaceclass/desk-process", "-o", "json"))["items"]
    assert [item["status"]["observedGeneration"] for item in items] == [-1, -1]
    assert [(verdict.argo, verdict.kstatus) for verdict in judge(items)] == [("Progressing", "InProgress")] * 2


def refusal(desk: Fleet, manifest: Object) -> str:
    """The sentence with which the API server refuses a manifest."""
    with pytest.raises(KubectlError) as caught:
        ask(desk, manifest)
    return caught.value.stderr


def limits(**amounts: Any) -> dict[str, Any]:
    return {"resources": {"limits": amounts}}


WORKSPACES_ACCEPTED: dict[str, dict[str, Any]] = {
    "least": {},
    "states": {"desiredState": "Paused"},
    "image-with-digest": {"image": "registry.example:5000/team/agent@sha256:" + "0" * 64},
    "class": {"className": "c" * 63},
    "command": {"command": ["/bin/agent"], "args": ["--fast"]},
    "cpu-as-text": limits(cpu="500m", memory="512Mi"),
    "cpu-as-number": limits(cpu=2, memory=1073741824),
    "bounds": limits(cpu="10m", memory="6Mi"),
    "upper-bounds": limits(cpu=1024, memory="24Ti"),
    "durations": {"provisionTimeout": "1h30m"},
    "shortest": {"provisionTimeout": "5s"},
    "longest": {"provisionTimeout": "24h"},
    "env": {"env": [{"name": "COLOR", "value": "blue"}, {"name": "_x1"}, {"name": "MY_WORKSPACE_ID"}]},
    "references": {"envFrom": [SECRET, {**CONFIG_MAP, "prefix": "APP_"}]},
    "parent": {"parentRef": {"name": "another"}},
    "n" * 63: {},
    "ports": {"agent": {"port": 1}},
    "last-port": {"agent": {"port": 65535, "probe": "TCP"}},
    "token": {"restartToken": "t" * 256},
    "storage": {"storage": {"mountPath": "/var/lib/agent", "whenDeleted": "Delete"}},
    "storage-of-a-size": {"storage": {"size": "20Gi"}},
    "smallest-storage": {"storage": {"size": 1048576}},
    "largest-storage": {"storage": {"size": "64Ti"}},
}

WORKSPACES_REFUSED: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("unknown field", {"imge": "x"}, ('unknown field "spec.imge"',)),
    ("wrong enum", {"desiredState": "Sleeping"}, ("spec.desiredState", '"Running", "Paused", "Stopped"')),
    ("wrong probe", {"agent": {"probe": "HTTP"}}, ("spec.agent.probe", '"AgentCard"')),
    ("wrong policy", {"updatePolicy": "Never"}, ("spec.updatePolicy", '"OnRestart", "Automatic"')),
    ("wrong whenDeleted", {"storage": {"whenDeleted": "Keep"}}, ("spec.storage.whenDeleted", '"Retain", "Delete"')),
    ("empty image", {"image": ""}, ("spec.image", "at least 1 char")),
    ("image with spaces", {"image": "my image"}, ("spec.image", "should match")),
    ("long image", {"image": "i" * 513}, ("spec.image", "may not be more than 512")),
    ("no image", {"image": None}, ("spec.image: Required value",)),
    ("negative cpu", limits(cpu="-1"), ("spec.resources.limits.cpu", "cpu must be a quantity from 10m to 1024")),
    ("negative cpu number", limits(cpu=-1), ("spec.resources.limits.cpu", "from 10m to 1024")),
    ("zero cpu", limits(cpu=0), ("spec.resources.limits.cpu", "from 10m to 1024, for example 500m")),
    ("absurd cpu", limits(cpu="5000"), ("spec.resources.limits.cpu", "from 10m to 1024")),
    ("no quantity", limits(cpu="fast"), ("spec.resources.limits.cpu", "cpu must be a quantity")),
    ("negative memory", limits(memory="-1Gi"), ("spec.resources.limits.memory", "from 6Mi to 24Ti")),
    ("zero memory", limits(memory=0), ("spec.resources.limits.memory", "from 6Mi to 24Ti, for example 512Mi")),
    ("absurd memory", limits(memory="1Ei"), ("spec.resources.limits.memory", "from 6Mi to 24Ti")),
    ("small memory", limits(memory="512"), ("spec.resources.limits.memory", "from 6Mi to 24Ti")),
    ("no duration", {"provisionTimeout": "soon"}, ("spec.provisionTimeout", "should match")),
    ("number as duration", {"provisionTimeout": 90}, ("spec.provisionTimeout", "must be of type string")),
    ("short", {"provisionTimeout": "4s"}, ("spec.provisionTimeout", "write a duration from 5s to 24h, for example")),
    ("long", {"provisionTimeout": "25h"}, ("spec.provisionTimeout", "from 5s to 24h")),
    ("reserved name", {"env": [{"name": "WORKSPACE_UID"}]}, ("spec.env[0].name", "choose another name")),
    ("reserved name 2", {"env": [{"name": "KUBERNETES_PORT"}]}, ("spec.env[0].name", "set by the operator")),
    ("no variable name", {"env": [{"name": "a-b"}]}, ("spec.env[0].name", "should match")),
    ("twice the same", {"env": [{"name": "A"}, {"name": "A", "value": "2"}]}, ("spec.env[1]", "Duplicate value")),
    ("both references", {"envFrom": [{**SECRET, **CONFIG_MAP}]}, ("spec.envFrom[0]", "set exactly one of secretRef")),
    ("no reference", {"envFrom": [{"prefix": "A_"}]}, ("spec.envFrom[0]", "secretRef and configMapRef")),
    ("bad prefix", {"envFrom": [{**SECRET, "prefix": "1-"}]}, ("spec.envFrom[0].prefix", "should match")),
    ("reserved prefix", {"envFrom": [{**SECRET, "prefix": "WORKSPACE_"}]}, ("spec.envFrom[0]", "choose another")),
    ("own parent", {"parentRef": {"name": "subject"}}, ("cannot be its own parent; name another workspace",)),
    ("empty parent", {"parentRef": {"name": ""}}, ("spec.parentRef.name", "at least 1 char")),
    ("port 0", {"agent": {"port": 0}}, ("spec.agent.port", "greater than or equal to 1")),
    ("port 70000", {"agent": {"port": 70000}}, ("spec.agent.port", "less than or equal to 65535")),
    ("long token", {"restartToken": "t" * 257}, ("spec.restartToken", "may not be more than 256")),
    ("relative path", {"storage": {"mountPath": "data"}}, ("spec.storage.mountPath", "should match")),
    ("path with colon", {"storage": {"mountPath": "/a:ro"}}, ("spec.storage.mountPath", "should match")),
    ("the root", {"storage": {"mountPath": "/"}}, ("spec.storage.mountPath", "at least 2 chars")),
    ("no size", {"storage": {"size": "large"}}, ("spec.storage.size", "must be a quantity from 1Mi to 64Ti")),
    ("empty size", {"storage": {"size": ""}}, ("spec.storage.size", "from 1Mi to 64Ti, for example 20Gi")),
    ("negative size", {"storage": {"size": "-1Gi"}}, ("spec.storage.size", "from 1Mi to 64Ti")),
    ("size without a unit", {"storage": {"size": 20}}, ("spec.storage.size", "from 1Mi to 64Ti, for example 20Gi")),
    ("absurd size", {"storage": {"size": "1Ei"}}, ("spec.storage.size", "from 1Mi to 64Ti")),
    ("no text or number", {"storage": {"size": True}}, ("spec.storage.size", "must be")),
    ("a limit of storage", limits(storage="1Gi"), ('unknown field "spec.resources.limits.storage"',)),
]


def test_the_crds_are_established_and_every_sound_workspace_is_accepted(desk: Fleet) -> None:
    """The CRDs load on the pinned Kubernetes, CEL cost budget included, and refuse nothing that is sound (I-86)."""
    for kind in ("workspaces", "workspaceclasses"):
        crd = json.loads(desk.kubectl("get", "crd", f"{kind}.workspace-operator.dev", "-o", "json"))
        conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
        assert conditions["Established"] == conditions["NamesAccepted"] == "True"
        assert "NonStructuralSchema" not in conditions
        assert len(json.dumps(crd)) < 262_144 / 2, "client-side apply needs room"
    said = ask(desk, *(workspace(name, **spec) for name, spec in WORKSPACES_ACCEPTED.items()))
    assert said.count("created (server dry run)") == len(WORKSPACES_ACCEPTED)


@pytest.mark.parametrize(
    ("spec", "words"), [row[1:] for row in WORKSPACES_REFUSED], ids=[r[0] for r in WORKSPACES_REFUSED]
)
def test_a_faulty_workspace_is_refused_with_the_field_and_the_fix(
    desk: Fleet, spec: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Bad input never reaches the operator; reserved names are refused by the schema (I-55)."""
    said = refusal(desk, workspace("subject", **spec))
    for word in words:
        assert word in said


@pytest.mark.parametrize("length", [64, 253])
def test_a_name_that_is_too_long_for_a_label_is_refused(desk: Fleet, length: int) -> None:
    """A workspace's name becomes a host name and a label."""
    assert "has at most 63 characters" in refusal(desk, workspace("n" * length))
    assert "has at most 63 characters" in refusal(desk, workspace_class("n" * length, process=PROCESS))


def test_a_name_of_300_characters_is_refused(desk: Fleet) -> None:
    """By Kubernetes itself."""
    assert "no more than 253" in refusal(desk, workspace("n" * 300))
    assert "no more than 253" in refusal(desk, workspace_class("n" * 300, process=PROCESS))


@pytest.mark.parametrize(
    ("name", "spec", "words"),
    [
        ("classed", {"className": "there"}, "className is immutable; delete the workspace and create it anew"),
        ("classed", {}, "className is immutable"),
        ("plain", {"className": "here"}, "className is immutable"),
        ("plain", {"storage": {}}, "storage cannot be added or removed later, because data would be stranded"),
        ("stored", {}, "storage cannot be added or removed later"),
        ("stored", {"storage": {"mountPath": "/elsewhere"}}, "mountPath is immutable; create a new workspace"),
        ("stored", {"storage": {"mountPath": "/data", "size": "2Gi"}}, "data volumes are not resized; create a new"),
        ("sized", {"storage": {"mountPath": "/data", "size": "3Gi"}}, "size cannot be set, changed or removed later"),
        ("sized", {"storage": {"mountPath": "/data", "size": "1Gi"}}, "size cannot be set, changed or removed later"),
        ("sized", {"storage": {"mountPath": "/data", "size": "large"}}, "size cannot be set, changed or removed"),
        ("sized", {"storage": {"mountPath": "/data"}}, "size cannot be set, changed or removed later"),
        ("sized", {}, "storage cannot be added or removed later"),
    ],
)
def test_what_is_immutable_stays(desk: Fleet, name: str, spec: dict[str, Any], words: str) -> None:
    """Class, presence of storage, its size and mount path are fixed when the workspace is made."""
    assert words in refusal(desk, workspace(name, **spec))


def test_everything_else_may_change(desk: Fleet) -> None:
    """An edit of a running workspace is no error; updatePolicy decides when it is applied (I-84)."""
    changed = {"image": "other", "desiredState": "Stopped", "agent": {}, "env": [{"name": "A"}], "restartToken": "2"}
    ask(
        desk,
        workspace("plain", **changed, parentRef={"name": "stored"}),
        workspace("stored", **changed, storage={"mountPath": "/data", "whenDeleted": "Delete"}),
        workspace("sized", storage={"mountPath": "/data", "size": "2048Mi"}),  # the same in other words
        workspace_class("desk-process", process={**PROCESS, "directory": "/tmp/v"}, pauseMode="Freeze"),
    )


CLASSES_ACCEPTED: dict[str, dict[str, Any]] = {
    "docker-default": {"docker": {}},
    "docker-tls": {"docker": {"host": "tcp://10.0.0.1:2376", "tlsSecretRef": {"namespace": "s", "name": "tls"}}},
    "on-this-machine": {"process": PROCESS},
    "periods": {"docker": {}, "stopGracePeriod": "0s", "provisionTimeout": "24h", "observeInterval": "1s"},
    "identity": {"docker": {}, "identity": {"server": "https://k.example:6443", "tokenLifetime": "10m"}},
    "ceilings": {"docker": {}, "resources": {"default": {"cpu": 1}, "max": {"cpu": 2, "memory": "2Gi"}}},
    "ceiling-of-storage": {"docker": {}, "resources": {"max": {"storage": "100Gi"}}},
    "limits": {"docker": {}, "limits": {"concurrentStarts": 1, "startsPerMinute": 60000}},
}
CLASSES_REFUSED: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("two backends", {"docker": {}, "process": PROCESS}, ("set exactly one backend block: docker",)),
    ("no backend", {}, ("set exactly one backend block: docker",)),
    ("unknown backend", {"docker": {}, "nomad": {}}, ('unknown field "spec.nomad"',)),
    ("docker host scheme", {"docker": {"host": "ssh://me@host"}}, ("spec.docker.host", "should match")),
    ("relative socket", {"docker": {"host": "docker.sock"}}, ("spec.docker.host", "should match")),
    ("pull policy", {"docker": {"pullPolicy": "Often"}}, ("spec.docker.pullPolicy", '"Never"')),
    ("no images", {"process": {"directory": "/tmp/w", "images": []}}, ("spec.process.images", "at least 1 item")),
    ("images forgotten", {"process": {"directory": "/tmp/w"}}, ("spec.process.images: Required value",)),
    ("relative directory", {"process": {**PROCESS, "directory": "w"}}, ("spec.process.directory", "should match")),
    ("twice the same image", {"process": {**PROCESS, "images": PROCESS["images"] * 2}}, ("Duplicate value",)),
    ("pause mode", {"docker": {}, "pauseMode": "Sleep"}, ("spec.pauseMode", '"Stop", "Freeze"')),
    ("long grace", {"docker": {}, "stopGracePeriod": "61m"}, ("spec.stopGracePeriod", "from 0s to 1h")),
    ("no interval", {"docker": {}, "observeInterval": "10ms"}, ("spec.observeInterval", "from 1s to 1h")),
    ("short timeout", {"docker": {}, "provisionTimeout": "1s"}, ("spec.provisionTimeout", "from 5s to 24h")),
    ("short token", {"docker": {}, "identity": {"tokenLifetime": "1m"}}, ("tokenLifetime", "from 10m to 48h")),
    ("plain server", {"docker": {}, "identity": {"server": "http://k"}}, ("spec.identity.server", "should match")),
    ("no starts", {"docker": {}, "limits": {"concurrentStarts": 0}}, ("spec.limits.concurrentStarts", "equal to 1")),
    ("storage ceiling", {"docker": {}, "resources": {"max": {"storage": 0}}}, ("max.storage", "from 1Mi to 64Ti")),
    ("storage default", {"docker": {}, "resources": {"default": {"storage": 1}}}, ("resources.default.storage",)),
    ("zero ceiling", {"docker": {}, "resources": {"max": {"cpu": 0}}}, ("spec.resources.max.cpu", "from 10m to 1024")),
]


def test_every_sound_class_is_accepted(desk: Fleet) -> None:
    """Nothing that is sound is refused."""
    said = ask(desk, *(workspace_class(name, **spec) for name, spec in CLASSES_ACCEPTED.items()))
    assert said.count("created (server dry run)") == len(CLASSES_ACCEPTED)


@pytest.mark.parametrize(("spec", "words"), [row[1:] for row in CLASSES_REFUSED], ids=[r[0] for r in CLASSES_REFUSED])
def test_a_faulty_class_is_refused_with_the_field_and_the_fix(
    desk: Fleet, spec: dict[str, Any], words: tuple[str, ...]
) -> None:
    """A class that is half configured is refused (I-82), and so is what no backend can do (I-86)."""
    said = refusal(desk, workspace_class("subject", **spec))
    for word in words:
        assert word in said


def test_the_kind_of_backend_is_immutable(desk: Fleet) -> None:
    """The workspaces of a class would be stranded on the old backend."""
    said = refusal(desk, workspace_class("desk-process", docker={}))
    assert "the kind of backend is immutable; create another class" in said


def test_defaults_are_stored(desk: Fleet) -> None:
    """Who reads an object sees what applies, without knowing the defaults."""
    desk.apply(workspace("defaults", agent={}, storage={}), workspace_class("desk-defaults", docker={}))
    spec = desk.get("defaults")["spec"]
    assert spec == {
        "desiredState": "Running",
        "image": "workspace-operator/reference-agent:dev",
        "agent": {"port": 8080, "probe": "AgentCard", "maxConcurrentTasks": 1},
        "storage": {"mountPath": "/data", "whenDeleted": "Retain"},
        "updatePolicy": "OnRestart",
    }
    class_ = json.loads(desk.kubectl("get", "wsc", "desk-defaults", "-o", "json"))["spec"]
    desk.kubectl("delete", "wsc", "desk-defaults")
    docker = {"host": "unix:///var/run/docker.sock", "network": "bridge", "pullPolicy": "IfNotPresent"}
    assert class_["docker"].items() >= {**docker, "publishAddress": "127.0.0.1"}.items()
    periods = {"stopGracePeriod": "10s", "provisionTimeout": "5m", "observeInterval": "15s", "pauseMode": "Stop"}
    assert class_.items() >= periods.items()


def test_short_names_category_and_columns(desk: Fleet) -> None:
    """The columns of DESIGN section 2."""
    assert header(desk, "workspaces") == "NAME DESIRED PHASE READY REASON CLASS ENDPOINT AGE"
    assert header(desk, "wsp", "-o", "wide") == (
        "NAME DESIRED PHASE READY REASON CLASS ENDPOINT AGE INSTANCE NODE IMAGE EFFECTIVE MESSAGE"
    )
    fleet = [" ".join(line.split()) for line in desk.kubectl("get", "fleet").splitlines()]
    assert header(desk, "wsp") in fleet  # Delegations, where there are any, have a header of their own
    assert header(desk, "wsc") == "NAME BACKEND READY REASON RUNNING PAUSED FAILED ORPHANS SWEPT AGE"


def header(desk: Fleet, *what: str) -> str:
    return " ".join(desk.kubectl("get", *what).splitlines()[0].split())


@pytest.mark.parametrize("kind", ["workspace", "workspaceclass"])
def test_explain_teaches_every_field(desk: Fleet, kind: str) -> None:
    """``kubectl explain`` shows every field, each with a description."""
    crd = json.loads(desk.kubectl("get", "crd", "-o", "json"))["items"]
    schema = next(c for c in crd if c["spec"]["names"]["singular"] == kind)["spec"]["versions"][0]["schema"]
    fields = dict(described(schema["openAPIV3Schema"]["properties"]["spec"], "spec"))
    assert [path for path, text in fields.items() if len(text) < 5] == []
    shown = desk.kubectl("explain", f"{kind}.spec", "--recursive")
    for path in fields:
        assert f"{path.rsplit('.', 1)[1]}\t" in shown, path
    page = " ".join(desk.kubectl("explain", f"{kind}.spec").split())
    for path, text in fields.items():
        if path.count(".") == 1:
            assert " ".join(text.split()) in page, path


def described(schema: Object, path: str) -> Iterator[tuple[str, str]]:
    """Every field below a schema with its description."""
    schema = copy.copy(schema.get("items", schema))
    for name, sub in schema.get("properties", {}).items():
        yield f"{path}.{name}", sub.get("description", "")
        yield from described(sub, f"{path}.{name}")
