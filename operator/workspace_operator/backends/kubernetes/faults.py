"""What the API server refuses, turned into our errors. Used inside backends/kubernetes only.

Messages are sentences of ours (I-53): the server's own words are only matched against, but for the name of a quota,
and stay in ``__cause__``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import BackendError, BackendUnreachable, BadRequest, OperatorError, QuotaExceeded
from workspace_operator.kube.client import KubeError

#: Where the rights stand that the backend needs.
RIGHTS: Final = "deploy/base/rbac-pods.yaml and rbac.yaml"
_UNSURE = (408, 429)  # and 5xx: it may have been done


@dataclass(frozen=True)
class _Rule:
    """The first rule whose pattern is found in the server's words decides; {0} is what the pattern captured."""

    pattern: str
    error: type[OperatorError]
    reason: Reason | None  # None: what the caller was about to do
    message: str


_REFUSALS = (
    _Rule(
        r"exceeded quota: ([\w.-]+)",
        QuotaExceeded,
        Reason.QUOTA_EXCEEDED,
        "the namespace's ResourceQuota {0} is used up; release workspaces, or have it raised",
    ),
    _Rule(
        r"failed quota: ([\w.-]+): must specify",
        BadRequest,
        Reason.QUOTA_EXCEEDED,
        "the namespace's ResourceQuota {0} asks for cpu and memory limits; set spec.resources.limits, or defaults in"
        " the class",
    ),
    _Rule(
        "violates podsecurity",
        BadRequest,
        Reason.MISCONFIGURED,
        "the namespace's Pod Security Standard refuses the pod; pods of this class are admitted by `restricted`, so an"
        " admission webhook of the cluster has probably changed it",
    ),
    _Rule(
        r"(maximum|minimum) (cpu|memory|storage) usage per",
        BadRequest,
        Reason.RESOURCES_EXCEED_CLASS,
        "the namespace's LimitRange does not allow these resources ({0}); change spec.resources.limits or"
        " kubernetes.storageSize, or create the workspace anew with another spec.storage.size",
    ),
    _Rule(
        "serviceaccount .*not found|error looking up service account",
        BackendError,
        Reason.IDENTITY_FAILED,
        "its ServiceAccount does not exist yet, or somebody deleted it; it is made again",
    ),
    _Rule(
        "no priorityclass with name",
        BadRequest,
        Reason.MISCONFIGURED,
        "kubernetes.priorityClassName names a PriorityClass that the cluster does not have; create it or correct the"
        " class",
    ),
    _Rule(
        "runtimeclass .*not found",
        BadRequest,
        Reason.MISCONFIGURED,
        "kubernetes.runtimeClassName names a RuntimeClass that the cluster does not have; create it or correct the"
        " class",
    ),
    _Rule(
        "being terminated",
        BackendError,
        None,
        "the namespace is being deleted",
    ),
    _Rule(
        r'namespaces "([\w.-]+)" not found',
        BadRequest,
        Reason.MISCONFIGURED,
        "namespace {0} does not exist; create it or correct kubernetes.namespace",
    ),
    _Rule(
        r'cannot (\w+) resource "([\w./-]+)" in api group "[\w.-]*" (in the namespace "[\w-]+"|at the cluster scope)',
        BadRequest,
        Reason.MISCONFIGURED,
        f"the right to {{0}} {{1}} {{2}} is missing; {RIGHTS} grant what is needed",
    ),
    _Rule(
        "mountpath|mount path",
        BadRequest,
        Reason.PROVISION_FAILED,
        "the cluster refuses storage.mountPath; choose an absolute path that nothing else is mounted on",
    ),
    _Rule(
        "admission webhook",
        BackendError,
        None,
        "an admission webhook of the cluster refused it; the operator's log has its words",
    ),
)


@contextmanager
def told(doing: str, failed: Reason | None = None) -> Iterator[None]:
    """Raise our errors instead of the client's; ``failed`` is the reason of a refused change, None for a look."""
    try:
        yield
    except KubeError as error:
        raise translate(error, doing, failed) from error


def translate(error: KubeError, doing: str, failed: Reason | None) -> OperatorError:
    """Our error for a refusal, or for no answer."""
    status = error.status
    if status == 0 or status >= 500 or status in _UNSURE:
        hint = {0: str(error), 429: "It asks for fewer requests."}.get(status, "Its log has the details.")
        return BackendUnreachable(
            Reason.BACKEND_UNREACHABLE, f"{doing} failed: the Kubernetes API gave no answer. {hint}"
        )
    if status == 401:
        text = "the Kubernetes API does not accept the operator's credentials; check kubernetes.kubeconfigSecretRef"
        return BackendUnreachable(Reason.BACKEND_UNREACHABLE, f"{doing} failed: {text}.")
    rule, found = _match(str(error).lower().partition(": ")[2])  # behind the request, which has names that people chose
    if failed is None:
        # A look that was refused is no reading, so it is told apart from a refused change (I-40).
        text = rule.message.format(*found) if rule is not None else f"the Kubernetes API answered with status {status}"
        return BackendUnreachable(Reason.BACKEND_UNREACHABLE, f"{doing} failed: {text}.")
    if rule is not None:
        return rule.error(rule.reason or failed, f"{doing} failed: {rule.message.format(*found)}.")
    if status in (400, 422):
        text = "the Kubernetes API refuses the parameters; the operator's log has its words"
        return BadRequest(failed, f"{doing} failed: {text}.")
    return BackendError(failed, f"{doing} failed: the Kubernetes API answered with status {status}.")


def _match(words: str) -> tuple[_Rule | None, tuple[str, ...]]:
    for rule in _REFUSALS:
        if found := re.search(rule.pattern, words, re.DOTALL):
            return rule, (*found.groups(), "")
    return None, ()
