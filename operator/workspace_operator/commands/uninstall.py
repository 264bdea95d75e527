"""``workspace-operator uninstall``: takes the finalizers off in order, so that namespaces and CRDs can be deleted.

Released, the compute goes first, by the running operator and as any deletion; retained, it stays as it is, and the
finalizers are taken off by hand while no operator runs that would act on it (I-87).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workspace_operator.api.meta import CLAIM_FINALIZER, FINALIZER
from workspace_operator.commands.session import CommandError
from workspace_operator.kube.client import (
    Conflict,
    KubeClient,
    NotFound,
    Object,
    delegations,
    path,
    workspace_classes,
    workspaces,
)
from workspace_operator.kube.leader import LEASE_DURATION, RETRY_PERIOD

Say = Callable[[str], None]

_TOLD_EVERY = 5.0  # seconds
_SHOWN = 5  # of what is left, in one line


@dataclass(frozen=True)
class Fleet:
    """What there is to take care of."""

    delegations: tuple[Object, ...]
    workspaces: tuple[Object, ...]
    classes: tuple[Object, ...]

    @property
    def empty(self) -> bool:
        return not self.delegations and not self.workspaces and not self.classes

    def __str__(self) -> str:
        return f"{len(self.delegations)} delegations, {len(self.workspaces)} workspaces and {len(self.classes)} classes"


async def ask_and_do(client: KubeClient, arguments: argparse.Namespace) -> None:
    """The command: say what is there, ask unless told not to, and do it."""
    fleet = await survey(client)
    if fleet.empty:
        print("There is no Delegation, no Workspace and no WorkspaceClass; nothing holds anything back.")
        return
    does = "Delete" if arguments.compute == "release" else "Take the finalizers off of"
    question = f"{does} {fleet} ({client.server})?"
    if not arguments.yes and not _agreed(question):
        raise CommandError("Nothing was changed; answer yes, or say --yes.")
    lease = arguments.namespace, arguments.lease
    if arguments.compute == "release":
        await release(client, lease, arguments.timeout, print)
    else:
        await retain(client, lease, print)


def _agreed(question: str) -> bool:
    return sys.stdin.isatty() and input(f"{question} [yes/no] ").strip().lower() == "yes"


async def survey(client: KubeClient) -> Fleet:
    """Everything of ours that may carry a finalizer; nothing where the CRDs are gone already."""

    async def all_of(url: str) -> tuple[Object, ...]:
        try:
            return tuple([body async for body in client.list(url)])
        except NotFound:
            return ()

    return Fleet(*[await all_of(url) for url in (delegations(), workspaces(), workspace_classes())])


async def release(client: KubeClient, lease: tuple[str, str], timeout: float, say: Say) -> None:
    """Delete all delegations (their tasks are cancelled), all workspaces, all classes, in this order, and wait.

    Raises CommandError with what is left.
    """
    if not await operator_leads(client, *lease):
        raise CommandError(
            f"No operator leads (Lease {lease[0]}/{lease[1]}), and only an operator can release the compute. Start it "
            "and repeat this, or choose --compute retain."
        )
    deadline = time.monotonic() + timeout
    for kind in ("delegations", "workspaces", "classes"):
        await _delete_all(client, kind, deadline, say)
    say("All compute is released and all finalizers are gone; the CRDs, namespaces and the operator can be deleted.")


async def retain(client: KubeClient, lease: tuple[str, str], say: Say) -> None:
    """Take our finalizer off everything and leave the compute alone. Raises CommandError while an operator leads."""
    if await operator_leads(client, *lease):
        raise CommandError(
            f"An operator leads (Lease {lease[0]}/{lease[1]}) and would put the finalizers back. Scale it to zero and "
            "repeat this."
        )
    fleet = await survey(client)
    for body in (*fleet.delegations, *fleet.workspaces, *fleet.classes):
        await _take_off(client, body)
    for body in fleet.delegations:
        if CLAIM_FINALIZER in body["metadata"].get("finalizers", ()):
            say(f"{_name(body)}: its task goes on at the agent")
    for body in fleet.workspaces:
        say(_left_running(body))
    say("No finalizer holds anything back now; nobody looks after what is listed above any more.")


async def operator_leads(client: KubeClient, namespace: str, name: str) -> bool:
    """Whether the leader Lease is being renewed, watched for as long as a live leader could leave it alone."""
    url = path("coordination.k8s.io/v1/leases", namespace, name)
    first: str | None = None
    deadline = time.monotonic() + LEASE_DURATION
    while True:
        try:
            found = await client.get(url)
        except NotFound:
            return False
        if not found["spec"].get("holderIdentity"):
            return False
        version = str(found["metadata"]["resourceVersion"])
        if first is not None and version != first:
            return True
        if time.monotonic() > deadline:
            return False
        first = version
        await asyncio.sleep(RETRY_PERIOD / 2)


async def _delete_all(client: KubeClient, kind: str, deadline: float, say: Say) -> None:
    told = time.monotonic()
    while left := getattr(await survey(client), kind):
        for body in left:
            if not body["metadata"].get("deletionTimestamp"):
                await client.delete(_url(body), uid=body["metadata"]["uid"])
        if time.monotonic() > deadline:
            raise CommandError(f"Not all {kind} went in time; nothing was forced. Left: {_named(left)}")
        if time.monotonic() > told + _TOLD_EVERY:
            told = time.monotonic()
            say(f"{len(left)} {kind} left: {_named(left)}")
        await asyncio.sleep(0.5)
    say(f"All {kind} are gone.")


async def _take_off(client: KubeClient, body: Object) -> None:
    url = _url(body)
    while True:
        metadata = body["metadata"]
        others = [name for name in metadata.get("finalizers", ()) if name not in (FINALIZER, CLAIM_FINALIZER)]
        if len(others) == len(metadata.get("finalizers", ())):
            return
        patch = {"metadata": {"finalizers": others, "resourceVersion": metadata["resourceVersion"]}}
        try:
            await client.merge(url, patch)
        except NotFound:
            return
        except Conflict:
            body = await client.get(url)
        else:
            return


def _url(body: Object) -> str:
    metadata = body["metadata"]
    if "namespace" not in metadata:
        return workspace_classes(metadata["name"])
    of_kind = delegations if body["kind"] == "Delegation" else workspaces
    return of_kind(metadata["namespace"], metadata["name"])


def _named(left: tuple[Object, ...]) -> str:
    """A few of them, with what they wait for."""
    words = [f"{_name(body)} ({_ready(body)})" for body in left[:_SHOWN]]
    return "; ".join(words) + (f"; and {len(left) - _SHOWN} more" if len(left) > _SHOWN else "")


def _name(body: Object) -> str:
    metadata = body["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else str(metadata["name"])


def _ready(body: Object) -> str:
    conditions: list[dict[str, Any]] = (body.get("status") or {}).get("conditions", [])
    ready = next((c for c in conditions if c["type"] in ("Ready", "Finished")), None)
    return str(ready["message"]).rstrip(".") if ready else "not yet looked at"


def _left_running(body: Object) -> str:
    status = body.get("status") or {}
    instance = status.get("instance")
    if not instance:
        return f"{_name(body)}: has no instance"
    where = f" on {instance['node']}" if instance.get("node") else ""
    return f"{_name(body)}: {instance['backend']} instance {instance.get('id', 'unknown')}{where} stays as it is"
