"""What the operator adds to the time that EC2 takes: to each verb, and to a wish from the API server to its effect.

*The operator's own time in a verb* is the time from the call of the backend's verb to its answer, less the time in
which at least one call of the AWS SDK that names the workspace (or its instance) was under way in it. So it is all that
a bare boto3 program would not have: collecting questions into one call, threads, turns, user data, the ledger. The
calls' own time, moto's, is shown beside it, and what the same calls take in a bare program against the same moto.

*The operator's own time on a wish* has two parts. ``to the call``: from the API server's answer to the change of the
wish until the call that changes something arrives at EC2 (the look before that call included). ``to be noticed``: from
EC2 having reached the state until the status says Ready in it; EC2 has no events, so this is polling, mostly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench.api import MERGE, WORKSPACES, each, workspace
from tests.bench.ec2.site import CHANGES, Site, bare, site, tally
from tests.bench.ec2.stopwatch import named
from tests.bench.lab import Lab, spread
from tests.ec2.counterpart import Counterpart, Faults

from workspace_operator.api import meta

_IN_FLIGHT = 8
#: The call that makes a verb what it is.
_VERBS = {"RunInstances": "create", "StopInstances": "pause", "StartInstances": "resume", "TerminateInstances": "stop"}
_STATES = {"create": "Running", "pause": "Paused", "resume": "Running", "stop": "Stopped"}
_FIRST_CALL = {"create": "RunInstances", "pause": "StopInstances", "resume": "ModifyInstanceAttribute"} | {
    "stop": "TerminateInstances"
}
_ARRIVED = {"create": "running", "pause": "stopped", "resume": "running", "stop": "terminated"}


@dataclass(frozen=True)
class _Wish:
    """One change of the wish; times are of the wall clock, in seconds."""

    uid: str
    step: str
    sent: float
    accepted: float
    done: float


async def run(lab: Lab) -> dict[str, Any]:
    number = 16 if lab.quick else 120
    wishes: list[_Wish] = []
    async with site(lab, "ec2-verbs", Faults(seed=7)) as here:
        await each([f"wsp-{i:04}" for i in range(number)], partial(_live, here, wishes), _IN_FLIGHT)
        result: dict[str, Any] = {
            "lives": number,
            "in_flight": _IN_FLIGHT,
            "state_changes_take_seconds": here.ec2.faults.pending,
            "verbs": _verbs(here.operator.stamps(), here.ec2),
            "wishes": _wishes(wishes, here.ec2),
        }
    with Counterpart(Faults(seed=7)) as ec2:
        async with bare(lab, ec2, "life", number, _IN_FLIGHT) as program:
            result["bare boto3"] = _verbs(program.subject.stamps(), ec2)
            changes = sum(count for action, count in tally(ec2.calls).items() if action in CHANGES)
            result["bare boto3 changes per life"] = changes / number
    for name in _STATES:
        lab.say(f"{name}: {result['verbs'][name]}, {result['wishes'][name]}; bare: {result['bare boto3'][name]}")
    return result


async def _live(here: Site, wishes: list[_Wish], name: str) -> None:
    """Create, pause, resume, stop, delete."""
    for step, state in _STATES.items():
        sent = time.time()
        if step == "create":
            body = await here.lab.api.call("POST", WORKSPACES, workspace(name, here.class_))
        else:
            change = {"spec": {"desiredState": state}}
            body = await here.lab.api.call("PATCH", f"{WORKSPACES}/{name}", change, MERGE)
        accepted = time.time()
        await here.reach([name], state)
        wishes.append(_Wish(body["metadata"]["uid"], step, sent, accepted, time.time()))
        if step == "create":
            here.foresee_end([name])
    await here.delete([name])


def _verbs(stamps: Sequence[Mapping[str, Any]], ec2: Counterpart) -> dict[str, Any]:
    """Milliseconds by verb: its own, inside calls, and in all."""
    owner = _owners(ec2)
    calls: dict[str, list[Mapping[str, Any]]] = {}
    for stamp in stamps:
        if stamp["what"] == "call":
            for uid in {owner.get(name, name) for name in stamp["about"]}:
                calls.setdefault(uid, []).append(stamp)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in _VERBS.values()}
    for stamp in stamps:
        if stamp["what"] == "verb":
            began, ended = stamp["began"], stamp["ended"]
            own = [call for call in calls.get(stamp["about"][0], ()) if call["ended"] > began and call["began"] < ended]
            kind = next((_VERBS[call["name"]] for call in own if call["name"] in _VERBS), None)
            if kind is not None:  # else a look at what another verb has begun
                inside = _union((max(began, call["began"]), min(ended, call["ended"])) for call in own)
                taken[kind].append((ended - began, inside))
    return {
        name: {
            "own_ms": _ms(whole - inside for whole, inside in times),
            "calls_ms": _ms(inside for _, inside in times),
            "whole_ms": _ms(whole for whole, _ in times),
        }
        for name, times in taken.items()
    }


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds covered by at least one span."""
    covered, reach = 0.0, 0.0
    for began, ended in sorted(spans):
        covered += max(0.0, ended - max(began, reach))
        reach = max(reach, ended)
    return covered


def _wishes(wishes: Sequence[_Wish], ec2: Counterpart) -> dict[str, Any]:
    owner = _owners(ec2)
    calls: dict[tuple[str, str], list[float]] = {}  # uid and action → when it came
    for call in ec2.calls:
        for uid in {owner.get(name, name) for name in named(call.params)}:
            calls.setdefault((uid, call.action), []).append(call.at)
    machines = {machine.tags.get(meta.LABEL_UID): machine for machine in ec2.instances()}
    result = {}
    for step, state in _ARRIVED.items():
        mine = [wish for wish in wishes if wish.step == step]
        arrivals = {
            wish: min(c.at for c in machines[wish.uid].history if c.state == state and c.at > wish.sent)
            for wish in mine
        }
        sent = {wish: min(at for at in calls[wish.uid, _FIRST_CALL[step]] if at > wish.sent) for wish in mine}
        result[step] = {
            "to_the_call_ms": _ms(at - wish.accepted for wish, at in sent.items()),
            "to_be_noticed_ms": _ms(wish.done - at for wish, at in arrivals.items()),
        }
    return result


def _owners(ec2: Counterpart) -> dict[str, str]:
    return {machine.id: machine.tags.get(meta.LABEL_UID, "") for machine in ec2.instances()}


def _ms(seconds: Iterable[float]) -> dict[str, float]:
    return spread([value * 1000 for value in seconds])
