"""The matrix: several lanes play all subjects at once, first the recordings and then the deaths."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.crash.act import Chain, Kill, Notes, Outcome, Player
from tests.crash.choice import Points, chains, chosen
from tests.crash.lane import Lane
from tests.crash.subject import Subject

PROGRESS = 100  # deaths between two lines
TRIES = 2  # a point that is not met is tried once more


@dataclass
class Row:
    """One step of one subject in the table."""

    points: int = 0  # two deaths each
    died: int = 0
    missed: list[Kill] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)


@dataclass
class Report:
    """Everything about one subject."""

    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    planned: int = 0
    problems: list[str] = field(default_factory=list)  # that belong to no death
    notes: Notes = field(default_factory=Counter)

    @property
    def points(self) -> int:
        return sum(row.points for row in self.rows.values())

    @property
    def died(self) -> int:
        return sum(row.died for row in self.rows.values())

    @property
    def missed(self) -> list[Kill]:
        return [kill for row in self.rows.values() for kill in row.missed]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for row in self.rows.values() for outcome in row.failed]


@dataclass(frozen=True)
class Task:
    """A chain to play."""

    chain: Chain[Any]
    recording: bool = False
    tries: int = 1


class Backlog:
    """What is to be done for one subject, and its report."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.report, self.points = subject, Report(), Points()
        for step in (step for steps in subject.scenarios for step in steps):
            self.report.rows[step.name] = Row()  # the table's order
        self.tasks = deque(Task(Chain(steps), recording=True) for steps in subject.scenarios)
        self.recording = True
        self.playing = 0  # lanes that are at it

    @property
    def done(self) -> bool:
        return not self.tasks and not self.playing and not self.recording


class Matrix:
    """Gives each lane its next task; a lane stays with its subject while there is something to do for it."""

    def __init__(self, subjects: Sequence[Subject], *, full: bool, seed: int, say: Callable[[str], None]) -> None:
        self._full, self._seed, self._say = full, seed, say
        self._backlogs = [Backlog(subject) for subject in subjects]
        self._changed = threading.Condition()
        self._broken: list[BaseException] = []

    @property
    def reports(self) -> dict[str, Report]:
        return {backlog.subject.name: backlog.report for backlog in self._backlogs}

    def run(self, lanes: Sequence[Lane]) -> None:
        """Until everything is played."""
        threads = [
            threading.Thread(target=self._serve, args=(lane,), name=lane.directory.name, daemon=True) for lane in lanes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._broken:
            raise self._broken[0]

    def _serve(self, lane: Lane) -> None:
        backlog: Backlog | None = None
        try:
            while (backlog := self._next(backlog)) is not None:
                player = backlog.subject.player(lane)
                while (task := self._take(backlog)) is not None:
                    self._play(player, backlog, task)
                left = player.close()
                with self._changed:
                    backlog.report.problems += [f"left over in the end: {each}" for each in left]
                    backlog.report.notes.update(player.notes)
        except BaseException as error:
            with self._changed:
                self._broken.append(error)
                self._changed.notify_all()

    def _next(self, last: Backlog | None) -> Backlog | None:
        """The subject that has most to do for a lane; None when all is done."""
        with self._changed:
            while not self._broken:
                ready = [backlog for backlog in self._backlogs if backlog.tasks]
                if ready:
                    return min(ready, key=lambda each: (each is not last, each.playing, -len(each.tasks)))
                if all(backlog.done for backlog in self._backlogs):
                    return None
                self._changed.wait(10)
        return None

    def _take(self, backlog: Backlog) -> Task | None:
        with self._changed:
            if not backlog.tasks or self._broken:
                return None
            backlog.playing += 1
            return backlog.tasks.popleft()

    def _play(self, player: Player[Any], backlog: Backlog, task: Task) -> None:
        outcomes, problem = player.play(task.chain, recording=task.recording)
        with self._changed:
            self._note(backlog, task, outcomes, problem, player.points)
            backlog.playing -= 1
            if backlog.recording and not backlog.tasks and not backlog.playing:
                backlog.recording = False
                self._plan(backlog)
            self._changed.notify_all()

    def _note(
        self, backlog: Backlog, task: Task, outcomes: list[Outcome], problem: str, points: dict[str, list[str]]
    ) -> None:
        report = backlog.report
        if problem:
            report.problems.append(problem)
        if task.recording:
            backlog.points.add(points)
        for outcome in outcomes:
            row = report.rows[outcome.kill.step]
            if outcome.problem:
                row.failed.append(outcome)
                self._say(f"{backlog.subject.name}: FAILED {outcome.kill}: {outcome.problem.splitlines()[0]}")
            elif outcome.died:
                row.died += 1
                if report.died % PROGRESS == 0:
                    self._say(f"{backlog.subject.name}: {report.died} of {report.planned} deaths")
            elif task.tries == TRIES:
                row.missed.append(outcome.kill)
        tried = {outcome.kill for outcome in outcomes if outcome.died or outcome.problem or task.tries == TRIES}
        again = [kill for kill in task.chain.kills.values() if kill not in tried]
        met = {outcome.kill for outcome in outcomes}
        for kill in again:  # not met, or the chain broke before
            tries = task.tries + (kill in met or bool(problem))
            if tries > TRIES:
                report.rows[kill.step].missed.append(kill)
                continue
            backlog.tasks += [Task(chain, tries=tries) for chain in chains([kill], backlog.subject.scenarios)]

    def _plan(self, backlog: Backlog) -> None:
        report = backlog.report
        for step, points in backlog.points.by_step.items():
            report.rows[step].points = len(points)
        kills = chosen(backlog.points.kills(), full=self._full, seed=self._seed)
        report.planned = len(kills)
        backlog.tasks += [Task(chain) for chain in chains(kills, backlog.subject.scenarios)]
        self._say(
            f"{backlog.subject.name}: {report.points} points; {report.planned} of {2 * report.points} deaths follow"
        )
