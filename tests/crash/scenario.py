"""What a user wishes for, in order, and how it is seen that a wish was reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from tests.support.fleet import Object

#: A status with a token that ends soon is what renewal waits for; by itself it comes after two thirds of an hour.
SOON = timedelta(seconds=30)


class End(StrEnum):
    """What is true once a step is over."""

    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"
    GONE = "gone"


class How(StrEnum):
    """How the user speaks."""

    CREATE = "create"
    PATCH = "patch"
    EXPIRE = "expire"  # not the user but time: the token on record is about to end
    TAKE_OVER = "take over"  # nobody wishes anything: an operator starts
    DELETE = "delete"


@dataclass(frozen=True)
class Step:
    """One wish. ``starts`` is how many incarnations more than before it takes; ``resumes``: one more where a pause has
    left no instance; ``regret`` what is wished instead, while no operator runs, once one has died in this step."""

    name: str
    how: How
    end: End
    spec: Mapping[str, Any] | None = None
    starts: int = 0
    resumes: bool = False
    keeps_instance: bool = False
    regret: End | None = None

    @property
    def regretted_end(self) -> End:
        return self.regret or self.end


def _to(name: str, end: End, **more: Any) -> Step:
    return Step(name, How.PATCH, end, {"desiredState": end.value}, **more)


CREATE = Step("create", How.CREATE, End.RUNNING, starts=1)
DELETE = Step("delete", How.DELETE, End.GONE)
RENEW = Step("renew", How.EXPIRE, End.RUNNING, keeps_instance=True)

MAIN = (
    CREATE,
    _to("pause", End.PAUSED),
    _to("resume", End.RUNNING, resumes=True),
    RENEW,
    Step("take over", How.TAKE_OVER, End.RUNNING, keeps_instance=True),
    Step("restart", How.PATCH, End.RUNNING, {"restartToken": "again"}, starts=1),
    _to("stop", End.STOPPED),
    _to("start", End.RUNNING, starts=1),
    DELETE,
)

#: The wish changes while nobody is there to act: what was begun must be taken back.
REGRETS = (
    (Step("create, regretted", How.CREATE, End.RUNNING, starts=1, regret=End.STOPPED), DELETE),
    (Step("create, deleted", How.CREATE, End.RUNNING, starts=1, regret=End.GONE), DELETE),
    (
        CREATE,
        _to("pause", End.PAUSED),
        _to("resume, regretted", End.RUNNING, resumes=True, regret=End.PAUSED),
        DELETE,
    ),
)

SCENARIOS = (MAIN, *REGRETS)


def reached(step: Step, end: End) -> Callable[[Object | None], bool]:
    """Whether the object shows that the wish is reached."""

    def test(found: Object | None) -> bool:
        if found is None or end is End.GONE:
            return found is None and end is End.GONE
        status = found.get("status") or {}
        if status.get("phase") != end or status.get("observedGeneration") != found["metadata"]["generation"]:
            return False
        if not any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ())):
            return False
        token = found["spec"].get("restartToken")
        if token is not None and status.get("restartToken") != token:
            return False
        return step.how is not How.EXPIRE or not expires_soon(status)

    return test


def expires_soon(status: Object) -> bool:
    expires = (status.get("credentials") or {}).get("expires")
    return expires is None or datetime.fromisoformat(expires) < datetime.now(UTC) + 2 * SOON


def soon() -> str:
    return (datetime.now(UTC) + SOON).strftime("%Y-%m-%dT%H:%M:%SZ")
