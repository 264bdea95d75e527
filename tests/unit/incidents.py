"""Which incident (``incidents.txt``: what went wrong elsewhere, and our promise) is named by which test."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
_ID = re.compile(r"\bI-\d\d\b")

#: Rows that nothing tests yet, because what they speak of is not built yet. The list only shrinks.
OPEN: dict[str, str] = {}

#: Rows of which a part is tested and the rest is not built yet.
PARTLY: dict[str, str] = {}


@cache
def promises() -> dict[str, str]:
    lines = (Path(__file__).parent / "incidents.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


@cache
def named() -> dict[str, list[str]]:
    """Row → tests whose docstring names it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for row in _ID.findall(ast.get_docstring(node) or ""):
                    found[row].append(f"{file.relative_to(TESTS)}::{node.name}")
    return dict(found)


def untested() -> list[str]:
    return [f"{row} {promise}" for row, promise in promises().items() if row not in named()]
