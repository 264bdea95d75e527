"""A person with all rights at the real API server, past the proxy and without a kubectl process for each word."""

from __future__ import annotations

from typing import Any

import requests

from controlplane.cluster import LocalCluster
from workspace_operator.kube.client import MERGE_PATCH, Object


class Api:
    """JSON in and out; one per thread."""

    def __init__(self, cluster: LocalCluster) -> None:
        certificates = cluster.ca_file.parent
        self._server = cluster.server
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy named in the environment must not see requests to this machine
        self._session.verify = str(cluster.ca_file)
        self._session.cert = (str(certificates / "admin.crt"), str(certificates / "admin.key"))

    def ask(self, method: str, path: str, body: Any = None, content: str = "application/json") -> tuple[int, Object]:
        """Status and object."""
        headers = {"Content-Type": content}
        answer = self._session.request(method, self._server + path, json=body, headers=headers, timeout=30)
        return answer.status_code, answer.json()

    def get(self, path: str) -> Object | None:
        """The object, or None when there is none."""
        code, body = self.ask("GET", path)
        return None if code == 404 else _good(code, body)

    def list(self, path: str) -> list[Object]:
        return list(_good(*self.ask("GET", path))["items"])

    def create(self, path: str, body: Object) -> Object | None:
        """The object as created, or None when its name is taken."""
        code, answer = self.ask("POST", path, body)
        return None if code == 409 else _good(code, answer)

    def merge(self, path: str, body: Object) -> Object:
        return _good(*self.ask("PATCH", path, body, MERGE_PATCH))

    def delete(self, path: str) -> None:
        code, body = self.ask("DELETE", path)
        if code != 404:
            _good(code, body)

    def close(self) -> None:
        self._session.close()


def _good(code: int, body: Object) -> Object:
    assert code < 400, f"the API server answered {code}: {body.get('message')}"
    return body
