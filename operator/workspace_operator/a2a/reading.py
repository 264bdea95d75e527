"""Judges the bytes of an answer before the SDK parses them, and mends what would cost the answer for nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from workspace_operator.a2a.trouble import KNOWN_CODES, Kind, Trouble

# Parsing holds the event loop: 20,000 values take about 0.1 s in protobuf, 4 MiB of empty lists 0.3 s in json.
VALUES = 20_000
BRACKETS = 400_000
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def judge(body: bytes) -> bytes:
    """The JSON object in ``body``, as the SDK can parse it."""
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise Trouble(Kind.UNUSABLE, "The agent's answer is not valid UTF-8.") from exc
    if text.count("[") + text.count("{") > BRACKETS:
        raise Trouble(Kind.UNUSABLE, "The agent's answer has too many parts.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Trouble(Kind.UNUSABLE, "The agent's answer is not JSON.") from exc
    if not isinstance(value, dict):
        raise Trouble(Kind.UNUSABLE, "The agent's answer is not a JSON object.")
    if not _is_small(value):
        raise Trouble(Kind.UNUSABLE, "The agent's answer has too many parts.")
    error = value.get("error")
    if error and (not isinstance(error, dict) or error.get("code") not in KNOWN_CODES):
        raise Trouble(Kind.LOST, "The agent reports an error that A2A does not define.")
    if not _mend_times(value) and "\\ud" not in text and "\\uD" not in text:
        return body
    # protobuf refuses halves of surrogate pairs, which JavaScript writes where it cuts a string.
    mended = json.dumps(value, ensure_ascii=False)
    return mended.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _is_small(value: object) -> bool:
    waiting, seen = [value], 0
    while waiting:
        one = waiting.pop()
        items = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        seen += len(items)
        if seen > VALUES:
            return False
        waiting.extend(items)
    return True


def _mend_times(answer: dict[str, Any]) -> bool:
    """Take away times that protobuf refuses: fasta2a 2.1 writes them without a zone. They are not used here."""
    mended = False
    for status in _statuses(answer.get("result")):
        time = status.get("timestamp")
        if time is not None and not (isinstance(time, str) and _TIME.fullmatch(time)):
            del status["timestamp"]
            mended = True
    return mended


def _statuses(result: object) -> Iterator[dict[str, Any]]:
    """Each place where the answers of A2A have a task's status."""
    if not isinstance(result, dict):
        return
    tasks = result.get("tasks")
    for holder in (
        result,
        result.get("task"),
        result.get("statusUpdate"),
        *(tasks if isinstance(tasks, list) else ()),
    ):
        if isinstance(holder, dict) and isinstance(holder.get("status"), dict):
            yield holder["status"]
