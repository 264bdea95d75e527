"""Structured logs: JSON or text, each record with the workspace, class and verb that it speaks of."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from pythonjsonlogger.json import JsonFormatter

_FIELDS = ("namespace", "name", "class", "verb")
_NOTHING: Mapping[str, str] = MappingProxyType({})
_context: ContextVar[Mapping[str, str]] = ContextVar("log_context", default=_NOTHING)


@contextmanager
def about(**fields: str | None) -> Iterator[None]:
    """Give all records inside the block these fields."""
    token = _context.set({**_context.get(), **{key: value for key, value in fields.items() if value}})
    try:
        yield
    finally:
        _context.reset(token)


def setup(form: str, level: str) -> None:
    """Configure the root logger once. ``form`` is ``json`` or ``text``; ``level`` a logging level name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_context)
    if form == "json":
        rename = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=rename))
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("kopf", "aiohttp.access", "docker", "urllib3", "asyncio", "httpx", "httpcore", "a2a"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _add_context(record: logging.LogRecord) -> bool:
    for key, value in _context.get().items():
        setattr(record, f"workspace_{key}" if key == "name" else key, value)
    return True


class _TextFormatter(logging.Formatter):
    """Message first, then key=value pairs."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        context = _context.get()
        pairs = " ".join(f"{key}={context[key]}" for key in _FIELDS if key in context)
        return f"{text}  [{pairs}]" if pairs else text
