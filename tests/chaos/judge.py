"""The end: what the API server, the backends and the machine show, against what was wished."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.api import Api
from tests.chaos.sites import Site
from tests.chaos.witness import Census, census
from tests.chaos.workload import Wish, Workload
from tests.support.fleet import Object

from workspace_operator.api import meta
from workspace_operator.kube.client import path, workspaces

#: What an identity is made of (kube/identity.py).
IDENTITY = (
    "v1/serviceaccounts",
    "v1/secrets",
    "coordination.k8s.io/v1/leases",
    "rbac.authorization.k8s.io/v1/roles",
    "rbac.authorization.k8s.io/v1/rolebindings",
)


class Judge:
    """Asks everybody but the operator."""

    def __init__(self, api: Api, workload: Workload, sites: list[Site]) -> None:
        self._api, self._workload, self._sites = api, workload, sites

    def differences(self) -> list[str]:
        """Sentences; none when all is as wished."""
        objects = {each["metadata"]["name"]: each for each in self._api.list(workspaces(self._workload.namespace))}
        seen = census()
        found = [*self._strangers(seen), *self._leftovers(objects)]
        for wish in self._workload.wishes.values():
            body = objects.get(wish.name)
            if wish.spec is None:
                found += [f"{wish.name}: deleted, and still there: {_line(body)}"] if body is not None else []
            elif body is None:
                found.append(f"{wish.name}: wished for, and there is no object")
            else:
                found += [f"{wish.name} ({wish.site.kind}): {text}" for text in self._wrong(wish, body, seen)]
        return found

    def _wrong(self, wish: Wish, body: Object, seen: Census) -> Iterator[str]:
        """What one object and its compute have that its wish has not."""
        assert wish.spec is not None
        goal, status = self._workload.effective(wish), body.get("status") or {}
        ready = next((each["status"] for each in status.get("conditions", ()) if each["type"] == "Ready"), None)
        current = status.get("observedGeneration") == body["metadata"]["generation"]
        if (status.get("phase"), ready, current) != (goal, "True", True):
            yield f"should be {goal}, is {_line(body)}"
        running = wish.site.running(wish.uid, seen)
        if len(running) != (1 if goal == "Running" else 0):
            yield f"should be {goal}, and these run: {running}"
        elif status.get("credentials") and goal != "Running":
            yield f"should be {goal}, and its token is on record as valid"
        elif goal == "Running":
            if not status.get("credentials") and wish.site.kind != "ec2":
                yield "runs without a token on record"
            if status.get("restartToken") != wish.spec.get("restartToken"):
                yield f"restart token {wish.spec.get('restartToken')} wished, {status.get('restartToken')} honoured"
            if wish.automatic and (problem := wish.site.problem(wish.uid, wish.spec, seen)) is not None:
                yield problem

    def _strangers(self, seen: Census) -> Iterator[str]:
        """Compute or data of a workspace that is gone, and compute of one that should have released it."""
        wishes = {wish.uid: wish for wish in self._workload.wishes.values() if wish.spec is not None}
        for site in self._sites:
            remains, held = site.remains(), site.held()
            for uid, owner in self._workload.owners.items():
                wish = wishes.get(uid)
                if wish is None and (uid in remains or uid in seen):
                    yield f"{owner.name} ({uid}, {owner.site.kind}): deleted, and left at {site.kind}"
                elif wish is not None and uid in held and self._workload.effective(wish) == "Stopped":
                    yield f"{owner.name} ({uid}): Stopped, and its compute is kept at {site.kind}"

    def _leftovers(self, objects: dict[str, Object]) -> Iterator[str]:
        """Parts of identities whose workspace is gone, and Secrets whose token is not on record."""
        living = {body["metadata"]["uid"]: body for body in objects.values()}
        selector = f"?labelSelector={meta.MANAGED_BY_LABEL}%3D{meta.MANAGED_BY}"
        for resource in IDENTITY:
            for each in self._api.list(path(resource, self._workload.namespace) + selector):
                name, owner = each["metadata"]["name"], living.get(each["metadata"]["ownerReferences"][0]["uid"])
                if owner is None:
                    yield f"{resource} {name} of a workspace that is gone"
                elif resource == "v1/secrets" and not (owner.get("status") or {}).get("credentials"):
                    yield f"{resource} {name}, and no token is on record"


def _line(body: Object) -> str:
    """One line about an object, for the report of a failure."""
    status, metadata = body.get("status") or {}, body["metadata"]
    conditions = [f"{c['type']}={c['status']}({c['reason']})" for c in status.get("conditions", ())]
    failures = status.get("failures") or {}
    return (
        f"{status.get('phase')} {' '.join(conditions)} generation {status.get('observedGeneration')}/"
        f"{metadata['generation']} incarnation {status.get('incarnation')} finalizers {metadata.get('finalizers')} "
        f"deletion {metadata.get('deletionTimestamp')} failures {failures.get('count')} "
        f"{failures.get('message', '')!r} until {failures.get('retryAfter')}"
    )
