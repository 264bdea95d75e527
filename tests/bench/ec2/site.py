"""Where the EC2 figures are taken: a region, with a class on it and an operator that serves it, or a bare program."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.backends.ec2_kit import FAST, SECRET
from tests.backends.ec2_kit import Lab as Kit
from tests.bench.api import CLASSES, MERGE, WORKSPACES, ApiError, Eye, Object, each, ready
from tests.bench.lab import Lab, Subject
from tests.ec2.counterpart import Counterpart, Faults
from tests.ec2.counterpart.proxy import Call

from workspace_operator.api import meta
from workspace_operator.api.ec2 import ApiRates
from workspace_operator.backends.ec2 import boot, shape, userdata
from workspace_operator.backends.ec2.operations import ALL

LISTING, LOOK = "listing", "look"
CHANGES = frozenset(each.action.removeprefix("ec2:") for each in ALL if not each.looks)
LOOKS = frozenset({LOOK, "DescribeVolumes", "GetConsoleOutput"})
CHECK = frozenset({"GetCallerIdentity", "DescribeImages", "DescribeSubnets"})  # of a class: one a minute at rest
_GRACE = timedelta(seconds=5)


@dataclass
class Site:
    """One region with one class, and an operator that serves it."""

    lab: Lab
    ec2: Counterpart
    kit: Kit
    class_: str
    operator: Subject
    eye: Eye

    async def wish(self, names: Sequence[str], state: str) -> None:
        """Set the desired state of all, and wait until all are Ready in it."""
        body = {"spec": {"desiredState": state}}
        await each(names, lambda name: self.lab.api.call("PATCH", f"{WORKSPACES}/{name}", body, MERGE))
        await self.reach(names, state)

    async def reach(self, names: Sequence[str], state: str, seconds: float = 600) -> None:
        def test(seen: dict[str, Object]) -> bool:
            return all(name in seen and ready(seen[name], state) for name in names)

        await self.eye.until(test, seconds, f"{len(names)} workspaces {state}")

    def foresee_end(self, names: Sequence[str]) -> None:
        """No workload runs in moto's machines; their consoles get the line with which boot.py tells of an end."""
        for name in names:
            self.ec2.write_console(self.eye.objects[name]["status"]["instance"]["id"], f"{boot.ENDED}0\n")

    async def delete(self, names: Sequence[str]) -> None:
        await each(names, lambda name: self.lab.api.call("DELETE", f"{WORKSPACES}/{name}"))
        await self.eye.until(lambda seen: not seen.keys() & set(names), 600, f"{len(names)} workspaces deleted")


@dataclass(frozen=True)
class Bare:
    """The bare program and what it counted."""

    subject: Subject
    counts: dict[str, int]


@asynccontextmanager
async def site(
    lab: Lab, class_: str, faults: Faults, *, rates: ApiRates = FAST, interval: str = "15s", **spec: Any
) -> AsyncIterator[Site]:
    """A region of its own, without a limit on starts unless ``rates`` has one."""
    with Counterpart(faults) as ec2:
        kit = Kit(ec2)
        await _secret(lab, kit)
        block = kit.block(rates=rates, call_timeout="30s").model_dump(mode="json", by_alias=True, exclude_none=True)
        body: Object = {
            "apiVersion": "workspace-operator.dev/v1alpha1",
            "kind": "WorkspaceClass",
            "metadata": {"name": class_},
            "spec": {
                "ec2": block,
                "limits": {"concurrentStarts": 1000, "startsPerMinute": 60000},
                "identity": {"mode": "None"},
                "observeInterval": interval,
                "stopGracePeriod": f"{_GRACE.seconds}s",
                **spec,
            },
        }
        await lab.api.call("POST", CLASSES, body)
        try:
            async with lab.operator("ec2", class_) as operator, Eye(lab.api) as eye:
                yield Site(lab, ec2, kit, class_, operator, eye)
        finally:
            await lab.api.call("DELETE", f"{CLASSES}/{class_}")


async def _secret(lab: Lab, kit: Kit) -> None:
    """The credentials of the class."""
    data = {key: base64.b64encode(value).decode() for key, value in kit.keys.items()}
    space: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SECRET.namespace}}
    secret: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET.name}, "data": data}
    for path, body in (("", space), (f"/{SECRET.namespace}/secrets", secret)):
        with suppress(ApiError):  # there from the part before
            await lab.api.call("POST", f"/api/v1/namespaces{path}", body)


def tally(calls: Sequence[Call]) -> Counter[str]:
    """Calls by action; DescribeInstances by what it is for: a class's listing, or a look at some workspaces."""
    return Counter(_kind(call) for call in calls)


def _kind(call: Call) -> str:
    if call.action != "DescribeInstances":
        return call.action
    return LISTING if f"tag:{meta.LABEL_CLASS}" in call.params.values() else LOOK


@asynccontextmanager
async def bare(lab: Lab, ec2: Counterpart, what: str, number: int, threads: int) -> AsyncIterator[Bare]:
    """The bare program (:mod:`bare`), after it came to its end; it launches with the parameters of the driver's."""
    kit = Kit(ec2)
    block, request = kit.block(), kit.request()
    zone, subnet = next(iter(ec2.subnets.items()))
    user_data = base64.b64encode(userdata.build(request, block, _GRACE)).decode()
    place = shape.Place(subnet, zone, block.machine_types[0].name)
    plan = {
        "client": {"endpoint_url": ec2.endpoint, "region_name": ec2.region}
        | {name: value.decode() for name, value in kit.keys.items()},
        "asked": shape.launch(request, block, place, ec2.image, user_data),
        "uidTag": meta.LABEL_UID,
    }
    file = lab.directory / f"bare-{what}.json"
    file.write_text(json.dumps(plan))
    size = ("--number", str(number), "--threads", str(threads))
    async with lab.subject("ec2.bare", "--plan", str(file), *size, what) as subject:
        yield Bare(subject, await _counted(subject))


async def _counted(subject: Subject, seconds: float = 1200) -> dict[str, int]:
    deadline = time.monotonic() + seconds
    while not subject.counts_file.exists():
        if not subject.alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the bare program did not come to its end:\n{subject.log.read_text()[-3000:]}")
        await asyncio.sleep(0.2)
    counts: dict[str, int] = json.loads(subject.counts_file.read_text())
    return counts
