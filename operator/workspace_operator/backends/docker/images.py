"""Image pulls in the background, one per image however many wait. Used inside backends/docker only."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from docker.auth import encode_header
from docker.errors import ImageNotFound
from docker.utils import parse_repository_tag

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import PullPolicy
from workspace_operator.api.workspaceclass import DockerBackend
from workspace_operator.backends.docker import faults, registries
from workspace_operator.backends.docker.engine import Client, Engine
from workspace_operator.backends.protocol import Progress, ProvisionRequest, ResolveSecret, Wake
from workspace_operator.errors import BackendError, BadRequest, OperatorError

log = logging.getLogger(__name__)

PULLS_AT_ONCE: Final = 3  # the engine itself fetches several layers of each at once
SILENCE: Final = 300.0  # seconds without any progress; unpacking a big layer is quiet for long
_MIB: Final = 1024 * 1024


@dataclass
class _Layer:
    current: int = 0
    total: int = 0
    done: bool = False


@dataclass
class _Pull:
    """One pull and who waits for it. Written by its thread, read by the event loop."""

    image: str
    waiting: set[str] = field(default_factory=set)  # workspace UIDs
    granted: set[str] = field(default_factory=set)  # waited for an earlier pull that succeeded
    layers: dict[str, _Layer] = field(default_factory=dict)
    finished: bool = False
    error: OperatorError | None = None

    def progress(self) -> Progress:
        """What a waiting workspace shows."""
        layers = list(self.layers.values())
        total = sum(layer.total for layer in layers)
        if not layers:
            return _waiting(self.image)
        current = sum(min(layer.current, layer.total) for layer in layers)
        percent = f"{100 * current // total} % " if total else ""
        size = f", {current // _MIB} of {-(-total // _MIB)} MiB" if total else ""
        done = sum(layer.done for layer in layers)
        message = f"Pulling {self.image}: {percent}({done} of {len(layers)} layers{size})"
        return Progress(Reason.IMAGE_PULLING, message)


def _waiting(image: str) -> Progress:
    return Progress(Reason.IMAGE_PULLING, f"Pulling {image}: waiting for the registry")


class Images:
    """Sees to it that an image is on the engine, as the class's pull policy says."""

    def __init__(
        self,
        engine: Engine,
        spec: DockerBackend,
        resolve_secret: ResolveSecret,
        wake: Callable[[], Wake | None],
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._resolve_secret = resolve_secret
        self._wake = wake
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(PULLS_AT_ONCE)
        self._pulls: dict[str, _Pull] = {}
        self._closed = threading.Event()

    async def before_create(self, request: ProvisionRequest) -> Progress | None:
        """With policy Always: pull first. None when the create may go ahead."""
        if self._spec.pull_policy is not PullPolicy.ALWAYS:
            return None
        return await self._pulled(request)

    async def missing(self, request: ProvisionRequest) -> Progress:
        """The engine just said that it has no such image: pull it, or say that it must be loaded."""
        image = request.template.image
        if self._spec.pull_policy is PullPolicy.NEVER:
            raise BadRequest(
                Reason.IMAGE_NOT_FOUND,
                f"Image {image} is not on the engine and the class never pulls;"
                " load it into the engine or set pullPolicy.",
            )
        progress = await self._pulled(request)
        if progress is None:  # pulled a moment ago and removed since: once more
            progress = await self._pulled(request)
        return progress or _waiting(image)

    async def check(self) -> None:
        """Raise BadRequest when the class's pull Secret cannot be used."""
        ref = self._spec.image_pull_secret_ref
        if ref is not None:
            registries.check(await self._resolve_secret(ref.namespace, ref.name), f"{ref.namespace}/{ref.name}")

    async def credentials(self, image: str) -> Mapping[str, str]:
        """What the class's pull Secret holds for the registry of this image alone; empty for none."""
        ref = self._spec.image_pull_secret_ref
        if ref is None:
            return {}
        secret = await self._resolve_secret(ref.namespace, ref.name)
        return registries.credentials(secret, image, f"{ref.namespace}/{ref.name}")

    def close(self) -> None:
        """Follow no pull any further; the engine drops those that nobody follows."""
        self._closed.set()

    async def _pulled(self, request: ProvisionRequest) -> Progress | None:
        """None once a pull that this workspace waited for is done; a failure is told once, then tried anew."""
        image, uid = request.template.image, request.ref.uid
        if (settled := self._outcome(image, uid)) is not None:
            return settled if isinstance(settled, Progress) else None
        auth = await self.credentials(image)
        await self._engine.prepare()
        with self._lock:
            last = self._pulls.get(image)
            if last is not None and not last.finished:  # somebody else began it meanwhile
                last.waiting.add(uid)
                return last.progress()
            pull = _Pull(image, waiting={uid})
            if last is not None and last.error is None:
                pull.granted = (last.waiting | last.granted) - {uid}
            self._pulls[image] = pull
        threading.Thread(target=self._run, args=(pull, auth), name="docker-pull", daemon=True).start()
        return pull.progress()

    def _outcome(self, image: str, uid: str) -> Progress | bool | None:
        """Progress of a pull under way, True after this workspace's pull, None when one must begin."""
        with self._lock:
            pull = self._pulls.get(image)
            if pull is None:
                return None
            if uid in pull.granted:
                pull.granted.discard(uid)
                return True
            if not pull.finished:
                pull.waiting.add(uid)
                return pull.progress()
            if uid not in pull.waiting:
                return None
            pull.waiting.discard(uid)
            if not pull.waiting and not pull.granted:
                del self._pulls[image]
            if pull.error is not None:
                raise type(pull.error)(pull.error.failure.reason, pull.error.failure.message) from pull.error
            return True

    def _run(self, pull: _Pull, auth: Mapping[str, str]) -> None:
        error: OperatorError | None = None
        try:
            with self._slots:
                self._engine.call(f"Pulling {pull.image}", lambda client: self._follow(client, pull, auth))
        except OperatorError as exc:
            error = exc
        except Exception as exc:  # the thread must never end without an outcome: workspaces wait for it
            log.exception("pulling an image failed")
            error = BackendError(Reason.IMAGE_PULL_FAILED, f"Image {pull.image} could not be pulled.")
            error.__cause__ = exc
        with self._lock:
            pull.error, pull.finished = error, True
            waiting = set(pull.waiting)
        if (wake := self._wake()) is not None:
            for uid in waiting:
                wake(uid)

    def _follow(self, client: Client, pull: _Pull, auth: Mapping[str, str]) -> None:
        """Run the pull and read its progress. The SDK's own call has no deadline between two lines."""
        repository, tag = parse_repository_tag(pull.image)
        # Always a header, so that credentials of the operator's own home directory are never sent; without a tag
        # the engine would pull all of them.
        response = client.post(
            f"{client.base_url}/v{client.api_version}/images/create",
            params={"fromImage": repository, "tag": tag or "latest"},
            headers={"X-Registry-Auth": encode_header(dict(auth))},
            stream=True,
            timeout=(self._engine.deadline, SILENCE),
        )
        with response:
            if response.status_code != 200:
                raise faults.pull_failed(pull.image, response.text)
            for line in response.iter_lines(chunk_size=None):
                if self._closed.is_set():
                    raise BackendError(Reason.IMAGE_PULL_FAILED, "The operator is shutting down.")
                if line:
                    _note(pull, json.loads(line))
        try:
            client.inspect_image(pull.image)
        except ImageNotFound as exc:  # a stream that was cut off looks like one that ended
            raise faults.pull_failed(pull.image, "") from exc


def _note(pull: _Pull, event: Mapping[str, Any]) -> None:
    if "error" in event:
        raise faults.pull_failed(pull.image, str(event["error"]))
    status, layer_id = str(event.get("status", "")), event.get("id")
    if not layer_id or status.startswith("Pulling from"):
        return
    layer = pull.layers.setdefault(str(layer_id), _Layer())
    detail = event.get("progressDetail") or {}
    if status == "Downloading":
        layer.current, layer.total = int(detail.get("current") or 0), int(detail.get("total") or 0)
    elif status in ("Download complete", "Verifying Checksum"):
        layer.current = layer.total
    elif status in ("Pull complete", "Already exists"):
        layer.current, layer.done = layer.total, True
