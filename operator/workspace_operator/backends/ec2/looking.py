"""Looking at instances: one paged call for a class, one for all workspaces that are asked about within milliseconds.

Used inside backends/ec2 only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from workspace_operator.backends import labels
from workspace_operator.backends.ec2 import readings, shape
from workspace_operator.backends.ec2.batch import Batcher
from workspace_operator.backends.ec2.connection import Connection
from workspace_operator.backends.ec2.ledger import Ledger
from workspace_operator.backends.ec2.operations import DESCRIBE_INSTANCE_STATUS, DESCRIBE_INSTANCES
from workspace_operator.backends.ec2.readings import Seen
from workspace_operator.backends.protocol import Reading

PAGE: Final = 1000  # the most that DescribeInstances gives at once
_STARTING: Final = "EC2 was told to start it and still shows it stopped."
_IMPAIRED: Final = "EC2's status check of the machine fails; its console output may tell why."


class Looker:
    """Reads instances of one cluster and class; what EC2 does not show yet comes from the ledger.

    ``tell`` is told of everything that is seen, and may put a word to it.
    """

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger,
        cluster: str,
        class_name: str,
        window: float,
        tell: Callable[[Sequence[Seen]], Sequence[Seen]],
    ) -> None:
        self._connection, self._ledger = connection, ledger
        self._cluster, self._class_name, self._window = cluster, class_name, window
        self._batcher: Batcher[str, list[Seen]] = Batcher(self._of_many)
        self._tell = tell

    async def all(self, *, status_checks: bool) -> list[Seen]:
        """Everything of the class that EC2 shows or this process launched, terminated ones included."""
        filters = shape.tag_filters(labels.ROLE_INSTANCE, self._cluster, class_name=[self._class_name])
        listed = await self._describe(filters)
        if status_checks:
            impaired = await self._impaired()
            listed = [self._with_check(seen, impaired) for seen in listed]
        return self._complete(listed, None)

    async def of(self, uid: str) -> list[Seen]:
        """The instances of one workspace, oldest incarnation first, terminated ones included."""
        return await self._batcher.ask(uid)

    def close(self) -> None:
        self._batcher.close()

    async def _of_many(self, uids: Sequence[str]) -> Mapping[str, list[Seen]]:
        listed = await self._describe(shape.tag_filters(labels.ROLE_INSTANCE, self._cluster, uid=list(uids)))
        found: dict[str, list[Seen]] = {uid: [] for uid in uids}
        for seen in self._complete(listed, uids):
            found.setdefault(seen.instance.ref.uid, []).append(seen)
        return found

    async def _describe(self, filters: list[dict[str, Any]]) -> list[Seen]:
        reservations = await self._connection.pages(
            DESCRIBE_INSTANCES, "Listing instances", "Reservations", Filters=filters, MaxResults=PAGE
        )
        return [readings.read(item) for each in reservations for item in each.get("Instances") or ()]

    async def _impaired(self) -> set[str]:
        statuses = await self._connection.pages(
            DESCRIBE_INSTANCE_STATUS,
            "Reading status checks",
            "InstanceStatuses",
            Filters=[{"Name": "instance-status.status", "Values": ["impaired"]}],
            MaxResults=PAGE,
        )
        return {s["InstanceId"] for s in statuses if s.get("InstanceStatus", {}).get("Status") == "impaired"}

    def _with_check(self, seen: Seen, impaired: set[str]) -> Seen:
        if seen.id not in impaired or seen.instance.reading is not Reading.RUNNING:
            return seen
        return readings.with_message(seen, Reading.RUNNING, _IMPAIRED)

    def _complete(self, listed: list[Seen], uids: Sequence[str] | None) -> list[Seen]:
        corrected = [self._corrected(seen) for seen in listed]
        complete = [*corrected, *self._ledger.unlisted(corrected, uids)]
        complete.sort(key=lambda seen: seen.instance.incarnation)
        return list(self._tell(complete))

    def _corrected(self, seen: Seen) -> Seen:
        if seen.state == "stopped" and self._ledger.is_starting(seen.id, self._window):
            return readings.with_message(seen, Reading.STARTING, _STARTING)
        return seen
