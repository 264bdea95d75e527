"""What EC2 shows of an instance, read as an Instance. Used inside backends/ec2 only.

States are those of EC2 UG, "Amazon EC2 instance state changes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from workspace_operator.api import meta
from workspace_operator.backends import labels
from workspace_operator.backends.ec2 import shape
from workspace_operator.backends.protocol import Instance, Reading

_READINGS: Final = {
    "pending": Reading.STARTING,
    "running": Reading.RUNNING,
    "stopping": Reading.HALTING,
    "stopped": Reading.HALTED,
    "shutting-down": Reading.HALTING,
    "terminated": Reading.ABSENT,
}
_SINCE: Final = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")
_DATA_MISSING: Final = "The machine runs and waits for its data volume."

#: State reasons that say nothing beyond the reading. The others come with a sentence.
_ORDINARY: Final = frozenset(
    {"Client.UserInitiatedShutdown", "Client.UserInitiatedHibernate", "Client.InstanceInitiatedShutdown", "pending", ""}
)
_SENTENCES: Final = {
    "Server.InsufficientInstanceCapacity": "EC2 had no capacity for it.",
    "Server.InternalError": "EC2 failed to launch or to keep it (internal error).",
    "Server.ScheduledStop": "EC2 stopped it for maintenance of its host.",
    "Server.SpotInstanceShutdown": "EC2 took its Spot capacity back.",
    "Server.SpotInstanceTermination": "EC2 took its Spot capacity back.",
    "Client.InternalError": "It could not be launched; often a disk's KMS key may not be used: check ec2.rootDisk.",
    "Client.InvalidSnapshot.NotFound": "A snapshot of ec2.image does not exist or may not be used.",
    "Client.VolumeLimitExceeded": "The account's quota of EBS volumes is exhausted; ask AWS for more.",
}


@dataclass(frozen=True)
class Seen:
    """One instance as EC2 shows it: its Instance, and what a verb has to know besides."""

    instance: Instance
    state: str
    zone: str = ""
    token: str = ""
    wants_data: bool = False
    data: str = ""  # EC2's word for the attachment of the data volume: attaching, attached, ...
    size: int | None = None  # bytes of the data volume that its workspace asks for; None: as the class has it
    hibernation: bool = False
    transition: str = ""  # EC2's text about the last change of state, with its time

    @property
    def id(self) -> str:
        """EC2's id, or the client token of one that EC2 does not show yet."""
        return self.instance.id

    @property
    def exists(self) -> bool:
        """EC2 shows it, and not as terminated."""
        return self.state not in ("terminated", "")

    @property
    def lacks_data(self) -> bool:
        """Runs, and nobody has begun to attach its data volume."""
        return self.state == "running" and self.wants_data and not self.data


def read(item: Mapping[str, Any]) -> Seen:
    """One item of DescribeInstances or RunInstances."""
    tags = shape.read_tags(item)
    state = str(item.get("State", {}).get("Name", "pending"))
    zone = str(item.get("Placement", {}).get("AvailabilityZone", ""))
    code = str((item.get("StateReason") or {}).get("Code", ""))
    port = tags.get(shape.TAG_PORT)
    address = item.get("PrivateIpAddress")
    reading = _READINGS.get(state, Reading.STARTING)
    instance = Instance(
        ref=labels.owner(tags),
        incarnation=labels.incarnation(tags),
        reading=reading,
        id=str(item["InstanceId"]),
        parameters=tags.get(meta.LABEL_PARAMETERS, ""),
        address=f"{address}:{port}" if address and port and reading in (Reading.STARTING, Reading.RUNNING) else None,
        node=zone or None,
        message=_sentence(state, code),
        halting_since=_since(item) if reading is Reading.HALTING else None,
    )
    seen = Seen(
        instance,
        state,
        zone=zone,
        token=str(item.get("ClientToken", "")),
        wants_data=shape.TAG_DATA in tags,
        data=_data(item),
        size=_size(tags.get(shape.TAG_SIZE, "")),
        hibernation=bool((item.get("HibernationOptions") or {}).get("Configured")),
        transition=str(item.get("StateTransitionReason") or ""),
    )
    waits = state == "running" and seen.wants_data and seen.data != "attached"
    return with_message(seen, Reading.STARTING, _DATA_MISSING) if waits else seen


def with_message(seen: Seen, reading: Reading, message: str) -> Seen:
    """The same instance in another reading, with a sentence."""
    return replace(seen, instance=replace(seen.instance, reading=reading, message=message or seen.instance.message))


def after(seen: Seen, state: str) -> Seen:
    """The instance in the state that the answer of a verb tells."""
    reading = _READINGS.get(state, Reading.STARTING)
    since = seen.instance.halting_since or datetime.now(UTC)
    instance = replace(
        seen.instance,
        reading=reading,
        message="",
        halting_since=since if reading is Reading.HALTING else None,
        address=seen.instance.address if reading in (Reading.STARTING, Reading.RUNNING) else None,
    )
    return replace(seen, instance=instance, state=state)


def _sentence(state: str, code: str) -> str:
    if state in ("pending", "running") or code in _ORDINARY:
        return ""
    plain = code if re.fullmatch(r"[A-Za-z.]{1,64}", code) else "no reason"
    return _SENTENCES.get(code, f"EC2 gives {plain} as the reason of its state.")


def _since(item: Mapping[str, Any]) -> datetime | None:
    """EC2 tells the time of a stop within a text: "User initiated (2026-01-31 12:00:00 GMT)"."""
    found = _SINCE.search(str(item.get("StateTransitionReason") or ""))
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) if found else None


def _data(item: Mapping[str, Any]) -> str:
    for disk in item.get("BlockDeviceMappings") or ():
        if disk.get("DeviceName") == shape.DATA_DEVICE:
            return str(disk.get("Ebs", {}).get("Status", "attached"))
    return ""


def _size(tag: str) -> int | None:
    """A spoilt tag is none: the machine gets a volume all the same."""
    return int(tag) if tag.isdecimal() else None
