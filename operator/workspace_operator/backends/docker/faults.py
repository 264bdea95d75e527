"""What the engine or the network says, turned into our errors. Used inside backends/docker only.

Messages are sentences of ours (I-53): the engine's own text is only matched against, never quoted, and stays
in ``__cause__``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import requests
import urllib3
from docker.errors import APIError, DockerException

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import (
    BackendError,
    BackendUnreachable,
    BadRequest,
    OperatorError,
    QuotaExceeded,
)

#: No answer, half an answer, or one that is not Docker's: nothing may be concluded from any of them.
_NO_ANSWER = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, json.JSONDecodeError)


@dataclass(frozen=True)
class _Rule:
    """The first rule whose pattern is found in the engine's words decides."""

    pattern: str
    error: type[OperatorError]
    reason: Reason
    message: str


_REFUSALS = (
    _Rule(
        "no such image",
        BadRequest,
        Reason.IMAGE_NOT_FOUND,
        "the image is not on the engine; load it into the engine or set pullPolicy to IfNotPresent",
    ),
    _Rule(
        "invalid reference format|could not parse.*image|invalid tag",
        BadRequest,
        Reason.IMAGE_NOT_FOUND,
        "the image is not a valid reference; write it as registry/name:tag",
    ),
    _Rule(
        r"network \S+ not found|could not find.*network",
        BadRequest,
        Reason.MISCONFIGURED,
        "docker.network names a network that the engine does not have; create it or correct the class",
    ),
    _Rule(
        "unknown runtime|unknown or invalid runtime|invalid runtime name|runtime name.*not",
        BadRequest,
        Reason.MISCONFIGURED,
        "docker.runtime names a runtime that the engine does not have; install it or correct the class",
    ),
    _Rule(
        "minimum memory limit|memory limit too low|minimum memory",
        BadRequest,
        Reason.PROVISION_FAILED,
        "the memory limit is below the engine's minimum of 6 MiB; raise it",
    ),
    _Rule(
        "range of cpus is from",
        BadRequest,
        Reason.PROVISION_FAILED,
        "the cpu limit is outside what the engine's machine has; lower it",
    ),
    _Rule(
        "kernel does not support|cgroup is not mounted|controller.*(not|un)available",
        BackendError,
        Reason.PROVISION_FAILED,
        "the engine's kernel cannot apply the cpu, memory or pids limit; enable that cgroup controller",
    ),
    _Rule(
        r"executable file not found|no such file or directory.*exec|exec.*no such file|no command specified",
        BadRequest,
        Reason.PROVISION_FAILED,
        "the command does not exist in the image; correct spec.command or the image's entry point",
    ),
    _Rule(
        "exec.*permission denied",
        BadRequest,
        Reason.PROVISION_FAILED,
        "the command is not executable in the image; correct spec.command or the image",
    ),
    _Rule(
        "unable to find user|no matching entries in passwd|unable to find group",
        BadRequest,
        Reason.PROVISION_FAILED,
        "docker.user of the class does not exist in the image; use a numeric uid:gid or another image",
    ),
    _Rule(
        "invalid mount|mount path must be absolute|duplicate mount point|invalid volume specification",
        BadRequest,
        Reason.PROVISION_FAILED,
        "the engine refuses storage.mountPath; choose an absolute path that nothing else is mounted on",
    ),
    _Rule(
        "docker-init|init binary",
        BackendError,
        Reason.PROVISION_FAILED,
        "the engine has no docker-init program; install it on the engine's machine (Debian: package tini)",
    ),
    _Rule(
        "no space left",
        QuotaExceeded,
        Reason.PROVISION_FAILED,
        "the disk of the engine's machine is full; free some space there",
    ),
    _Rule(
        "port is already allocated|address already in use",
        BackendError,
        Reason.PROVISION_FAILED,
        "a port on the engine's machine was taken by another program meanwhile; it is tried again",
    ),
    _Rule(
        "cannot assign requested address|invalid ip address|invalid hostip|invalid port specification",
        BadRequest,
        Reason.MISCONFIGURED,
        "docker.publishAddress is not an address of the engine's machine; correct the class",
    ),
    _Rule(
        "extra host|add-host|invalid ip address in add-host",
        BadRequest,
        Reason.MISCONFIGURED,
        "docker.extraHosts holds an entry that is not name:address; correct the class",
    ),
    _Rule(
        "no available ipv4 addresses|could not find an available|exhausted",
        QuotaExceeded,
        Reason.PROVISION_FAILED,
        "the engine's network has no free address left; enlarge docker.network or release workspaces",
    ),
    _Rule(
        "cannot allocate memory|resource temporarily unavailable|too many open files",
        QuotaExceeded,
        Reason.PROVISION_FAILED,
        "the engine's machine is out of memory, processes or files; release workspaces or enlarge it",
    ),
)

_PULL_REFUSALS = (
    _Rule(
        "no matching manifest|does not match the specified platform",
        BadRequest,
        Reason.IMAGE_NOT_FOUND,
        "the image exists, but not for the platform of the engine's machine",
    ),
    _Rule(
        "pull access denied|may require",
        BadRequest,
        Reason.IMAGE_NOT_FOUND,
        "it does not exist, or the registry shows it only with the right docker.imagePullSecretRef",
    ),
    _Rule(
        "unauthorized|authentication required|basic auth|denied|forbidden|incorrect username",
        BackendError,
        Reason.IMAGE_PULL_FAILED,
        "the registry refused the credentials; check docker.imagePullSecretRef of the class",
    ),
    _Rule(
        "manifest unknown|not found|does not exist|name unknown",
        BadRequest,
        Reason.IMAGE_NOT_FOUND,
        "the registry does not have it; check name and tag",
    ),
    _Rule(
        "invalid reference format|invalid tag|invalid repository",
        BadRequest,
        Reason.IMAGE_NOT_FOUND,
        "it is not a valid reference; write it as registry/name:tag",
    ),
    _Rule(
        "no space left",
        QuotaExceeded,
        Reason.IMAGE_PULL_FAILED,
        "the disk of the engine's machine is full; free some space there",
    ),
    _Rule(
        "toomanyrequests|rate limit|429",
        QuotaExceeded,
        Reason.IMAGE_PULL_FAILED,
        "the registry's rate limit is reached; it is tried again later",
    ),
    _Rule(
        "x509|certificate|server gave http response to https",
        BackendError,
        Reason.IMAGE_PULL_FAILED,
        "the engine does not trust the registry's certificate; configure the engine for that registry",
    ),
    _Rule(
        "dial tcp|no such host|connection refused|timeout|i/o|eof|deadline|connection reset",
        BackendError,
        Reason.IMAGE_PULL_FAILED,
        "the engine cannot reach the registry; it is tried again",
    ),
)


def explanation(exc: BaseException) -> str:
    """The engine's own words in lower case, for matching only."""
    return str(getattr(exc, "explanation", None) or "").lower()


def has_status(exc: BaseException, *codes: int) -> bool:
    """Whether the engine answered with one of these HTTP statuses."""
    return isinstance(exc, APIError) and exc.response is not None and exc.response.status_code in codes


def is_forgotten_start(exc: APIError) -> bool:
    """Whether an engine that was killed within a start has forgotten the task that containerd keeps for the container.

    The task waits before its program's first instruction, or is dead, and this container can never be started again.
    """
    return has_status(exc, 500) and re.search(r"\btask \w+: already exists", explanation(exc)) is not None


def translate(exc: Exception, doing: str, failed: Reason | None, host: str, deadline: float) -> OperatorError:
    """Our error for what the SDK raised while ``doing`` something; ``failed`` is None for a look."""
    if isinstance(exc, OperatorError):
        return exc
    if isinstance(exc, APIError):
        if failed is not None:
            return _refused(exc, doing, failed)
        # A look that was refused is no reading, so it is told apart from a refused change (I-40).
        return BackendUnreachable(
            Reason.BACKEND_UNREACHABLE,
            f"{doing} failed: the Docker engine at {host} answered with an error; its log has the details.",
        )
    if isinstance(exc, _NO_ANSWER):
        return unreachable(exc, host, deadline)
    if isinstance(exc, DockerException):
        return BadRequest(
            Reason.MISCONFIGURED,
            f"The Docker client cannot be set up for {host}: check docker.host and docker.tlsSecretRef.",
        )
    raise exc  # a bug of ours keeps its trace


def unreachable(exc: BaseException, host: str, deadline: float) -> BackendUnreachable:
    """No answer: says what to check, by what is found in the chain of causes."""
    hint = "check docker.host of the class and the network between the operator and the engine"
    for cause in _chain(exc):
        if isinstance(cause, PermissionError):
            hint = "the operator's user may not open the socket; add it to the group that owns it (docker)"
        elif isinstance(cause, FileNotFoundError):
            hint = "the socket does not exist; start the engine, or correct docker.host of the class"
        elif isinstance(cause, ConnectionRefusedError):
            hint = "nobody listens there; start the engine, or correct docker.host of the class"
        elif isinstance(cause, requests.exceptions.SSLError):
            hint = "the TLS handshake failed; check docker.tlsSecretRef and the engine's certificate"
        elif isinstance(cause, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
            hint = f"no answer within {deadline:g} s; look at the load of the engine's machine"
        else:
            continue
        break
    return BackendUnreachable(Reason.BACKEND_UNREACHABLE, f"The Docker engine at {host} did not answer: {hint}.")


def pull_failed(image: str, words: str) -> OperatorError:
    """The error for a refused pull, from the words of engine and registry."""
    rule = _match(_PULL_REFUSALS, words.lower())
    if rule is None:
        return BackendError(
            Reason.IMAGE_PULL_FAILED,
            f"Image {image} could not be pulled; the engine's log has the details. It is tried again.",
        )
    return rule.error(rule.reason, f"Image {image} could not be pulled: {rule.message}.")


def _refused(exc: APIError, doing: str, failed: Reason) -> OperatorError:
    rule = _match(_REFUSALS, explanation(exc))
    if rule is not None:
        return rule.error(rule.reason, f"{doing} failed: {rule.message}.")
    status = exc.response.status_code if exc.response is not None else 0
    if status == 400:
        return BadRequest(
            failed,
            f"{doing} failed: the engine refuses the parameters; its log has the details.",
        )
    return BackendError(
        failed,
        f"{doing} failed: the engine answered with status {status}; its log has the details.",
    )


def _match(rules: tuple[_Rule, ...], words: str) -> _Rule | None:
    return next((rule for rule in rules if re.search(rule.pattern, words, re.DOTALL)), None)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception, its causes and the exceptions in its arguments (where requests and urllib3 put them)."""
    pending: list[object] = [exc]
    seen: set[int] = set()
    while pending:
        item = pending.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        pending += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
