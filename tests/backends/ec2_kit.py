"""What the tests of the EC2 driver share: a counterpart for the session, drivers, requests, waiting."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import pytest
from tests.ec2.counterpart import Counterpart, Faults
from tests.ec2.counterpart.counterpart import ACCESS_KEY, SECRET_KEY

from workspace_operator.api import meta
from workspace_operator.api.base import NamespacedRef
from workspace_operator.api.ec2 import ApiRate, ApiRates, Ec2Backend, MachineType
from workspace_operator.api.workspaceclass import WorkspaceClassSpec
from workspace_operator.backends.ec2 import Ec2Driver
from workspace_operator.backends.ec2.ledger import Ledger
from workspace_operator.backends.protocol import (
    Instance,
    Progress,
    ProvisionRequest,
    Reading,
    StopRequest,
    Template,
    WorkspaceRef,
)

T = TypeVar("T")
CLASS = "machines"
GROUP = "sg-0123456789abcdef0"
SECRET = NamespacedRef(namespace="operator", name="aws")
FAST = ApiRates(
    run=ApiRate(per_second=1000, burst=1000),
    change=ApiRate(per_second=1000, burst=1000),
    look=ApiRate(per_second=1000, burst=1000),
)
TYPES = (
    MachineType(name="t3.small", cpu="2", memory="1800Mi"),
    MachineType(name="t3.large", cpu="2", memory="7Gi"),
    MachineType(name="m5.2xlarge", cpu="8", memory="30Gi"),
)


class Lab:
    """One region under test, with a cluster id of this test alone."""

    def __init__(self, ec2: Counterpart) -> None:
        self.ec2 = ec2
        self.cluster = str(uuid.uuid4())
        self.drivers: list[Ec2Driver] = []
        self.keys = {"aws_access_key_id": ACCESS_KEY.encode(), "aws_secret_access_key": SECRET_KEY.encode()}
        self.group = security_group(ec2)

    def block(self, **changes: Any) -> Ec2Backend:
        """The ec2 block of a class that works here."""
        fields: dict[str, Any] = {
            "region": self.ec2.region,
            "image": self.ec2.image,
            "subnets": tuple(self.ec2.subnets.values())[:1],
            "security_groups": (self.group,),
            "machine_types": TYPES,
            "root_device": "/dev/xvda",
            "credentials_secret_ref": SECRET,
            "endpoint_url": self.ec2.endpoint,
            "rates": FAST,
            "call_timeout": "2s",
            "consistency_window": "1s",
        }
        return Ec2Backend(**{**fields, **changes})

    def driver(
        self, *, ledger: Ledger | None = None, spec: Mapping[str, Any] | None = None, **changes: Any
    ) -> Ec2Driver:
        """A driver with a ledger of its own, as in a process of its own."""
        class_ = WorkspaceClassSpec(ec2=self.block(**changes), **(spec or {}))
        made = Ec2Driver(CLASS, class_, self.cluster, self.resolve, ledger=ledger)
        self.drivers.append(made)
        return made

    async def resolve(self, namespace: str, name: str) -> Mapping[str, bytes]:
        assert (namespace, name) == (SECRET.namespace, SECRET.name)
        return self.keys

    def ref(self) -> WorkspaceRef:
        """A workspace that nobody else has."""
        uid = str(uuid.uuid4())
        return WorkspaceRef(self.cluster, uid, "team", f"agent-{uid[:8]}", CLASS)

    def request(
        self,
        ref: WorkspaceRef | None = None,
        incarnation: int = 1,
        *,
        token: str = "first",
        environment: Mapping[str, str] | None = None,
        **template: Any,
    ) -> ProvisionRequest:
        """What the operator asks for."""
        return ProvisionRequest(
            ref=ref or self.ref(),
            incarnation=incarnation,
            parameters="template-token",
            template=Template(**{"image": "agent:1", "port": 8080, **template}),
            environment={"WORKSPACE_PORT": "8080", **(environment or {})},
            files={"token": token.encode()},
        )

    def alive(self, ref: WorkspaceRef) -> list[Any]:
        """The truth about a workspace's instances that cost money."""
        return self.ec2.alive({meta.LABEL_UID: ref.uid, meta.LABEL_ROLE: "instance"})

    def most_alive(self) -> int:
        """The most that any workspace of this test had alive at once."""
        return max(self.ec2.max_alive_per(meta.LABEL_UID).values(), default=0)

    async def close(self) -> None:
        for driver in self.drivers:
            await driver.close()


@cache
def counterpart(config: pytest.Config) -> Counterpart:
    """One for the session."""
    running = Counterpart()
    running.__enter__()
    config.add_cleanup(running.__exit__)
    return running


@pytest.fixture
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """An empty region without faults, whose instances take a moment for each change."""
    ec2 = counterpart(request.config)
    quick = 0.05
    ec2.reset(
        Faults(seed=7, pending=quick, stopping=quick, shutting_down=quick, creating_volume=quick, attaching=quick)
    )
    made = Lab(ec2)
    yield made
    await made.close()


def security_group(ec2: Counterpart) -> str:
    """A group that moto knows."""
    groups = ec2.client("ec2").describe_security_groups()["SecurityGroups"]
    return str(groups[0]["GroupId"])


async def eventually(probe: Callable[[], Awaitable[T | None]], what: str, patience: float = 20.0) -> T:
    """The first answer that is not None or False."""
    deadline = time.monotonic() + patience
    while True:
        found = await probe()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, f"not seen within {patience:.0f} s: {what}"
        await asyncio.sleep(0.05)


async def reads(driver: Ec2Driver, ref: WorkspaceRef, reading: Reading) -> Instance:
    """Look until the only instance reads as wanted."""

    async def probe() -> Instance | None:
        seen = await driver.observe(ref)
        return seen[0] if len(seen) == 1 and seen[0].reading is reading else None

    return await eventually(probe, f"{reading}")


async def started(driver: Ec2Driver, request: ProvisionRequest) -> Instance:
    """Provision, asking again as the operator does while there is progress."""

    async def probe() -> Instance | None:
        answer = await driver.provision(request)
        return None if isinstance(answer, Progress) else answer

    return await eventually(probe, "an instance")


async def run(driver: Ec2Driver, request: ProvisionRequest) -> Instance:
    """Provision and see it running."""
    await started(driver, request)
    return await reads(driver, request.ref, Reading.RUNNING)


async def halted(driver: Ec2Driver, ref: WorkspaceRef) -> Instance:
    """Stop in place, asking again as the operator does."""

    async def probe() -> Instance | None:
        left = await driver.stop(StopRequest(ref, timedelta(seconds=5)))
        return left[0] if left and left[0].reading is Reading.HALTED else None

    return await eventually(probe, "Halted")


async def released(driver: Ec2Driver, ref: WorkspaceRef) -> None:
    """Release, asking again as the operator does."""

    async def probe() -> bool:
        return not await driver.stop(StopRequest(ref, timedelta(seconds=5), release=True))

    await eventually(probe, "released")
