"""Remembers what was answered, on the data volume if there is one, for the next incarnation to go on from."""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from pathlib import Path

log = logging.getLogger(__name__)

# All of them are rewritten with each answer, so this stays small.
REMEMBERED = 200


class Memory:
    """A counter of answered messages, and the answers to the most recent ones by message id.

    The operator sends at least once: after a crash it sends a message again under the same id. A known id
    gets the answer it got before and is not counted twice, which makes the delivery exactly-once in effect.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._answers: OrderedDict[str, str] = OrderedDict()
        self.answered = 0
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._load(directory)

    def recall(self, message_id: str) -> str | None:
        return self._answers.get(message_id)

    def remember(self, message_id: str, answer: str) -> None:
        self.answered += 1
        self._answers[message_id] = answer
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        if self._directory is not None:
            # The answers carry the count too: a crash between the two files cannot count twice.
            _replace(self._directory / "answers.json", {"answered": self.answered, "answers": self._answers})
            _replace(self._directory / "answered", self.answered)

    def _load(self, directory: Path) -> None:
        try:
            stored = json.loads((directory / "answers.json").read_text())
            self.answered = int(stored["answered"])
            self._answers.update(stored["answers"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, OSError) as error:
            log.warning("The remembered answers cannot be read (%s); starting from none.", type(error).__name__)


def _replace(path: Path, value: object) -> None:
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(json.dumps(value))
    os.replace(scratch, path)  # noqa: PTH105 - Path.replace would say the same
