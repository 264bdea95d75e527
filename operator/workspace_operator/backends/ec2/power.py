"""Starting, stopping and terminating instances, many with one call. Used inside backends/ec2 only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final

from workspace_operator.backends.ec2.batch import Batcher
from workspace_operator.backends.ec2.connection import Answer, Connection
from workspace_operator.backends.ec2.faults import NotFound, WrongState
from workspace_operator.backends.ec2.ledger import Ledger
from workspace_operator.backends.ec2.operations import (
    MODIFY_INSTANCE_ATTRIBUTE,
    START_INSTANCES,
    STOP_INSTANCES,
    TERMINATE_INSTANCES,
    Operation,
)


class Stop(Enum):
    """How an instance is ended."""

    HALT = "halt"
    HIBERNATE = "hibernate"
    FORCE = "force"
    TERMINATE = "terminate"


_CALLS: Final[Mapping[Stop, tuple[Operation, str, Mapping[str, Any]]]] = {
    Stop.HALT: (STOP_INSTANCES, "Stopping an instance", {}),
    Stop.HIBERNATE: (STOP_INSTANCES, "Hibernating an instance", {"Hibernate": True}),
    Stop.FORCE: (STOP_INSTANCES, "Forcing an instance to stop", {"Force": True}),
    Stop.TERMINATE: (TERMINATE_INSTANCES, "Terminating an instance", {}),
}


class Power:
    """Answers with the state that EC2 tells, so that no look is needed right after."""

    def __init__(self, connection: Connection, ledger: Ledger) -> None:
        self._connection, self._ledger = connection, ledger
        self._starts: Batcher[str, str] = Batcher(self._start_many)
        self._stops: dict[Stop, Batcher[str, str]] = {how: Batcher(partial(self._stop_many, how)) for how in Stop}

    async def rewrite(self, instance: str, user_data: bytes) -> None:
        """Replace the user data of a stopped instance."""
        await self._connection.call(
            MODIFY_INSTANCE_ATTRIBUTE, "Writing user data", InstanceId=instance, UserData={"Value": user_data}
        )

    async def start(self, instance: str) -> str:
        """Start a stopped instance."""
        return await self._starts.ask(instance)

    async def stop(self, instance: str, how: Stop) -> str | None:
        """End an instance; None when its state does not allow it now, or EC2 does not show it (yet)."""
        try:
            state = await self._stops[how].ask(instance)
        except (NotFound, WrongState):
            return None
        self._ledger.stopped([instance])
        return state

    def close(self) -> None:
        for batcher in (self._starts, *self._stops.values()):
            batcher.close()

    async def _start_many(self, instances: Sequence[str]) -> Mapping[str, str]:
        answer = await self._connection.call(START_INSTANCES, "Starting an instance", InstanceIds=list(instances))
        return _states(answer, "StartingInstances")

    async def _stop_many(self, how: Stop, instances: Sequence[str]) -> Mapping[str, str]:
        operation, doing, options = _CALLS[how]
        answer = await self._connection.call(operation, doing, InstanceIds=list(instances), **options)
        return _states(answer, "TerminatingInstances" if how is Stop.TERMINATE else "StoppingInstances")


def _states(answer: Answer, key: str) -> dict[str, str]:
    return {each["InstanceId"]: str(each["CurrentState"]["Name"]) for each in answer.get(key) or ()}
