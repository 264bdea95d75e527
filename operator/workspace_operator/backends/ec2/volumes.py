"""The data volume: one EBS volume per workspace, which outlives every instance. Used inside backends/ec2 only.

It is made after the first instance, in that instance's zone, so that a zone without capacity does not tie a workspace
down; from then on it decides the zone. EC2 cannot attach an existing volume in the launch call, and none to an
instance that is still pending, so it is attached when a look shows the instance running. Until it is attached the
instance reads Starting, and the workload inside waits for the disk.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from workspace_operator.api.ec2 import Ec2Backend
from workspace_operator.api.reasons import Reason
from workspace_operator.backends import labels
from workspace_operator.backends.ec2 import shape
from workspace_operator.backends.ec2.connection import Connection
from workspace_operator.backends.ec2.faults import NotFound, Throttled, TokenUsed, WrongState
from workspace_operator.backends.ec2.ledger import Ledger
from workspace_operator.backends.ec2.operations import ATTACH_VOLUME, CREATE_VOLUME, DELETE_VOLUME, DESCRIBE_VOLUMES
from workspace_operator.backends.ec2.readings import Seen
from workspace_operator.backends.protocol import WorkspaceRef
from workspace_operator.errors import BackendError, BackendUnreachable, OperatorError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Volume:
    """A data volume as EC2 shows it."""

    id: str
    zone: str
    state: str
    attached_to: str | None = None


class Volumes:
    """Finds, makes, attaches and deletes data volumes."""

    def __init__(self, connection: Connection, ledger: Ledger, window: float) -> None:
        self._connection, self._ledger, self._window = connection, ledger, window
        self._config: Ec2Backend = connection.config

    async def find(self, ref: WorkspaceRef) -> Volume | None:
        """The workspace's volume: as EC2 shows it, or as this process has just made it."""
        found = await self._all(ref)
        made = self._ledger.volumes.get(ref.uid)
        if found:
            self._ledger.volumes[ref.uid] = found[0].id, found[0].zone, time.monotonic()
            return found[0]
        if made is None or time.monotonic() - made[2] > self._window:
            self._ledger.volumes.pop(ref.uid, None)
            return None
        return Volume(made[0], made[1], "creating")

    async def known(self, ref: WorkspaceRef) -> Volume | None:
        """The same without a call for one that this process has seen; should it be gone, the attachment tells."""
        seen = self._ledger.volumes.get(ref.uid)
        return await self.find(ref) if seen is None else Volume(seen[0], seen[1], "available")

    async def ensure(self, seen: Seen, *, looked: bool = False) -> Volume:
        """The workspace's volume, made in the zone of its first instance when there is none.

        One that exists is taken as it is, whatever its size. ``looked``: EC2 was just asked and showed none.
        """
        ref = seen.instance.ref
        found = await self.known(ref) if not looked or ref.uid in self._ledger.volumes else None
        if found is not None:
            return found
        try:
            answer = await self._connection.call(
                CREATE_VOLUME, "Creating the data volume", **shape.volume(ref, self._config, seen.zone, seen.size)
            )
        except TokenUsed as error:
            # Made before, with the class as it was then or in another zone; the listings will show it.
            raise BackendUnreachable(
                Reason.BACKEND_UNREACHABLE, "EC2 has made the data volume before and does not show it yet."
            ) from error
        volume = Volume(answer["VolumeId"], answer["AvailabilityZone"], str(answer.get("State", "creating")))
        self._ledger.volumes[ref.uid] = volume.id, volume.zone, time.monotonic()
        return volume

    async def attach(self, seen: Seen) -> str | None:
        """Attach the volume to a running instance that lacks it; a sentence when that has to wait for something."""
        ref = seen.instance.ref
        try:
            volume = await self.ensure(seen)
            if volume.zone != seen.zone:
                return f"Its data volume lives in {volume.zone}, the machine in {seen.zone}; it has to be made anew."
            await self._connection.call(
                ATTACH_VOLUME,
                "Attaching the data volume",
                VolumeId=volume.id,
                InstanceId=seen.id,
                Device=shape.DATA_DEVICE,
            )
        except WrongState:
            return None  # attached already, or something is on its way; the next look shows which
        except NotFound:
            self._ledger.volumes.pop(ref.uid, None)
            return None
        except Throttled as error:
            log.debug("the data volume of %s/%s: %s", ref.namespace, ref.name, error)
            return None
        except OperatorError as error:
            log.warning("the data volume of %s/%s: %s", ref.namespace, ref.name, error)
            return error.failure.message
        return None

    async def delete(self, ref: WorkspaceRef) -> bool:
        """Remove what is this workspace's and in no use; True once nothing of it is shown."""
        found = await self._all(ref)
        made = self._ledger.volumes.get(ref.uid)
        if not found and made is not None and time.monotonic() - made[2] <= self._window:
            found = [Volume(made[0], made[1], "available")]
        if not found and self._ledger.unsettled(self._window) > 0:
            return False  # a process before this one may just have made it
        for volume in found:
            if volume.attached_to is not None:
                return False
            try:
                await self._connection.call(DELETE_VOLUME, "Deleting the data volume", VolumeId=volume.id)
            except WrongState:
                return False
            except NotFound:
                pass
        self._ledger.volumes.pop(ref.uid, None)
        return not found or not await self._all(ref)

    async def _all(self, ref: WorkspaceRef) -> list[Volume]:
        filters = shape.tag_filters(labels.ROLE_DATA, ref.cluster, uid=[ref.uid])
        found = await self._connection.pages(
            DESCRIBE_VOLUMES, "Looking for the data volume", "Volumes", Filters=filters, MaxResults=500
        )
        volumes = [_read(item) for item in found if item.get("State") not in ("deleting", "deleted")]
        if len(volumes) > 1:
            raise BackendError(
                Reason.PROVISION_FAILED,
                f"EC2 shows more than one data volume of this workspace ({', '.join(v.id for v in volumes)}); take the"
                " tags from those that are not its own.",
            )
        return volumes


def _read(item: dict[str, Any]) -> Volume:
    attached = [each.get("InstanceId") for each in item.get("Attachments") or () if each.get("State") != "detached"]
    return Volume(item["VolumeId"], item["AvailabilityZone"], item["State"], attached[0] if attached else None)
