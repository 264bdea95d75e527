"""EC2: calls per interval and per life, starts within a budget, and what the operator adds to EC2's own time.

The EC2 is moto's server behind the tests' proxy (``tests/ec2/counterpart``), in this process; no call reaches AWS.
Numbers of calls are the operator's own and would be the same there, except for looks while something changes, which
depend on how long a change takes. Times of calls are moto's, so only differences and what is beside them tell
anything. Everything else is real: the whole operator as one process, its SDK, and an API server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.bench.ec2 import life, rest, rush, verbs
from tests.bench.lab import Lab

_PARTS: dict[str, Callable[[Lab], Awaitable[dict[str, Any]]]] = {
    "verbs": verbs.run,
    "life": life.run,
    "rest": rest.run,
    "rush": rush.run,
}


async def run(lab: Lab) -> dict[str, Any]:
    return {name: await part(lab) for name, part in _PARTS.items()}
