"""From instances to the one sight that the plan decides on."""

from __future__ import annotations

from tests.unit.kit import SERVES, instance, record

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Reading
from workspace_operator.backends.protocol import Instance, WorkspaceRef
from workspace_operator.errors import Failure, FailureClass
from workspace_operator.lifecycle.facts import Sight
from workspace_operator.reconcile.sight import see

REF = WorkspaceRef("k", "u", "n", "w", "c")
LOST = Failure(FailureClass.BACKEND, Reason.NODE_LOST, "Node node-1 has not answered.")


def test_an_instance_that_nobody_can_tell_of_makes_the_sight_unknown() -> None:
    """I-40: whichever incarnation it is, and whatever was read of it last; nothing is started beside it (I-06)."""
    runs = Instance(REF, 2, Reading.RUNNING, "second")
    lost = Instance(REF, 1, Reading.RUNNING, "first", problem=LOST)
    seen = see((lost, runs), record(instance(2)), SERVES, ran=True)
    assert (seen.sight, seen.problem) == (Sight.UNKNOWN, LOST)
    assert see((runs,), record(instance(2)), SERVES, ran=True).sight is Sight.RUNNING
