"""What passes over delegations work with: one value that holds every collaborator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from workspace_operator.kube.client import KubeClient
from workspace_operator.kube.events import EventPoster
from workspace_operator.reconcile.delegation.book import Book
from workspace_operator.reconcile.delegation.errands import Errands
from workspace_operator.reconcile.store import Store
from workspace_operator.reconcile.world import Clock


@dataclass
class Desk:
    """The collaborators of all passes over delegations."""

    client: KubeClient
    store: Store  # of workspaces
    book: Book
    errands: Errands
    events: EventPoster
    wake: Callable[[str], None]  # a delegation's key
    wake_workspace: Callable[[str], None]
    clock: Clock = field(default_factory=Clock)
