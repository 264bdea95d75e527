"""``workspace-operator logs``: which class is asked, and what is said when there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.kit import FakeKube, body

from workspace_operator import __main__
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability
from workspace_operator.backends.protocol import WorkspaceRef
from workspace_operator.commands import logs
from workspace_operator.commands.session import CommandError
from workspace_operator.errors import BackendError, BackendUnreachable, BadRequest, OperatorError
from workspace_operator.kube.client import KubeError, workspace_classes, workspaces
from workspace_operator.kube.secrets import read_secret

DEFAULT = {"workspace-operator.dev/is-default-class": "true"}
STARTED = {"backend": "process", "incarnation": 1, "parameters": "p", "id": "one"}


class Talker:
    """A backend that only talks."""

    capabilities = frozenset({Capability.LOGS})

    def __init__(self, output: str = "hello\n", error: OperatorError | None = None) -> None:
        self.output, self.error = output, error
        self.asked: list[tuple[WorkspaceRef, int]] = []
        self.closed = 0

    async def logs(self, ref: WorkspaceRef, tail: int) -> str:
        self.asked.append((ref, tail))
        if self.error is not None:
            raise self.error
        return self.output

    async def close(self) -> None:
        self.closed += 1


def kube(status: dict[str, Any] | None = None, **spec: Any) -> FakeKube:
    """A cluster with workspace n/w and three classes, two of them default ones."""
    objects: dict[str, Any] = {
        workspaces("n", "w"): {**body("w", **spec), "status": status or {}},
        "/api/v1/namespaces/kube-system": {"metadata": {"uid": "cluster-1"}},
    }
    for day, (name, marks) in enumerate((("old", DEFAULT), ("new", DEFAULT), ("plain", {})), 1):
        created = f"2030-01-0{day}T00:00:00Z"
        metadata = {"name": name, "uid": name, "annotations": marks, "creationTimestamp": created}
        block = {"directory": "/tmp/x", "images": [{"name": "a", "command": ["a"]}]}
        objects[workspace_classes(name)] = {"metadata": metadata, "spec": {"process": block}}
    return FakeKube(objects)


async def read(client: FakeKube, talker: Talker, tail: int = 100) -> str:
    create: Callable[..., Any] = lambda *_: talker  # noqa: E731
    drivers = {"process": create, "docker": create, "ec2": create}
    return await logs.read(client, "n", "w", tail, drivers)  # type: ignore[arg-type]


async def why(client: FakeKube, talker: Talker | None = None) -> str:
    with pytest.raises(CommandError) as caught:
        await read(client, talker or Talker())
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "status", "name"),
    [
        ({"className": "plain"}, {"className": "old"}, "plain"),
        ({}, {"className": "old"}, "old"),
        ({}, {}, "new"),
    ],
    ids=["named", "recorded", "newest default"],
)
async def test_the_class_is_resolved_as_the_operator_does(spec: Any, status: Any, name: str) -> None:
    talker = Talker()
    assert await read(kube(status, **spec), talker, tail=7) == "hello\n"
    assert talker.asked == [(WorkspaceRef("cluster-1", "uid-w", "n", "w", name), 7)]
    assert talker.closed == 1


async def test_nothing_is_written_and_no_verb_is_possible() -> None:
    client = kube()
    await read(client, Talker())
    assert {call.split()[0] for call in client.calls} == {"GET", "LIST"}


async def test_no_default_class() -> None:
    client = kube()
    for name in ("old", "new"):
        del client.objects[workspace_classes(name)]
    assert "mark one as the default" in await why(client)


async def test_a_class_of_another_schema_is_named() -> None:
    client = kube(className="plain")
    client.objects[workspace_classes("plain")]["spec"]["process"] = {"directory": 3}
    told = await why(client)
    assert "WorkspaceClass 'plain'" in told
    assert "version" in told


async def test_a_backend_that_is_away_closes_and_says_where_to_run() -> None:
    talker = Talker(error=BackendUnreachable(Reason.BACKEND_UNREACHABLE, "The disk does not answer."))
    told = await why(kube(), talker)
    assert told.startswith("The disk does not answer. ")
    assert "operator's own machine" in told
    assert talker.closed == 1


async def test_a_refusal_stands_alone() -> None:
    """It is not the place's fault, so the place is not mentioned."""
    for error in (BadRequest(Reason.MISCONFIGURED, "Set it."), BackendError(Reason.STOP_FAILED, "Set it.")):
        assert await why(kube(), Talker(error=error)) == "Set it."


async def test_a_refusal_of_the_api_server_keeps_its_status() -> None:
    """By way of the backend, which asks for its Secret."""
    with pytest.raises(KubeError, match="may not"):
        await read(kube(), Talker(error=KubeError(403, "You may not.")))


async def test_a_backend_without_logs() -> None:
    talker = Talker()
    talker.capabilities = frozenset()  # type: ignore[misc]
    assert "keeps no logs" in await why(kube(), talker)


async def test_silence_without_an_instance_says_what_is_known() -> None:
    ready = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "ImagePulling",
        "message": "Half of it is here.",
        "observedGeneration": 1,
        "lastTransitionTime": "2030-01-01T00:00:00Z",
    }
    told = await why(kube({"phase": "Pending", "conditions": [ready]}), Talker(output=""))
    assert "it is Pending: Half of it is here." in told
    assert "not seen by an operator yet" in await why(kube(), Talker(output=""))


@pytest.mark.parametrize(("backend", "hint"), [("process", "own machine"), ("docker", "engine"), ("ec2", "delay")])
async def test_silence_of_an_instance_is_no_error(backend: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    client = kube({"instance": STARTED}, className="plain")
    blocks: dict[str, Any] = {
        "process": client.objects[workspace_classes("plain")]["spec"]["process"],
        "docker": {},
        "ec2": {
            "region": "eu-central-1",
            "image": "ami-01234567",
            "subnets": ["subnet-01234567"],
            "securityGroups": ["sg-01234567"],
            "machineTypes": [{"name": "t3.small", "cpu": 2, "memory": "1Gi"}],
        },
    }
    client.objects[workspace_classes("plain")]["spec"] = {backend: blocks[backend]}
    assert await read(client, Talker(output="")) == ""
    assert hint in capsys.readouterr().err


async def test_a_secret_is_read_for_the_backend_and_its_absence_is_told() -> None:
    client = kube()
    client.objects["/api/v1/namespaces/s/secrets/keys"] = {"data": {"key": "dmFsdWU="}}
    assert await read_secret(client, "s", "keys") == {"key": b"value"}  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"'gone' in namespace 's'.*create it"):
        await read_secret(client, "s", "gone")  # type: ignore[arg-type]


@pytest.mark.parametrize("lines", ["0", "-1", "many"])
def test_a_number_of_lines_is_at_least_one(lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["logs", "w", f"--tail={lines}"])
    assert "--tail" in capsys.readouterr().err
