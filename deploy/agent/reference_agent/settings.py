"""Reads the environment once and gives it names; nothing else in the agent looks at `os.environ`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_IDENTITY = Path("/var/run/secrets/workspace-operator.dev")


class SettingsError(ValueError):
    """A variable that the agent cannot work with, told in a sentence."""


@dataclass(frozen=True)
class Settings:
    """What the operator (`WORKSPACE_*`) and the person who runs the agent (`AGENT_*`) decided."""

    name: str
    namespace: str
    uid: str
    incarnation: int
    port: int
    bind_address: str
    data: Path | None
    identity: Path
    faults: str
    lease_interval: float
    grace: float
    grant_wait: float

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        data = environ.get("WORKSPACE_DATA")
        return cls(
            name=environ.get("WORKSPACE_NAME") or "agent",
            namespace=environ.get("WORKSPACE_NAMESPACE") or "default",
            uid=environ.get("WORKSPACE_UID", ""),
            incarnation=int(_number(environ, "WORKSPACE_INCARNATION", 0)),
            port=int(_number(environ, "WORKSPACE_PORT", 8080)),
            bind_address=environ.get("WORKSPACE_BIND_ADDRESS") or "0.0.0.0",  # noqa: S104 - its own network
            data=Path(data) if data else None,
            identity=Path(environ.get("WORKSPACE_IDENTITY") or DEFAULT_IDENTITY),
            faults=environ.get("AGENT_FAULTS", ""),
            lease_interval=_number(environ, "AGENT_LEASE_INTERVAL", 10),
            grace=_number(environ, "AGENT_GRACE", 5),
            grant_wait=_number(environ, "AGENT_GRANT_WAIT", 60),
        )


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"{name} must be a number, not {text!r}.") from None
