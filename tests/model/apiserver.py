"""A simulated API server: versions as preconditions, finalizers, a status subresource, watches, garbage collection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import timedelta
from typing import Any

from tests.model.machine import merged
from tests.model.virtual import VirtualLoop

from workspace_operator.api.meta import FINALIZER
from workspace_operator.kube.client import Conflict, KubeError, NotFound, Object, path, workspace_classes, workspaces

CLUSTER = "cluster-of-ours"
NAMESPACE = "n"
GARBAGE_AFTER = 20.0  # seconds until what a deleted workspace owned is collected
_CLASSES = workspace_classes()

Objects = list[Object]
Listener = Callable[[str, Object], None]  # type of the event, object


class Api:
    """The truth. Stored objects are replaced, never changed, so that an old version can be shown again."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.objects: dict[str, Object] = {path("v1/namespaces", None, "kube-system"): {"metadata": {"uid": CLUSTER}}}
        self.versions: defaultdict[str, list[Object]] = defaultdict(list)  # of each workspace ever, by UID
        self.listeners: list[Listener] = []
        self.frozen: tuple[float, Objects] | None = None  # until when lists show what
        self._version = self._uids = 100

    # -- what a client may ask -----------------------------------------------------------------------------------------

    def get(self, url: str) -> Object:
        if url not in self.objects:
            raise NotFound(404, f"{url} does not exist.")
        return deepcopy(self.objects[url])

    def list(self, url: str) -> Objects:
        if url == workspaces():
            return [deepcopy(body) for _, body in self.workspaces()]
        return [deepcopy(body) for there, body in self.objects.items() if there.rpartition("/")[0] == url]

    def create(self, url: str, body: Object) -> Object:
        if url.endswith("/token"):
            return self._token(url, body)
        there = f"{url}/{body['metadata']['name']}"
        if there in self.objects:
            raise Conflict(409, "It exists.")
        self._loop.after(GARBAGE_AFTER, self._collect_garbage)
        return self._store(there, body, uid=True)

    def merge(self, url: str, patch: Object) -> Object:
        there, _, _ = url.partition("/status")
        known = self.get(there)
        wanted = patch.get("metadata", {}).get("resourceVersion")
        if wanted is not None and wanted != known["metadata"]["resourceVersion"]:
            raise Conflict(409, "The object has been modified.")
        if url != there:
            return self._store(there, {**known, "status": merged(known.get("status"), patch["status"])})
        return self._changed(there, merged(known, patch))

    def delete(self, url: str, uid: str | None = None) -> None:
        known = self.get(url)
        if uid is not None and known["metadata"]["uid"] != uid:
            raise Conflict(409, "The UID in the precondition differs.")
        metadata = known["metadata"]
        if not metadata.get("finalizers"):
            self._remove(url)
        elif "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = self._loop.moment().isoformat()
            metadata["generation"] = metadata.get("generation", 1) + 1
            self._store(url, known)

    # -- what only the model knows -------------------------------------------------------------------------------------

    def workspaces(self) -> Iterator[tuple[str, Object]]:
        """Those that exist, by name."""
        for url, body in list(self.objects.items()):
            if "/workspaces/" in url:
                yield body["metadata"]["name"], body

    def workspace(self, name: str) -> Object | None:
        return self.objects.get(workspaces(NAMESPACE, name))

    @property
    def uids(self) -> set[str]:
        """Of the workspaces that exist."""
        return {body["metadata"]["uid"] for _, body in self.workspaces()}

    def by_uid(self, uid: str) -> Object | None:
        return next((body for _, body in self.workspaces() if body["metadata"]["uid"] == uid), None)

    def edit(self, name: str, **spec: Any) -> None:
        """The user's edit."""
        body = self.get(workspaces(NAMESPACE, name))
        if all(body["spec"].get(key) == value for key, value in spec.items()):
            return
        body["spec"] = {**body["spec"], **spec}
        body["metadata"]["generation"] += 1
        self._store(workspaces(NAMESPACE, name), body)

    def annotate(self, url: str, key: str, value: str) -> None:
        """An edit that changes no wish."""
        body = self.get(url)
        body["metadata"]["annotations"] = {**body["metadata"].get("annotations", {}), key: value}
        self._store(url, body)

    def finalize(self, name: str, on: bool) -> None:
        """Put our finalizer on or take it off; an object that is deleted goes with its last one."""
        url = workspaces(NAMESPACE, name)
        body = self.get(url)
        body["metadata"]["finalizers"] = [FINALIZER] if on else []
        self._changed(url, body)

    def freeze(self, seconds: float) -> None:
        """For so long, a sweep's list is answered by a member that lags."""
        self.frozen = self._loop.now + seconds, self.list(workspaces())

    def list_late(self) -> Objects:
        """All workspaces, as that member knows them."""
        if self.frozen is not None and self._loop.now < self.frozen[0]:
            return deepcopy(self.frozen[1])
        return self.list(workspaces())

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _changed(self, url: str, body: Object) -> Object:
        if "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers"):
            self._remove(url)
            return body
        return self._store(url, body)

    def _store(self, url: str, body: Object, *, uid: bool = False) -> Object:
        self._version += 1
        stored = deepcopy(body)
        metadata = stored["metadata"]
        metadata["resourceVersion"] = str(self._version)
        if uid:
            self._uids += 1
            metadata.setdefault("uid", f"{metadata['name']}-{self._uids}")
            metadata.setdefault("generation", 1)
        self.objects[url] = stored
        self._tell("ADDED" if uid else "MODIFIED", url, stored)
        return deepcopy(stored)

    def _remove(self, url: str) -> None:
        self._version += 1
        gone = deepcopy(self.objects.pop(url))
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell("DELETED", url, gone)
        self._loop.after(GARBAGE_AFTER, self._collect_garbage)

    def _tell(self, kind: str, url: str, body: Object) -> None:
        if "/workspaces/" in url and kind != "DELETED":
            self.versions[body["metadata"]["uid"]].append(body)
        elif "/workspaces/" not in url and not url.startswith(_CLASSES):
            return
        for listener in list(self.listeners):
            listener(kind, deepcopy(body))

    def _token(self, url: str, request: Object) -> Object:
        self.get(url.removesuffix("/token"))
        bound = request["spec"]["boundObjectRef"]
        if all(body["metadata"].get("uid") != bound["uid"] for body in self.objects.values()):
            raise KubeError(409, "The object that the token is to be bound to does not exist.")
        end = self._loop.moment() + timedelta(seconds=request["spec"]["expirationSeconds"])
        return {"status": {"token": "secret", "expirationTimestamp": end.isoformat()}}

    def _collect_garbage(self) -> None:
        alive = self.uids
        for url, body in list(self.objects.items()):
            owners = body["metadata"].get("ownerReferences", ())
            if owners and all(owner["uid"] not in alive for owner in owners):
                del self.objects[url]
