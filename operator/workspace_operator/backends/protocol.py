"""The contract that every backend keeps. The conformance suite (tests/conformance) is its executable form.

Rules for all verbs:

* **Idempotent by name.** The name of an instance is a function of (cluster, workspace UID, incarnation). Asking again
  for what exists adopts it; asking to stop what is absent succeeds.
* **They do not wait.** A verb starts the change and returns what is seen right after; the graceful end of a stop, an
  image pull or a boot is followed by observing. A repeated ``stop`` kills once the grace period is over.
* **They never guess.** An ambiguous answer (time-out, lost connection) raises BackendUnreachable; a refusal raises
  BadRequest, QuotaExceeded or BackendError with a sentence. Success means the backend said so.
* **Every external call has a deadline** of the backend's own; callers add one more around the verb.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import LIVE, Capability, Reading
from workspace_operator.errors import Failure


@dataclass(frozen=True)
class WorkspaceRef:
    """Identity of a workspace towards a backend; all of it goes into labels of the create call."""

    cluster: str
    uid: str
    namespace: str
    name: str
    class_name: str


@dataclass(frozen=True)
class Instance:
    """One instance as a backend shows it."""

    ref: WorkspaceRef
    incarnation: int
    reading: Reading
    id: str
    parameters: str = ""
    address: str | None = None  # "host:port" of the published agent port, or None
    node: str | None = None
    image_digest: str | None = None
    exit_code: int | None = None
    message: str = ""  # of the backend, already free of secrets
    reason: Reason | None = None  # of the reading, where the backend tells more than the plan does
    problem: Failure | None = None  # why nobody knows what it does now, e.g. its node is lost: no reading counts then
    halting_since: datetime | None = None


@dataclass(frozen=True)
class Template:
    """The frozen parameters of an instance; changing any of them takes a new incarnation."""

    image: str
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    cpu: float | None = None  # cores
    memory: int | None = None  # bytes
    port: int | None = None  # agent port inside the workspace
    mount_path: str | None = None  # of the data volume
    storage: int | None = None  # bytes of the data volume, should it have to be made; None: as the class has it


@dataclass(frozen=True)
class ProvisionRequest:
    """Everything a backend needs to create or start one incarnation.

    ``environment`` and ``files`` may hold secrets: they are handed over in memory and never logged; repr hides them.
    """

    ref: WorkspaceRef
    incarnation: int
    parameters: str  # hash of the template, stored as a label
    template: Template
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # name → content, in the identity directory


@dataclass(frozen=True)
class Progress:
    """A verb's answer when the effect needs more time before the instance exists, e.g. an image pull."""

    reason: str
    message: str
    retry_in: timedelta = timedelta(seconds=2)


@dataclass(frozen=True)
class StopRequest:
    """``release`` removes the instance; otherwise it is halted in place, or frozen when ``freeze``."""

    ref: WorkspaceRef
    grace: timedelta
    release: bool = False
    freeze: bool = False
    only_before: int | None = None  # release only incarnations below this one (a restart)


Wake = Callable[[str], None]  # called with a workspace UID, from any thread


class Backend(Protocol):
    """One configured place where workspaces run. Instances are made by the door, one per WorkspaceClass."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this backend can do beyond the verbs."""

    async def check(self) -> str:
        """Prove that the backend answers and the class's configuration works; returns a short description.

        Raises BackendUnreachable, or BadRequest naming the field of the class to fix.
        """

    async def list_owned(self) -> tuple[Instance, ...]:
        """Every instance of this cluster and class, all pages. Raises rather than return a partial listing."""

    async def observe(self, ref: WorkspaceRef) -> tuple[Instance, ...]:
        """A fresh look at the instances of one workspace (any incarnation); empty when absent."""

    async def provision(self, request: ProvisionRequest) -> Instance | Progress:
        """Make the incarnation of the request run: create it, start it, unfreeze it, or find it running.

        Files are (re)written before each start. Never touches other incarnations. Raises the four error classes.
        """

    async def stop(self, request: StopRequest) -> tuple[Instance, ...]:
        """Stop all instances of the workspace as asked; returns what is left of them right afterwards.

        A halted instance keeps its data; the data volume is never removed here.
        """

    async def restart(self, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
        """Replace older incarnations by the requested one, never two alive: release first, then provision.

        None while an older incarnation is still ending.
        """

    async def deliver(self, ref: WorkspaceRef, incarnation: int, files: Mapping[str, bytes]) -> None:
        """Replace the identity files of a running instance, atomically per file (token renewal)."""

    async def delete_data(self, ref: WorkspaceRef) -> bool:
        """Remove the data volume; True once it is seen gone (or never existed)."""

    async def logs(self, ref: WorkspaceRef, tail: int) -> str:
        """The last ``tail`` lines of the newest instance's output; empty when there is none."""

    async def watch(self, wake: Wake) -> None:
        """Call ``wake`` with a workspace's UID whenever the backend reports a change of it; runs until cancelled.

        Raises BackendUnreachable when the stream breaks: the caller lists anew and calls again. A backend without
        events sleeps for ever; observing does not depend on this.
        """

    async def close(self) -> None:
        """Release connections and threads; instances stay as they are."""


async def replace(backend: Backend, request: ProvisionRequest, grace: timedelta) -> Instance | Progress | None:
    """The common way to restart: release older incarnations; provision once none of them is left."""
    left = await backend.stop(StopRequest(ref=request.ref, grace=grace, release=True, only_before=request.incarnation))
    if any(instance.incarnation < request.incarnation for instance in left):
        return None
    return await backend.provision(request)


ResolveSecret = Callable[[str, str], Awaitable[Mapping[str, bytes]]]
"""Reads a Secret by namespace and name; raises BadRequest when it does not exist. Given to backends by the door."""

__all__ = [
    "LIVE",
    "Backend",
    "Capability",
    "Instance",
    "Progress",
    "ProvisionRequest",
    "Reading",
    "ResolveSecret",
    "StopRequest",
    "Template",
    "Wake",
    "WorkspaceRef",
    "replace",
]
