"""Playing deliveries: the agents stay alive, the operator may not, and the history of the object is read in the end."""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from kubernetes.client import V1ConfigMap, V1ObjectMeta
from tests.crash.act import COLLECTED_WITHIN, Act, Chain, Kill, Notes, Outcome, Wrong, have_operator
from tests.crash.delegation_scenario import LONG_ANSWER, OPTIONS, QUESTION, Delivery, Receiver, Wish
from tests.crash.lane import NAMESPACE, Lane, wait_for
from tests.crash.rigs import DelegationRig
from tests.support.delegations import TERMINAL, delegation
from tests.support.fleet import Object, until, workspace

from workspace_operator.api import meta
from workspace_operator.api.delegation import ANSWER_KEY, PREVIEW_BYTES, answer_name

SENDER = "sender"
READY_WITHIN = 60.0  # seconds
SETTLED_WITHIN = 10.0  # seconds, for what the agent does with its last request

_serial = itertools.count(1)


class DelegationPlayer:
    """Plays deliveries on one lane, between the same few workspaces."""

    def __init__(self, lane: Lane, rig: DelegationRig) -> None:
        self._lane, self._rig = lane, rig
        self.points: dict[str, list[str]] = {}  # of the last chain, by step
        self.notes: Notes = Counter()
        self._uids: list[str] = []  # of the workspaces, while there are any

    def play(self, chain: Chain[Delivery], *, recording: bool = False) -> tuple[list[Outcome], str]:
        outcomes = list[Outcome]()
        self.points = {}
        self._have_workspaces()
        for step in chain.steps:
            endpoint = until(partial(self._endpoint, step.receiver), READY_WITHIN)
            kill, life = chain.kills.get(step.name), _Life(self._lane, step, endpoint)
            try:
                died = life.play(kill, recording=recording)
                self.points[step.name] = life.points
                self.notes.update(life.notes)
            except Exception as error:
                problem = self._explain(life, step, error)
                self._lane.kill()
                for each in life.given:
                    self._lane.delegations.strip(each["metadata"]["name"])
                if kill is None:
                    return outcomes, problem
                return [*outcomes, Outcome(kill, True, problem)], ""
            if kill is not None:
                outcomes.append(Outcome(kill, died))
        return outcomes, ""

    def close(self) -> list[str]:
        """Delete everything; what is left once the control plane's garbage collector had its time."""
        if not self._uids:
            return []
        lane, left = self._lane, list[str]()
        have_operator(lane)
        lane.delegations.clear(COLLECTED_WITHIN)
        lane.workspaces.clear(COLLECTED_WITHIN)

        def clean() -> bool:
            left[:] = lane.objects_of(SENDER, *Receiver) + self._answers()
            left.extend(each for uid in self._uids for each in self._rig.left(uid, lane.directory))
            return not left

        wait_for(clean, COLLECTED_WITHIN)
        lane.core.delete_namespaced_config_map(QUESTION, NAMESPACE)
        self._uids = []
        return left

    def _have_workspaces(self) -> None:
        """The sender need not run."""
        lane = self._lane
        lane.use(self._rig)
        if self._uids:
            return
        question = V1ConfigMap(metadata=V1ObjectMeta(name=QUESTION), data={QUESTION: f"bytes={LONG_ANSWER}"})
        lane.core.create_namespaced_config_map(NAMESPACE, question)
        have_operator(lane)
        spec = {"className": self._rig.name, **self._rig.workspace_spec()}
        made = [lane.workspaces.create(workspace(SENDER, **spec, desiredState="Stopped"))]
        agent = {"probe": "TCP", "maxConcurrentTasks": 1}
        for name, options in OPTIONS.items():
            made.append(lane.workspaces.create(workspace(name, **spec, agent=agent, args=list(options))))
        self._uids += [each["metadata"]["uid"] for each in made]
        for name in Receiver:
            until(partial(self._endpoint, name), READY_WITHIN)

    def _endpoint(self, name: str) -> str:
        """Of a workspace that is ready; empty until then."""
        status = (self._lane.workspaces.get(name) or {}).get("status") or {}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
        return str(status["endpoint"]) if ready else ""

    def _answers(self) -> list[str]:
        found: Any = self._lane.core.list_namespaced_config_map(NAMESPACE, label_selector=meta.MANAGED_BY_LABEL)
        return [f"ConfigMap {each.metadata.name}" for each in found.items]

    def _explain(self, life: _Life, step: Delivery, error: Exception) -> str:
        shown = [self._lane.delegations.get(each["metadata"]["name"]) for each in life.given]
        text = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
        try:
            counts = str([life.counts(each) for each in life.given])
        except OSError as unreachable:
            counts = str(unreachable)
        objects = json.dumps(shown, indent=1, default=str)
        return f"{step.name}: {text}\n--- the objects\n{objects}\n--- the agent's counts\n{counts}\n{self._lane.tail()}"


class _Life:
    """One delivery, from the wish to its end."""

    def __init__(self, lane: Lane, step: Delivery, endpoint: str) -> None:
        self._lane, self._step, self._endpoint = lane, step, endpoint
        self.given: list[Object] = []  # as they were created
        self.points: list[str] = []
        self.notes: Notes = Counter()
        self._wished = False
        self._left = 0  # tasks that a delivery before has left at the agent, for which it has failed

    def play(self, kill: Kill | None, *, recording: bool) -> bool:
        """Whether the operator died as planned."""
        number = next(_serial)
        self._left = sum(count["working"] for count in self._ask("/counts").values())
        act = Act(self._lane, f"{self._step.name}/{number}", kill)
        if self._step.unattended:
            self._lane.kill()
            self._lane.withdraw(SENDER)
            self._give_all(number)
            act.begin(anew=True)
        else:
            act.begin()
            self._give_all(number)
        given_at = time.monotonic()
        died = act.follow(
            lambda _: self._is_over(),
            recording=recording,
            on_death=lambda: time.sleep(max(0.0, given_at + self._step.absence - time.monotonic())),
        )
        self.points = act.points
        self._inspect(died)
        return died

    def counts(self, given: Object) -> dict[str, int]:
        """What the message of a delegation came to, as its agent knows."""
        return self._ask(f"/counts?of=dlg-{given['metadata']['uid']}")

    def _ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self._endpoint + path, timeout=10) as answer:
            return dict(json.load(answer))

    def _give_all(self, number: int) -> None:
        step, name = self._step, f"task-{number}"
        if step.ahead is not None:
            self._give(f"ahead-{number}", step.ahead)
        if step.keyed:
            self._give(f"{SENDER}.{name}", step.text, **step.spec, idempotencyKey=name)
        else:
            self._give(name, step.text, **step.spec)

    def _give(self, name: str, text: str, **spec: Any) -> None:
        wish = delegation(name, SENDER, self._step.receiver, text, **spec)
        self.given.append(self._lane.delegations.create(wish))

    def _is_over(self) -> bool:
        found = [self._lane.delegations.get(each["metadata"]["name"]) for each in self.given]
        if self._step.wish is not None and not self._wished and found[-1] is not None:
            self._wish(found[-1])
        if self._step.goes:
            return not any(found)
        return all(each is not None and _phase(each) in TERMINAL and not _claimed(each) for each in found)

    def _wish(self, found: Object) -> None:
        if _phase(found) not in ("Working", "InputRequired"):
            return
        self._wished, name = True, found["metadata"]["name"]
        if self._step.wish is Wish.STOP:
            self._lane.delegations.patch(name, {"desiredState": "Stopped"})
        else:
            self._lane.delegations.delete(name)

    # -- what must hold

    def _inspect(self, died: bool) -> None:
        for given in self.given:
            history = self._lane.delegations.history(given)
            check_history(history)
            status = history[-1]["status"]
            finished = next(c for c in status["conditions"] if c["type"] == "Finished")
            if (status["phase"], finished["reason"]) not in self._step.ends:
                raise Wrong(f"it ended as {status['phase']}, {finished['reason']}: {finished['message']}")
            if "task" in status:
                self._check_task(given, status["task"])
            self._check_agent(given, status, died)
            self._check_grant(given)
            if status["phase"] == "Completed":
                self._check_answer(given, status["result"])

    def _check_agent(self, given: Object, status: Object, died: bool) -> None:
        """The agent has nothing in flight, and had each message as often as the status admits."""
        if not wait_for(lambda: self.counts(given)["working"] == 0, SETTLED_WITHIN):
            raise Wrong("it is over, and the agent still works on it")
        counts, resends = self.counts(given), status.get("resends", 0)
        if resends > died * (1 + counts["rejected"]):  # once in doubt, each sending after a rejection counts as well
            raise Wrong(f"resends is {resends}, {int(died)} operators died, and {counts['rejected']} were rejected")
        most = 1 + resends if self._step.receiver is Receiver.MUTE else 1
        if not self._step.always_sent <= counts["effects"] <= most:
            raise Wrong(f"it had {counts['effects']} effects, where at most {most} are admitted")
        if counts["beside"] > 1 + self._left:
            raise Wrong(f"{counts['beside']} tasks were worked on at once by an agent that takes one")
        if self._step.wish is not None and not counts["cancelled"]:
            raise Wrong("the agent was not told to give it up")
        self._note(counts, resends)

    def _check_task(self, given: Object, task: Object) -> None:
        agent = self._lane.workspaces.get(self._step.receiver)
        ids = f"dlg-{given['metadata']['uid']}", agent and agent["metadata"]["uid"]
        if (task["contextId"], task["targetUid"]) != ids:
            raise Wrong(f"context and target should be {ids} in {task}")

    def _check_grant(self, given: Object) -> None:
        """Its sender may read it. That is granted beside the delivery, and not before it."""
        name = given["metadata"]["name"]
        if self._step.keyed and not wait_for(lambda: name in self._lane.granted(SENDER), SETTLED_WITHIN):
            raise Wrong("the sender was not granted to read it")

    def _note(self, counts: dict[str, int], resends: int) -> None:
        found = {"messages": 1, "resends on record": resends, "effects too many": max(0, counts["effects"] - 1)}
        self.notes.update({(f"agent {self._step.receiver}", what): count for what, count in found.items()})

    def _check_answer(self, given: Object, result: Object) -> None:
        wanted = "done".ljust(self._step.answer_bytes, ".") if given is self.given[-1] else "done"
        whole = {"preview": wanted[:PREVIEW_BYTES], "bytes": len(wanted), "complete": True, "mediaType": "text/plain"}
        found = dict(result)
        ref = found.pop("configMapKeyRef", None)
        if found != whole:
            raise Wrong(f"the result is {found}")
        name = answer_name(given["metadata"]["name"])
        if (ref is not None) != (len(wanted) > PREVIEW_BYTES):
            raise Wrong(f"{len(wanted)} bytes, and a reference to {ref}")
        if ref is not None:
            kept: Any = self._lane.core.read_namespaced_config_map(name, NAMESPACE)
            owners = [owner.uid for owner in kept.metadata.owner_references]
            if kept.data[ANSWER_KEY] != wanted or owners != [given["metadata"]["uid"]]:
                raise Wrong(f"ConfigMap {name} of {owners} holds something else")


def check_history(versions: Sequence[Object]) -> None:
    """No version shows a sending without a claim, an end without its result, or anything else after the end."""
    over: Object | None = None
    claimed, resends = False, 0
    for version in versions:
        status: Object = {**(version.get("status") or {})}
        status.pop("observedGeneration", None)  # an edit after the end is seen, and changes nothing
        if over is not None and status != over:
            raise Wrong(f"after its end it changed from {over} to {status}")
        if over is None and _phase(version) in TERMINAL:
            over = status
            if "finishTime" not in status or (_phase(version) == "Completed" and "result" not in status):
                raise Wrong(f"it ended in part: {status}")
        claimed = claimed or _claimed(version)
        if over is None and claimed and not _claimed(version):
            raise Wrong("the claim went before the end")
        if (status.get("attemptCount") or status.get("task")) and not claimed:
            raise Wrong("it was sent without a claim")
        if status.get("resends", 0) < resends:
            raise Wrong(f"resends fell from {resends}")
        resends = status.get("resends", 0)
    if over is None:
        raise Wrong(f"it has no end: {versions[-1]}")


def _phase(found: Object) -> str | None:
    return (found.get("status") or {}).get("phase")


def _claimed(found: Object) -> bool:
    return meta.CLAIM_FINALIZER in found["metadata"].get("finalizers", ())
