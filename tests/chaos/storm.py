"""The weather: phases of faults that come and go, by seeded dice, until the sky is clear again."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.chaos.apiserver import ApiServer
from tests.chaos.sites import Docker, Machines
from tests.chaos.supervisor import Supervisor
from tests.ec2.counterpart import Rule

Act = Callable[[], None]
PHASE = (2.5, 5.0)  # seconds
LULL = (0.3, 1.0)


@dataclass(frozen=True)
class Trouble:
    """Something that begins and, unless it is over by itself, ends."""

    begin: Act
    end: Act | None = None


def api_rules(dice: random.Random) -> Mapping[str, Mapping[str, Rule]]:
    """Name of a trouble to the rules it sets. A share of all requests, so that each is repeated with success."""

    def share(actions: str, most: float = 0.5, seconds: float = 0.0) -> Rule:
        return Rule(actions, share=dice.uniform(0.1, most), seconds=seconds)

    return {
        "throttled": {"throttled": share("*", seconds=1)},
        "conflict": {"conflict": share("*")},
        "server error": {"server_error": share("*")},
        "timeout": {"timeout": share("*")},
        "timeout after": {"timeout_after": share("*")},
        "reset": {"reset": share("*")},
        "lost": {"lost": share("*")},
        "slow": {"slow": share("*", seconds=dice.uniform(0.2, 2))},
        "hangs": {"slow": share("*", 0.15, seconds=20)},
        "watch cut": {"watch_cut": share("watch *", 0.3)},
        "watch silent": {"watch_silent": share("watch *", 0.1, seconds=30)},
        "watch expired": {"watch_expired": share("watch *", 0.2), "expired": share("list *,watch *", 0.2)},
        "stale list": {"stale": Rule("list *", seconds=dice.uniform(1, 10)), "watch_expired": share("watch *", 0.1)},
    }


def machine_rules(dice: random.Random) -> Mapping[str, Mapping[str, Rule | float]]:
    """The same for the counterpart's switches."""
    return {
        "EC2 answers lost": {"lost": Rule("*", share=dice.uniform(0.1, 0.4))},
        "EC2 throttled": {"throttled": Rule("*", share=dice.uniform(0.1, 0.6))},
        "EC2 errors after": {"error_after": Rule("*", share=dice.uniform(0.1, 0.4))},
        "EC2 launches fail": {"launch_fails": Rule("RunInstances", share=0.3)},
        "EC2 late": {"describe_delay": 1.0, "command_delay": 0.5, "tag_delay": 1.0, "state_delay": 0.5},
        "EC2 slow": {"slow": Rule("*", share=0.3, seconds=1.5), "slow_answer": Rule("*", share=0.2, seconds=3)},
    }


class Storm:
    """Draws troubles from two shuffled decks, the API server's and the others', so that each comes about as often."""

    def __init__(self, api: ApiServer, docker: Docker, machines: Machines, operator: Supervisor, seed: int) -> None:
        self._api, self._engine, self._ec2, self._operator = api, docker.engine, machines.ec2, operator
        self._dice = random.Random(f"{seed}:storm")
        self._decks = {"api": self._deck(self._api_troubles), "others": self._deck(self._other_troubles)}
        self.seen: Counter[str] = Counter()

    def rage(self, seconds: float, stop: threading.Event) -> None:
        """Phase after phase; then everything works again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not stop.is_set():
            troubles = [next(self._decks["api"]), next(self._decks["api"]), next(self._decks["others"])]
            try:
                for trouble in troubles:
                    trouble.begin()
                stop.wait(min(self._dice.uniform(*PHASE), max(0.0, deadline - time.monotonic())))
            finally:
                self._api.heal()
                for trouble in troubles:
                    if trouble.end is not None:
                        trouble.end()
            stop.wait(self._dice.uniform(*LULL))

    def _deck(self, draw: Callable[[], dict[str, Trouble]]) -> Iterator[Trouble]:
        while True:
            troubles = list(draw().items())
            self._dice.shuffle(troubles)
            for name, trouble in troubles:
                self.seen[name] += 1
                yield trouble

    def _api_troubles(self) -> dict[str, Trouble]:
        def setting(rules: Mapping[str, Rule]) -> Act:
            return lambda: _set(self._api.faults, rules)

        return {name: Trouble(setting(rules)) for name, rules in api_rules(self._dice).items()}

    def _other_troubles(self) -> dict[str, Trouble]:
        engine = self._engine
        found = {
            "operator killed": Trouble(self._operator.kill),
            "operator killed again": Trouble(self._operator.kill),
            "engine killed": Trouble(engine.kill_process, engine.start_process),
            "engine restarted": Trouble(engine.restart),
            "engine frozen": Trouble(engine.pause_process, engine.continue_process),
        }
        for name, rules in machine_rules(self._dice).items():
            found[name] = self._machine_trouble(rules)
        return found

    def _machine_trouble(self, rules: Mapping[str, Rule | float]) -> Trouble:
        faults = self._ec2.faults
        kind = {name: getattr(faults, name) for name in rules}
        return Trouble(lambda: _set(faults, rules), lambda: _set(faults, kind))


def _set(switches: object, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        setattr(switches, name, value)
