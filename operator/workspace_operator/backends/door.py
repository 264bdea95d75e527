"""The one door to the backends: from a WorkspaceClass to the backend that serves it.

This is the only module that may import a backend (I-01, I-02; ``tests/unit/test_architecture.py`` walks the tree). A
backend exists or is absent by name with a reason; there are no optional clients (I-43).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from workspace_operator.api.reasons import Reason
from workspace_operator.api.workspaceclass import WorkspaceClass, WorkspaceClassSpec
from workspace_operator.backends.metered import MeteredBackend
from workspace_operator.backends.protocol import Backend, ResolveSecret
from workspace_operator.errors import BadRequest, Failure, FailureClass, OperatorError
from workspace_operator.kube.client import KubeClient

Create = Callable[[str, WorkspaceClassSpec, str, ResolveSecret], Backend]


def _docker(name: str, spec: WorkspaceClassSpec, cluster: str, resolve_secret: ResolveSecret) -> Backend:
    from workspace_operator.backends import docker

    return docker.create(name, spec, cluster, resolve_secret)


def _ec2(name: str, spec: WorkspaceClassSpec, cluster: str, resolve_secret: ResolveSecret) -> Backend:
    from workspace_operator.backends import ec2

    return ec2.create(name, spec, cluster, resolve_secret)


def _process(name: str, spec: WorkspaceClassSpec, cluster: str, resolve_secret: ResolveSecret) -> Backend:
    from workspace_operator.backends import process

    return process.create(name, spec, cluster, resolve_secret)


def _kubernetes(
    own: KubeClient, name: str, spec: WorkspaceClassSpec, cluster: str, resolve_secret: ResolveSecret
) -> Backend:
    from workspace_operator.backends import kubernetes

    return kubernetes.create(name, spec, cluster, resolve_secret, own)


#: The drivers that need nothing of the operator's own cluster.
DRIVERS: Mapping[str, Create] = {"docker": _docker, "ec2": _ec2, "process": _process}


def drivers(own: KubeClient) -> Mapping[str, Create]:
    """All drivers; ``own`` is the client of the cluster that the operator serves."""
    return {**DRIVERS, "kubernetes": partial(_kubernetes, own)}


@dataclass(frozen=True)
class _Entry:
    spec: WorkspaceClassSpec
    backend: MeteredBackend | None
    problem: Failure | None


class Door:
    """Holds one backend per class; ``may_act`` is asked before every verb that changes something."""

    def __init__(
        self,
        cluster: str,
        resolve_secret: ResolveSecret,
        may_act: Callable[[], bool] = lambda: True,
        drivers: Mapping[str, Create] = DRIVERS,
    ) -> None:
        self.cluster = cluster
        self._resolve_secret, self._may_act, self._drivers = resolve_secret, may_act, drivers
        self._entries: dict[str, _Entry] = {}

    async def open(self, class_: WorkspaceClass) -> bool:
        """Make the backend of a class available, anew when the class changed. True when something changed."""
        name = class_.metadata.name
        known = self._entries.get(name)
        if known is not None and known.spec == class_.spec:
            return False
        self._entries[name] = self._create(name, class_.spec)
        if known is not None and known.backend is not None:
            await known.backend.close()
        return True

    async def close(self, name: str) -> None:
        """Forget a class that is gone."""
        entry = self._entries.pop(name, None)
        if entry is not None and entry.backend is not None:
            await entry.backend.close()

    async def close_all(self) -> None:
        for name in list(self._entries):
            await self.close(name)

    def find(self, name: str) -> MeteredBackend | Failure:
        """The backend of a class, or why there is none."""
        entry = self._entries.get(name)
        if entry is None:
            return Failure(FailureClass.BACKEND, Reason.NOT_OBSERVED, f"The backend of class {name!r} is being opened.")
        if entry.backend is None:
            assert entry.problem is not None
            return entry.problem
        return entry.backend

    def names(self) -> tuple[str, ...]:
        """Classes that have a backend."""
        return tuple(name for name, entry in self._entries.items() if entry.backend is not None)

    def _create(self, name: str, spec: WorkspaceClassSpec) -> _Entry:
        try:
            driver = self._drivers.get(spec.backend)
            if driver is None:
                raise BadRequest(Reason.MISCONFIGURED, f"This operator has no driver for the {spec.backend!r} backend.")
            backend = driver(name, spec, self.cluster, self._resolve_secret)
        except ImportError as error:
            text = f"The driver of the {spec.backend!r} backend is not installed; install the package {error.name!r}."
            return _Entry(spec, None, Failure(FailureClass.BAD_REQUEST, Reason.MISCONFIGURED, text))
        except OperatorError as error:
            return _Entry(spec, None, error.failure)
        return _Entry(spec, MeteredBackend(spec.backend, backend, spec.limits, self._may_act), None)
