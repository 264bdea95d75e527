"""Token buckets, as EC2 has them: a size to burst into and a rate to refill at."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Bucket:
    """One token per request; an empty bucket refuses with RequestLimitExceeded.

    AWS source: EC2 Developer Guide, "Request throttling for the Amazon EC2 API", section "How throttling is applied".
    """

    size: float
    rate: float
    tokens: float = field(init=False)
    filled: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = self.size

    def take(self) -> bool:
        now = time.monotonic()
        self.tokens = min(self.size, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
