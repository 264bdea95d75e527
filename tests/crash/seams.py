"""Where the operator's calls leave it: the HTTP libraries, the AWS SDK, and the system calls of the process backend.

Each is wrapped at one low place of the library, so that a call which somebody adds to the product is found by itself.
Reading files of this machine is no point: dying before or after a look at the disk is the same.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
import botocore.client
import httpx
import requests
from tests.crash.points import Switch

from workspace_operator.api import meta

LEADER_NAMESPACE = "workspace-operator-system"
CLASS_WIDE = "(class)"  # a listing that follows no pass but the clock
EVENTS = "docker events"
PODS = "kube pods"
STREAMS = {f"kube {kind}" for kind in ("workspaces", "workspaceclasses", "delegations", "leases")}
_GROUPED = 3  # /apis/<group>/<version>/…
assert shutil.rmtree.avoids_symlink_attacks  # it decides how to walk before we wrap os

Describe = Callable[..., str | None]


def install(switch: Switch, root: Path) -> None:
    """Wrap everything. Once, before the operator starts."""
    _kube(switch)
    _docker(switch)
    _aws(switch)
    _agents(switch)
    _system(switch, str(root))


# -- the Kubernetes API ------------------------------------------------------------------------------------------------


def _kube(switch: Switch) -> None:
    """Both the operator's client and kopf's go through aiohttp."""
    request = aiohttp.ClientSession._request

    async def wrapped(self: aiohttp.ClientSession, method: str, str_or_url: Any, **options: Any) -> Any:
        url = urlsplit(str(str_or_url))
        query = parse_qs(url.query) | {k: [str(v)] for k, v in dict(options.get("params") or {}).items()}
        selector = query.get("labelSelector", [""])[0]
        call = kube_call(method.upper(), url.path, watch="watch" in query, selector=selector)
        if call is None or call.startswith("WATCH"):
            if call is not None:
                switch.watching(f"kube {call.removeprefix('WATCH ')}")
            return await request(self, method, str_or_url, **options)
        with switch.around(f"kube {call}"):
            return await request(self, method, str_or_url, **options)

    aiohttp.ClientSession._request = wrapped  # type: ignore[method-assign]


def kube_call(method: str, path: str, *, watch: bool, selector: str = "") -> str | None:
    """``PATCH workspaces/status`` and the like; None for the leader's own Lease.

    Pods are listed by class or by workspace; and a class of pods is checked by asking for each right that it needs.
    """
    parts = path.strip("/").split("/")
    rest = parts[_GROUPED:] if parts[0] == "apis" else parts[2:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        if rest[1] == LEADER_NAMESPACE:
            return None
        rest = rest[2:]
    if not rest:
        return f"{method} discovery"
    resource = "/".join([rest[0], *rest[2:]])
    if method == "GET" and len(rest) == 1:
        call = f"{'WATCH' if watch else 'LIST'} {resource}"
        return f"{call} {CLASS_WIDE}" if call == "LIST pods" and meta.LABEL_UID not in selector else call
    if resource == "selfsubjectaccessreviews":
        return f"{method} {resource} {CLASS_WIDE}"
    return f"{method} {resource}"


# -- the Docker engine -------------------------------------------------------------------------------------------------

_ID = re.compile(r"^(containers|volumes|exec|images|networks)/(?!json$|create$)[^/]+")


def _docker(switch: Switch) -> None:
    send = requests.Session.send

    def wrapped(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        call = docker_call(str(request.method), str(request.url))
        if call == EVENTS:
            response = send(self, request, **options)
            switch.watching(EVENTS)
            return response
        with switch.around(call):
            return send(self, request, **options)

    requests.Session.send = wrapped  # type: ignore[method-assign]


def docker_call(method: str, address: str) -> str:
    """``docker POST containers/ID/start`` and the like."""
    url = urlsplit(address)
    query = parse_qs(url.query)
    path = re.sub(r"^/v[\d.]+/", "", url.path).strip("/")
    if path == "events":
        return EVENTS
    call = f"docker {method} {_ID.sub(lambda found: f'{found[1]}/ID', path)}"
    if path == "containers/json":
        return f"{call} {'(workspace)' if meta.LABEL_UID in query.get('filters', [''])[0] else CLASS_WIDE}"
    return " ".join([call, *query.get("signal", ())])


# -- EC2 ---------------------------------------------------------------------------------------------------------------


def _aws(switch: Switch) -> None:
    client: Any = botocore.client.BaseClient
    make = client._make_api_call

    def wrapped(self: Any, operation_name: str, api_params: dict[str, Any]) -> Any:
        with switch.around(aws_call(operation_name, api_params)):
            return make(self, operation_name, api_params)

    client._make_api_call = wrapped


def aws_call(operation: str, parameters: dict[str, Any]) -> str:
    """``ec2 RunInstances``; a look at all instances of the class is told apart from one at a workspace's."""
    narrow = meta.LABEL_UID in json.dumps(parameters, default=str) or any(key.endswith("Ids") for key in parameters)
    listing = operation == "DescribeInstances" and not narrow
    return f"ec2 {operation}{f' {CLASS_WIDE}' if listing else ''}"


# -- agents ------------------------------------------------------------------------------------------------------------


def _agents(switch: Switch) -> None:
    """Nothing but the room a2a uses httpx. Of a stream, the answer is its head: events come later, and are no call."""
    send = httpx.AsyncClient.send

    async def wrapped(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        with switch.around(agent_call(request)):
            return await send(self, request, **options)

    httpx.AsyncClient.send = wrapped  # type: ignore[method-assign]


def agent_call(request: httpx.Request) -> str:
    """``agent SendMessage`` and the like."""
    return f"agent {json.loads(request.content)['method'] if request.content else 'card'}"


# -- processes and files -----------------------------------------------------------------------------------------------

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _system(switch: Switch, root: str) -> None:
    where = Where(root)

    def on(path: Any, dir_fd: int | None = None) -> str | None:
        return where.named(path, dir_fd)

    def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> str | None:
        return _said("create", on(path, dir_fd)) if flags & _WRITING else None

    def io_opened(file: Any, mode: str = "r", *_: Any, **__: Any) -> str | None:
        return _said("create", on(file)) if set(mode) & set("wax+") else None

    def moved(src: Any, dst: Any, **_: Any) -> str | None:
        target = on(dst)
        return None if target is None else f"process rename {on(src)} to {target}"

    def signalled(what: str) -> Describe:
        return lambda _, number: f"process signal {what} {signal.Signals(number).name}" if number else None

    wrap = _wrapper(switch)
    wrap(os, "open", opened)
    wrap(io, "open", io_opened)
    for verb in ("mkdir", "rmdir", "unlink", "remove"):
        wrap(os, verb, lambda path, mode=0, *, dir_fd=None, verb=verb: _said(verb, on(path, dir_fd)))
    wrap(os, "rename", moved)
    wrap(os, "replace", moved)
    wrap(os, "pwrite", lambda fd, *_: _said("write", on(f"/proc/self/fd/{fd}")))
    wrap(os, "kill", signalled("pid"))
    wrap(os, "killpg", signalled("group"))
    wrap(fcntl, "flock", lambda fd, kind: _said("lock", on(f"/proc/self/fd/{fd}")) if kind & fcntl.LOCK_EX else None)
    wrap(subprocess.Popen, "__init__", lambda *_, **__: "process spawn")


def _wrapper(switch: Switch) -> Callable[[Any, str, Describe], None]:
    def wrap(owner: Any, name: str, describe: Describe) -> None:
        function = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            call = describe(*arguments, **options)
            if call is None:
                return function(*arguments, **options)
            with switch.around(call):
                return function(*arguments, **options)

        setattr(owner, name, wrapped)

    return wrap


def _said(verb: str, name: str | None) -> str | None:
    return None if name is None else f"process {verb} {name}"


class Where:
    """Files of the process backend by their place in the workspace's directory, without what differs each time."""

    _UNIQUE = re.compile(r"[0-9a-f]{32}|(?<=\.check-)[\d-]+|(?<=incarnation-)\d+")

    def __init__(self, root: str) -> None:
        self._root = root

    def named(self, path: Any, dir_fd: int | None = None) -> str | None:
        """None for what lies elsewhere."""
        if isinstance(path, int):
            return None
        text = os.fsdecode(path)
        if dir_fd is not None:
            text = f"{Path(f'/proc/self/fd/{dir_fd}').readlink()}/{text}"
        elif text.startswith("/proc/self/fd/"):
            text = str(Path(text).readlink())
        if not text.startswith(f"{self._root}/"):
            return None
        inside = unquote(text.removeprefix(f"{self._root}/")).split("/")
        if inside[0].startswith("."):
            return self._UNIQUE.sub("*", inside[0])
        return self._UNIQUE.sub("*", "/".join(inside[2:])) or "home"
