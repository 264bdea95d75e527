"""The fingerprint of what an instance is made from: the template and the restart token that it honours.

It is a label of every instance, so that even with a wiped status an adopted instance is known to be current (or not),
and a restart is neither lost nor done twice.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

_SEPARATOR = "-"


@dataclass(frozen=True)
class Parameters:
    """Two short hashes; ``text`` fits a label value."""

    template: str
    token: str

    @property
    def text(self) -> str:
        return f"{self.template}{_SEPARATOR}{self.token}"

    def same_template(self, other: str) -> bool:
        return other.partition(_SEPARATOR)[0] == self.template

    def same_token(self, other: str) -> bool:
        return other.rpartition(_SEPARATOR)[2] == self.token


def fingerprint(template: dict[str, Any], restart_token: str | None) -> Parameters:
    """Hash a JSON-like template and the token. Equal input gives equal text, whatever the order of keys."""
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return Parameters(_digest(canonical), _digest(restart_token or ""))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
