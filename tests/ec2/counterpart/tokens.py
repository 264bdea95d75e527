"""The memory of client tokens.

AWS source: EC2 Developer Guide, "Ensuring idempotency in Amazon EC2 API requests": up to 64 ASCII characters; a retry
with the same parameters does nothing further and shows the current state; with other parameters it fails with
IdempotentParameterMismatch. RunInstances is idempotent per zone when the request names one (by Placement or by subnet),
else per region: the same token in another zone launches another instance. IdempotentInstanceTerminated: API Reference,
"Error codes"; seen since January 2025 (boto3 #4406). That a request refused for capacity binds its token to its
parameters as well was seen by others (ubicloud #5898).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field

from . import errors
from .query import Request

IGNORED = frozenset({"Action", "Version", "ClientToken", "DryRun"})


@dataclass
class Memory:
    """One token: what was asked with it, and what came of it."""

    digest: str = ""
    ids: list[str] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def bind(self, request: Request) -> None:
        """The first request decides the parameters; any other is refused."""
        digest = fingerprint(request)
        if self.digest and self.digest != digest:
            raise errors.token_mismatch()
        self.digest = digest


def fingerprint(request: Request) -> str:
    asked = sorted((key, value) for key, value in request.params.items() if key not in IGNORED)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


class Tokens:
    """Tokens by action, region, zone and text. Concurrent requests with one token go one after the other."""

    def __init__(self) -> None:
        self._memories: dict[tuple[str, str, str, str], Memory] = {}

    def recall(self, request: Request, zone: str = "") -> Memory:
        token = request.get("ClientToken")
        if len(token) > 64 or not token.isascii():
            raise errors.bad_value(f"Invalid value '{token}' for clientToken. Up to 64 ASCII characters are allowed.")
        if not token:
            return Memory()
        return self._memories.setdefault((request.action, request.region, zone, token), Memory())
