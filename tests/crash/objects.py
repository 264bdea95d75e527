"""Our objects of one kind in a lane's namespace, as a user sees them who is not under test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubernetes.client import ApiException, CustomObjectsApi
from kubernetes.watch import Watch
from tests.support.fleet import Object, until

from workspace_operator.api import meta

WATCHED = 30  # seconds; what has happened already arrives at once


class Objects:
    """Reads and wishes."""

    def __init__(self, api: CustomObjectsApi, namespace: str, plural: str) -> None:
        self._api = api
        self._where = (meta.GROUP, meta.VERSION, namespace, plural)

    def create(self, body: Object) -> Object:
        made: Any = self._api.create_namespaced_custom_object(*self._where, body=body)
        return dict(made)

    def get(self, name: str) -> Object | None:
        try:
            found: Any = self._api.get_namespaced_custom_object(*self._where, name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return dict(found)

    def all(self) -> list[Object]:
        found: Any = self._api.list_namespaced_custom_object(*self._where)
        return list(found["items"])

    def patch(self, name: str, spec: Object) -> None:
        self._api.patch_namespaced_custom_object(*self._where, name, {"spec": spec})

    def patch_status(self, name: str, status: Object) -> None:
        self._api.patch_namespaced_custom_object_status(*self._where, name, {"status": status})

    def delete(self, name: str) -> None:
        """Ask for it; a finalizer decides when it goes."""
        if self.get(name) is not None:
            self._api.delete_namespaced_custom_object(*self._where, name)

    def clear(self, seconds: float) -> None:
        """Ask for the end of all, and wait for it."""
        for each in self.all():
            self.delete(each["metadata"]["name"])
        until(lambda: not self.all(), seconds, lambda: f"still there: {self.all()}")

    def strip(self, name: str) -> None:
        """Have it gone, whoever still waits for something."""
        self.delete(name)
        if self.get(name) is not None:
            self._api.patch_namespaced_custom_object(*self._where, name, {"metadata": {"finalizers": None}})

    def history(self, created: Object) -> list[Object]:
        """Every version of an object that there was, in order, from the one that was ``created``."""
        return [created, *self._later(created["metadata"])]

    def _later(self, created: Object) -> Iterator[Object]:
        now = self.get(created["name"])
        last = now["metadata"]["resourceVersion"] if now is not None else None
        if last == created["resourceVersion"]:
            return
        selected = {"field_selector": f"metadata.name={created['name']}", "timeout_seconds": WATCHED}
        since = {"resource_version": created["resourceVersion"]}
        for event in Watch().stream(self._api.list_namespaced_custom_object, *self._where, **selected, **since):
            yield event["object"]
            if event["type"] == "DELETED" or event["object"]["metadata"]["resourceVersion"] == last:
                return
        raise AssertionError(f"the history of {created['name']} has no end")
