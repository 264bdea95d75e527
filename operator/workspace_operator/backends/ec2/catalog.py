"""What the class offers: its image, its places in order, its machine types. Used inside backends/ec2 only."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from workspace_operator.api.ec2 import Ec2Backend, MachineType
from workspace_operator.api.quantity import cpu, size
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.ec2.connection import Answer, Connection
from workspace_operator.backends.ec2.operations import (
    DESCRIBE_IMAGES,
    DESCRIBE_SUBNETS,
    GET_CALLER_IDENTITY,
    GET_PARAMETER,
    Operation,
)
from workspace_operator.backends.ec2.shape import Place
from workspace_operator.backends.protocol import Template
from workspace_operator.errors import BackendUnreachable, BadRequest

_SSM: Final = "ssm:"
_IMAGE_FOR: Final = 300.0  # seconds an SSM parameter's value is kept


class Catalog:
    """Answers are kept: a subnet never changes its zone, an image parameter seldom its value."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._config: Ec2Backend = connection.config
        self._zones: dict[str, str] = {}
        self._image: tuple[str, float] | None = None
        self._asking = asyncio.Lock()  # many starts at once ask once

    async def check(self) -> str:
        """Credentials, subnets and image, with one call each; returns a short description."""
        identity = await self._ask(GET_CALLER_IDENTITY, "Asking AWS who the operator is")
        self._image = None
        zones = await self.zones()
        image = await self.image()
        found = await self._ask(DESCRIBE_IMAGES, "Looking at ec2.image", ImageIds=[image])
        if not found.get("Images"):
            raise BadRequest(
                Reason.MISCONFIGURED,
                f"ec2.image: {image} does not exist in {self._config.region} or is not shared with the account;"
                " correct the class.",
            )
        self._check_root(found["Images"][0])
        where = ", ".join(sorted(set(zones.values())))
        return f"EC2 {self._config.region} ({where}), account {identity.get('Account')}, image {image}"

    async def image(self) -> str:
        """The id of the machine image."""
        if not self._config.image.startswith(_SSM):
            return self._config.image
        async with self._asking:
            return await self._parameter()

    async def _parameter(self) -> str:
        if self._image is None or time.monotonic() - self._image[1] > _IMAGE_FOR:
            name = self._config.image.removeprefix(_SSM)
            answer = await self._ask(GET_PARAMETER, f"Reading ec2.image ({name})", Name=name)
            self._image = str(answer["Parameter"]["Value"]), time.monotonic()
        return self._image[0]

    async def zones(self) -> dict[str, str]:
        """The zone of each subnet of the class."""
        async with self._asking:
            if len(self._zones) < len(set(self._config.subnets)):
                answer = await self._ask(
                    DESCRIBE_SUBNETS, "Looking at ec2.subnets", SubnetIds=list(self._config.subnets)
                )
                self._zones = {subnet["SubnetId"]: subnet["AvailabilityZone"] for subnet in answer.get("Subnets") or ()}
        return self._zones

    async def places(self, template: Template, zone: str | None) -> list[Place]:
        """Where a workspace may be launched, in the class's order; only in ``zone`` when its data lives there."""
        machine = self.machine_type(template)
        zones = await self.zones()
        places = [Place(subnet, zones[subnet], machine.name) for subnet in self._config.subnets if subnet in zones]
        fitting = [place for place in places if zone is None or place.zone == zone]
        if not fitting:
            raise BadRequest(
                Reason.MISCONFIGURED,
                f"The data volume lives in {zone}, and ec2.subnets has none there; add a subnet of that zone.",
            )
        return fitting

    def machine_type(self, template: Template) -> MachineType:
        """The smallest one that covers the template's resources."""
        wanted_cpu, wanted_memory = template.cpu or 0.0, template.memory or 0
        fitting = [
            (cpu(each.cpu), size(each.memory), index)
            for index, each in enumerate(self._config.machine_types)
            if cpu(each.cpu) >= wanted_cpu and size(each.memory) >= wanted_memory
        ]
        if not fitting:
            names = ", ".join(each.name for each in self._config.machine_types)
            raise BadRequest(
                Reason.RESOURCES_EXCEED_CLASS,
                f"No machine type of the class has {wanted_cpu:g} CPUs and {wanted_memory} bytes of memory; lower"
                f" spec.resources.limits, or add a larger one to ec2.machineTypes ({names}).",
            )
        return self._config.machine_types[min(fitting)[2]]

    async def _ask(self, operation: Operation, doing: str, **parameters: Any) -> Answer:
        """Asking about the class's own fields is no reading of an instance: a refusal is the class's fault."""
        try:
            return await self._connection.call(operation, doing, **parameters)
        except BackendUnreachable as error:
            if error.failure.reason != Reason.MISCONFIGURED:
                raise
            raise BadRequest(Reason.MISCONFIGURED, error.failure.message) from error

    def _check_root(self, image: dict[str, object]) -> None:
        root = image.get("RootDeviceName")
        if root and root != self._config.root_device:
            raise BadRequest(
                Reason.MISCONFIGURED,
                f"ec2.rootDevice is {self._config.root_device}, but the image's root device is {root}; correct it.",
            )
