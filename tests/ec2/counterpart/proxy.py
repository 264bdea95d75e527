"""The HTTP front: one request through the faults, to its handler, and back through the faults."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from . import describe, errors, launch, various, verbs, volumes
from .auth import Doorkeeper
from .query import Request, read
from .world import World

Handler = Callable[[World, Request], Awaitable[bytes]]

HANDLERS: Mapping[str, Handler] = {
    "AttachVolume": volumes.attach_volume,
    "CreateTags": various.create_tags,
    "CreateVolume": volumes.create_volume,
    "DeleteTags": various.delete_tags,
    "DeleteVolume": volumes.delete_volume,
    "DescribeInstanceStatus": describe.describe_instance_status,
    "DescribeInstances": describe.describe_instances,
    "DescribeVolumes": describe.describe_volumes,
    "DetachVolume": volumes.detach_volume,
    "ModifyInstanceAttribute": various.modify_instance_attribute,
    "GetConsoleOutput": various.get_console_output,
    "RebootInstances": verbs.reboot_instances,
    "RunInstances": launch.run_instances,
    "StartInstances": verbs.start_instances,
    "StopInstances": verbs.stop_instances,
    "TerminateInstances": verbs.terminate_instances,
}


@dataclass
class Call:
    """One request as it is remembered. ``outcome``: ``ok`` or the error code, then what became of the answer."""

    action: str
    service: str
    region: str
    params: dict[str, str]
    at: float = field(default_factory=time.time)
    outcome: str = ""
    seconds: float = 0.0

    @property
    def permission(self) -> str:
        return f"{self.service}:{self.action}"


@dataclass
class Answer:
    status: int
    body: bytes
    content_type: str = "text/xml"


class Reset(Exception):
    """The connection ends here."""


class Proxy:
    """Serves the world."""

    def __init__(self, world: World, region: str) -> None:
        self.world, self.region = world, region
        self.calls: list[Call] = []
        self.door = Doorkeeper(world.faults, "")
        self._serving: set[asyncio.Task[web.StreamResponse]] = set()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> str:
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.door.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self.door.endpoint

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def drop_all(self) -> None:
        """No request under way may act on the next world."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        """In a task of its own: a client that hangs up does not undo what it asked for."""
        task = asyncio.create_task(self._answer(http))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            return _reset(http)

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        request = read(http.headers, http.path_qs, await http.read(), self.region)
        call = Call(request.action, request.service, request.region, request.summary())
        self.calls.append(call)
        started = time.monotonic()
        try:
            answer = await self._effect(request, call)
            return await self._reply(http, request, call, answer)
        except Reset:
            return _reset(http)
        finally:
            call.seconds = time.monotonic() - started

    async def _effect(self, request: Request, call: Call) -> Answer:
        """Everything up to and including what the request does."""
        faults = self.world.faults
        if rule := faults.hits("slow", request.action):
            await asyncio.sleep(rule.seconds)
        if faults.hits("reset", request.action):
            call.outcome = "reset"
            raise Reset
        try:
            answer = await self._handle(request)
        except errors.AwsError as error:
            call.outcome = error.code
            kind = "application/x-amz-json-1.1" if request.service == "ssm" else "text/xml"
            return Answer(error.status, error.body(request.service), kind)
        call.outcome = "ok" if answer.status == 200 else _code(answer.body)
        return answer

    async def _handle(self, request: Request) -> Answer:
        faults = self.world.faults
        rule = faults.hits("throttled", request.action)
        if rule or faults.bucket_refuses(request.action):
            raise errors.throttled(request.service, rule.code if rule else "")
        self.door.check(request)
        if request.flag("DryRun") and request.service == "ec2":
            raise errors.AwsError(
                "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412
            )
        handler = HANDLERS.get(request.action) if request.service == "ec2" else None
        if handler is not None:
            return Answer(200, await handler(self.world, request))
        status, kind, body = await self.world.moto.send(request.headers, request.body, request.path)
        if status == 200 and request.service == "ec2":
            await various.refresh(self.world, request)
        if status == 200 and request.action == "AssumeRole":
            self._learn_key(body)
        return Answer(status, body, kind)

    def _learn_key(self, body: bytes) -> None:
        """Credentials that STS gave out are good ones."""
        found = {
            name: re.search(f"<{name}>(.*?)</{name}>".encode(), body) for name in ("AccessKeyId", "SecretAccessKey")
        }
        key, secret = (match[1].decode() if match else "" for match in found.values())
        self.door.credentials[key] = secret

    async def _reply(self, http: web.Request, request: Request, call: Call, answer: Answer) -> web.StreamResponse:
        """What the caller learns of it."""
        faults, happened = self.world.faults, call.outcome == "ok"
        if rule := faults.hits("slow_answer", request.action):
            await asyncio.sleep(rule.seconds)
        if happened and faults.hits("lost", request.action):
            call.outcome += ", lost"
            raise Reset
        if happened and (rule := faults.hits("error_after", request.action)):
            call.outcome += ", error after"
            code = rule.code or "InternalError"
            error = errors.AwsError(code, "An internal error has occurred", 500)
            answer = Answer(500, error.body(request.service), answer.content_type)
        if happened and faults.hits("truncated", request.action):
            call.outcome += ", truncated"
            return await _half(http, answer)
        return web.Response(status=answer.status, body=answer.body, content_type=answer.content_type)


def _code(body: bytes) -> str:
    found = re.search(rb'<Code>(.*?)</Code>|"__type": *"(.*?)"', body)
    return (found[1] or found[2]).decode() if found else "error"


async def _half(http: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    response.content_type, response.content_length = answer.content_type, len(answer.body)
    await response.prepare(http)
    await response.write(answer.body[: len(answer.body) // 2])
    if http.transport is not None:
        http.transport.close()
    return response


def _reset(http: web.Request) -> web.Response:
    """A response that nobody gets: the connection is gone."""
    if http.transport is not None:
        http.transport.abort()
    return web.Response()
