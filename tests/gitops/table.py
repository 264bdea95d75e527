"""The table of states and verdicts, as the README shows it."""

from __future__ import annotations

import re

from tests.gitops.judge import Verdict
from tests.gitops.states import State
from tests.support.operator import ROOT

README = ROOT / "deploy" / "gitops" / "README.md"
_PART = re.compile(r"(<!-- generated: verdicts -->)\n.*?(<!-- end -->)", re.DOTALL)


def render(states: list[State], verdicts: list[Verdict]) -> str:
    """One Markdown table per kind."""
    lines: list[str] = []
    kind = ""
    for state, verdict in zip(states, verdicts, strict=True):
        if state.kind != kind:
            kind = state.kind
            lines += ["", f"**{kind}**", "", "| State | Argo CD | kstatus (Flux) | What Argo CD shows |"]
            lines.append("|---|---|---|---|")
        message = verdict.message.replace("|", "\\|")
        lines.append(f"| {state.name} | {verdict.argo} | {verdict.kstatus} | {message} |")
    return "\n".join([*lines, ""]) + "\n"


def filled(table: str) -> str:
    """The README with this table in it."""
    return _PART.sub(lambda found: f"{found[1]}\n{table}{found[2]}", README.read_text())
