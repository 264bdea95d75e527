"""The alerting rules, and the names and labels that an expression asks for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from deploy.monitoring import exported

FOLDER = Path(exported.__file__).parent
ALERTS_FILE = FOLDER / "alerts.yaml"
GROUPS: list[dict[str, Any]] = yaml.safe_load(ALERTS_FILE.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}

TARGET = {"instance", "job", "namespace", "pod"}  # labels that the scrape adds
_STRING = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"\b((?:workspace_operator|process)_\w+|up)\b(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")
_MADE = re.compile(r'label_replace\([^,]*?(?:\{[^}]*\})?, "(\w+)"')


def unknown(expression: str) -> list[str]:
    """Sentences about names and labels that the operator does not export."""
    known, found, labels = exported.samples(), [], TARGET | set(_MADE.findall(expression))
    bare = _STRING.sub('""', expression)
    for name, selector in _SELECTOR.findall(bare):
        if name not in known:
            found.append(f"no metric {name}")
            continue
        labels |= known[name]
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        found += [f"{name} has no label {label}" for label in sorted(asked - known[name] - TARGET)]
    for group in _GROUPING.findall(bare):
        asked = {label.strip() for label in group.split(",") if label.strip()}
        found += [f"nothing has the label {label}" for label in sorted(asked - labels)]
    return found


def labels_of(expression: str) -> set[str]:
    """Every label that a result of the expression could have."""
    known = exported.samples()
    own = {label for name, _ in _SELECTOR.findall(_STRING.sub('""', expression)) for label in known.get(name, ())}
    return own | TARGET | set(_MADE.findall(expression))
