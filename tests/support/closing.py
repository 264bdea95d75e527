"""What a run has to say when it is over, wherever it ran: with pytest-xdist, tests run in workers that print nothing.

A conftest implements ``pytest_closing_words``; the workers' words reach the one that prints with their results.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import pytest

Words = tuple[str, list[str]]  # title, lines
_WORDS = pytest.StashKey[dict[str, list[str]]]()
_KEY = "closing_words"


class Hooks:
    """The hook that conftests implement."""

    def pytest_closing_words(self, config: pytest.Config) -> Words | None:  # type: ignore[empty-body]
        """A section for the end of the run; None or no lines: nothing to say."""


class Closing:
    """Gathers the sections and prints them."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        words = _given(session.config.hook.pytest_closing_words(config=session.config))
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_KEY] = words
        else:
            _add(session.config, words)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", {})  # a worker that crashed has none
        _add(cast(pytest.Config, node.config), output.get(_KEY, []))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        for title, lines in config.stash.get(_WORDS, {}).items():
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.write_line(line)


def _given(answers: Iterable[Words | None]) -> list[Words]:
    return [words for words in answers if words is not None and words[1]]


def _add(config: pytest.Config, words: Iterable[Words]) -> None:
    known = config.stash.setdefault(_WORDS, {})
    for title, lines in words:
        section = known.setdefault(title, [])
        if section[-len(lines) :] != lines:  # what each worker can say is said once
            section.extend(lines)
