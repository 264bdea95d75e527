"""People at work: seeded dice edit, pause, stop, restart, delete and re-create workspaces, and kill their compute."""

from __future__ import annotations

import copy
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.api import Api
from tests.chaos.sites import EDITION, Site
from tests.chaos.witness import census
from tests.support.fleet import workspace

from workspace_operator.kube.client import workspaces

STATES = ("Running", "Paused", "Stopped")
RANK = {state: rank for rank, state in enumerate(STATES)}
#: What people do, and how often.
HABITS = {"edit": 5, "state": 8, "restart": 3, "delete": 3, "create": 6, "kill": 4}


@dataclass
class Wish:
    """What somebody wants of one name at last."""

    name: str
    site: Site
    spec: dict[str, Any] | None = None  # None: it shall not exist
    uid: str = ""

    @property
    def automatic(self) -> bool:
        return self.spec is not None and self.spec["updatePolicy"] == "Automatic"


class Workload:
    """Writes to the real API server and remembers each wish that was accepted."""

    def __init__(self, api: Api, namespace: str, sites: Sequence[Site], count: int, seed: int) -> None:
        self._api, self.namespace = api, namespace
        self._dice = random.Random(f"{seed}:workload")
        self.wishes = {name: Wish(name, sites[n % len(sites)]) for n, name in enumerate(_names(count))}
        self.parents = list(self.wishes)[: max(2, count // 6)]
        self.owners: dict[str, Wish] = {}  # each UID that ever was
        self.done: Counter[str] = Counter()
        self._edition = 0

    def begin(self) -> None:
        """Everybody has one."""
        for wish in self.wishes.values():
            self._create(wish)

    def run(self, seconds: float, per_second: float, stop: threading.Event) -> None:
        """Work for so long; nobody kills towards the end, because a crash loop is slowed down on purpose."""
        begin = time.monotonic()
        while (spent := time.monotonic() - begin) < seconds and not stop.wait(self._dice.expovariate(per_second)):
            habits = {name: weight for name, weight in HABITS.items() if name != "kill" or spent < 0.6 * seconds}
            (habit,) = self._dice.choices(list(habits), list(habits.values()))
            acts: dict[str, Callable[[Wish], bool]] = {
                "edit": self._edit,
                "state": self._change_state,
                "restart": self._restart,
                "delete": self._delete,
                "create": self._create,
                "kill": self._kill,
            }
            candidates = self._candidates(habit)
            if candidates and acts[habit](self._dice.choice(candidates)):
                self.done[habit] += 1

    def finish(self, seconds: float) -> None:
        """No child is left without its parent, because what becomes of such a one depends on when the parent went."""
        wanted = {w.spec["parentRef"]["name"] for w in self.wishes.values() if w.spec and "parentRef" in w.spec}
        deadline = time.monotonic() + seconds
        while missing := [self.wishes[name] for name in sorted(wanted) if self.wishes[name].spec is None]:
            for wish in missing:
                self._create(wish)
            assert time.monotonic() < deadline, f"these are not gone after {seconds:.0f} s: {[w.name for w in missing]}"
            time.sleep(0.5)

    def effective(self, wish: Wish) -> str:
        """The lowest of its own state and its ancestors'."""
        assert wish.spec is not None
        state = str(wish.spec["desiredState"])
        parent = self.wishes.get(wish.spec.get("parentRef", {}).get("name", ""))
        return max(state, self.effective(parent), key=RANK.__getitem__) if parent is not None else state

    def _candidates(self, habit: str) -> list[Wish]:
        """Who wants to create looks for a name that is free, who kills for compute, everybody else for an object."""
        found = [wish for wish in self.wishes.values() if (wish.spec is None) == (habit == "create")]
        if habit == "kill":
            seen = census()
            found = [wish for wish in found if wish.site.running(wish.uid, seen)]
        return found

    # Habits: whether anything was done.

    def _create(self, wish: Wish) -> bool:
        dice = self._dice
        spec = {
            "className": wish.site.class_name,
            "desiredState": dice.choices(STATES, (7, 2, 1))[0],
            "updatePolicy": dice.choices(("Automatic", "OnRestart"), (3, 1))[0],
            "env": self._env(),
            **wish.site.template(dice),
        }
        if dice.random() < 0.25:
            spec["storage"] = {"whenDeleted": "Delete"}
        if wish.name not in self.parents and dice.random() < 0.25:
            spec["parentRef"] = {"name": dice.choice(self.parents)}
        made = self._api.create(workspaces(self.namespace), workspace(wish.name, **spec))
        if made is None:
            return False  # the one before is still being deleted
        wish.spec, wish.uid = spec, made["metadata"]["uid"]
        self.owners[wish.uid] = wish
        return True

    def _edit(self, wish: Wish) -> bool:
        return self._patch(wish, {"env": self._env(), **wish.site.template(self._dice)})

    def _change_state(self, wish: Wish) -> bool:
        return self._patch(wish, {"desiredState": self._dice.choices(STATES, (6, 3, 2))[0]})

    def _restart(self, wish: Wish) -> bool:
        return self._patch(wish, {"restartToken": f"token-{self._dice.randrange(10**6)}"})

    def _delete(self, wish: Wish) -> bool:
        self._api.delete(workspaces(self.namespace, wish.name))
        wish.spec = None
        return True

    def _kill(self, wish: Wish) -> bool:
        return wish.site.kill(wish.uid, census(), self._dice)

    def _patch(self, wish: Wish, change: dict[str, Any]) -> bool:
        assert wish.spec is not None
        self._api.merge(workspaces(self.namespace, wish.name), {"spec": change})
        wish.spec = copy.deepcopy({**wish.spec, **change})
        return True

    def _env(self) -> list[dict[str, str]]:
        self._edition += 1
        return [{"name": EDITION, "value": str(self._edition)}]


def _names(count: int) -> list[str]:
    return [f"w{number:03}" for number in range(count)]
