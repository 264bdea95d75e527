"""What must hold in the simulated world at every moment, and where it gets to once nothing goes wrong any more."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.model.apiserver import CLUSTER, NAMESPACE, Api
from tests.model.callers import IDLER, Callers
from tests.model.cloud import Cloud, Origin, Unit
from tests.model.virtual import START, VirtualLoop

from workspace_operator.api.meta import FINALIZER, RELEASE_FUSE_ANNOTATION
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import LIVE, Reading
from workspace_operator.backends.protocol import Instance, ProvisionRequest, StopRequest, WorkspaceRef
from workspace_operator.kube.client import Object, path, workspace_classes, workspaces
from workspace_operator.kube.identity import account_name
from workspace_operator.reconcile.sweepreport import SweepReport

CLASS = "c"
CLASS_URL = workspace_classes(CLASS)
HOUR, FLOOR, PERCENT = 3600.0, 3, 20  # the fuse, as the class's schema describes it
_RANK = ("Running", "Paused", "Stopped")


class Promises:
    """Told of every call that changes something, right when it takes effect; remembers what was broken."""

    loop: VirtualLoop
    api: Api
    callers: Callers
    setting: Any

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.strangers: dict[str, Unit] = {}
        self.story: list[str] = []
        self.violations: list[str] = []
        self.changes = 0  # verbs and status writes
        self._handed_over: set[str | None] = set()  # UIDs of Secrets whose tokens an instance got
        self.removed = 0  # orphans that the sweeper told to stop
        self._begin()

    def _begin(self) -> None:
        """A new process: its sweeper remembers nothing."""
        self._listed: tuple[Instance, ...] = ()
        self._owners: set[str] = set()
        self._sightings: dict[str, list[float]] = {}  # by instance id: when a sweep saw it without a workspace
        self._told: dict[str, float] = {}  # by instance id: when it was told to stop without a person's word

    def told(self, what: str) -> None:
        """Something happened that belongs into the trace."""
        self.story.append(f"{self.loop.now - START:8.2f}  {what}")

    def broken(self, promise: str) -> None:
        """A promise is broken."""
        self.told(f"BROKEN: {promise}")
        self.violations.append(promise)

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def asked(self, request: ProvisionRequest | StopRequest | WorkspaceRef, queue: str, known: Object | None) -> None:
        """A verb; ``known`` is the object as the pass knew it, and a ref stands for the deletion of its data."""
        ref = request if isinstance(request, WorkspaceRef) else request.ref
        self.changes += 1
        if (ref.cluster, ref.class_name) != (CLUSTER, CLASS):
            self.broken(f"a verb for an instance of {ref.cluster}/{ref.class_name} (I-15)")
        if queue == "sweep":
            assert isinstance(request, StopRequest), "the sweeper only stops"
            self._swept_away(request)
        elif known is None or known["metadata"]["uid"] != ref.uid:
            self.broken(f"a pass over {known and known['metadata']['uid']} acts on {ref.uid} (I-11)")
        elif isinstance(request, ProvisionRequest):
            self._provisioned(request, known)
        elif isinstance(request, WorkspaceRef):
            self._data_deleted(ref, known)
        elif not request.release and ref.name == IDLER and known["spec"]["desiredState"] == "Running":
            self._idles(ref, known)

    def _provisioned(self, request: ProvisionRequest, known: Object) -> None:
        uid, number = request.ref.uid, request.incarnation
        if not _finalized(known) or _deleting(known):
            self.broken(f"{uid} is provisioned although it has no finalizer or is being deleted")
        if not any(_finalized(version) and _intends(version, number) for version in self.api.versions[uid]):
            self.broken(f"incarnation {number} of {uid} is provisioned before its intent is on the object (I-05)")
        if self.setting.tokens:
            secret = self._secret(request.ref)
            if not request.files or secret is None:
                self.broken(f"{uid} is started without a valid token (I-50)")
            self._handed_over.add(secret)

    def _data_deleted(self, ref: WorkspaceRef, known: Object) -> None:
        if not _deleting(known) or (known["spec"].get("storage") or {}).get("whenDeleted") != "Delete":
            self.broken(f"the data of {ref.uid} is deleted without its owner's wish (I-16)")
        if any(unit.origin is Origin.OPERATOR for unit in self.cloud.of(ref)):
            self.broken(f"the data of {ref.uid} is deleted before its compute is gone")

    def _idles(self, ref: WorkspaceRef, known: Object) -> None:
        """It is told to halt although it should run."""
        running = any(unit.reading is Reading.RUNNING for unit in self.cloud.of(ref))
        if running and self.callers.flying and not _deleting(known):
            self.broken(f"{ref.uid} is paused for being idle while a task is under way (I-22)")

    def _secret(self, ref: WorkspaceRef) -> str | None:
        """UID of the Secret that keeps the workspace's token valid."""
        body = self.api.objects.get(path("v1/secrets", NAMESPACE, account_name(ref.name)))
        if body is None or body["metadata"]["ownerReferences"][0]["uid"] != ref.uid:
            return None
        return str(body["metadata"]["uid"])

    # -- status --------------------------------------------------------------------------------------------------------

    def writes(self, url: str, patch: Object) -> None:
        """A patch is sent: of a status, or of the finalizers, and always of what was read."""
        if "/workspaces/" not in url and not url.startswith(CLASS_URL):
            return
        status = url.endswith("/status") and set(patch) == {"metadata", "status"}
        allowed = {"resourceVersion"} if status else {"resourceVersion", "finalizers"}
        if set(patch["metadata"]) != allowed or not (status or set(patch) == {"metadata"}):
            self.broken(f"the operator writes {patch} to {url}: not its own, or without a precondition (I-11, I-30)")

    def wrote(self, body: Object, before: Object | None, seen: tuple[Instance, ...]) -> None:
        """A status is written; ``seen`` is what the process knew of the compute when it sent the write."""
        self.changes += 1
        uid, status = body["metadata"]["uid"], body["status"]
        earlier = ((before or {}).get("status") or {}).get("incarnation", 0)
        if status.get("incarnation", 0) < earlier:
            self.broken(f"the incarnation of {uid} went back from {earlier}")
        phase, ready = status["phase"], _ready(status)
        self.told(f"status of {uid}: {phase}, Ready is {ready} because {_ready(status, 'reason')}")
        if phase not in ("Paused", "Stopped") or ready != "True":
            return
        frozen = phase == "Paused" and self.setting.freeze
        for instance in seen:
            now = self.cloud.units.get(instance.id)
            both = {instance.reading, now.reading} if now is not None else set()
            if both and both <= (LIVE - {Reading.FROZEN} if frozen else LIVE):
                self.broken(f"{uid} is said to be {phase} while {instance.id}, which was seen, computes (I-01, I-23)")

    def lets_go(self, body: Object) -> None:
        """The finalizer goes."""
        uid = body["metadata"]["uid"]
        self.told(f"the finalizer of {uid} goes")
        if any(True for _ in self.cloud.live(uid, Origin.OPERATOR)):
            self.broken(f"the finalizer of {uid} goes while its compute lives (I-10)")
        if (body["spec"].get("storage") or {}).get("whenDeleted") == "Delete" and uid in self.cloud.data:
            self.broken(f"the finalizer of {uid} goes while its data, which is to be deleted, exists (I-13)")

    # -- sweeps --------------------------------------------------------------------------------------------------------

    def sweep_listed(self, listed: tuple[Instance, ...]) -> None:
        """What the backend showed to the sweep that is under way."""
        self._listed = listed

    def sweep_read(self, bodies: list[Object]) -> None:
        """What the API server showed to the sweep that is under way."""
        self._owners = {body["metadata"]["uid"] for body in bodies}
        unowned = {instance.id for instance in self._unowned()}
        self._sightings = {id_: at for id_, at in self._sightings.items() if id_ in unowned}
        for id_ in unowned:
            self._sightings.setdefault(id_, []).append(self.loop.now)

    def _swept_away(self, request: StopRequest) -> None:
        uid = request.ref.uid
        if uid in self.api.uids:
            self.broken(f"the sweeper stops compute of {uid}, which exists")
        if not request.release or request.only_before is not None or self.setting.sweep == "Report":
            self.broken(f"the sweeper does with {uid} what nobody asked for")
        if self._limit_passed(self._told_within_the_hour()) and not self._agreed():
            self.broken(f"the sweeper stops compute of {uid} although that is more than the fuse allows (I-16)")
        for instance in self._listed:
            if instance.ref.uid != uid:
                continue
            seen = self._sightings.get(instance.id, [])
            if len(seen) < 2 or self.loop.now - seen[0] < self.setting.sweep_grace:
                self.broken(f"the sweeper stops {instance.id}, which it has not seen twice and for its grace period")
            self.removed += 1
            if not self._agreed():
                self._told.setdefault(instance.id, self.loop.now)

    def swept(self, report: SweepReport) -> None:
        """A sweep came to its end."""
        if self.setting.sweep != "Remove" or report.swept[1] == Reason.SWEEP_FAILED:
            return
        blown = report.status.fuse is not None
        if blown and not self._limit_passed(self._told_within_the_hour()):
            self.broken("the fuse is blown although a sweep may remove that much")
        if not blown and self._limit_passed(0):
            self.broken("the fuse is not blown although a sweep may not remove that much (I-16)")

    def _unowned(self) -> list[Instance]:
        return [instance for instance in self._listed if instance.ref.uid not in self._owners]

    def _told_within_the_hour(self) -> int:
        there = {instance.id for instance in self._listed}
        return sum(self.loop.now - at < HOUR and id_ not in there for id_, at in self._told.items())

    def _limit_passed(self, removed: int) -> bool:
        """Whether a sweep would remove more than it may, so many others having been removed before."""
        if self.setting.sweep != "Remove":
            return False
        floor = FLOOR if self._owners else 1
        everything = len(self._listed) + self._told_within_the_hour()
        return len(self._unowned()) + removed > max(floor, everything * PERCENT // 100)

    def _agreed(self) -> bool:
        class_ = self.api.get(CLASS_URL)
        fuse = ((class_.get("status") or {}).get("sweep") or {}).get("fuse") or {}
        annotation = class_["metadata"].get("annotations", {}).get(RELEASE_FUSE_ANNOTATION)
        return annotation is not None and annotation == fuse.get("token")

    # -- in the end ----------------------------------------------------------------------------------------------------

    def leaks(self) -> list[Unit]:
        """Instances of ours whose workspace does not exist."""
        units = (u for u in self.cloud.units.values() if u.ref is not None and u.id not in self.strangers)
        return [u for u in units if u.ref is not None and u.ref.uid not in self.api.uids]

    def failed(self) -> list[Object]:
        """The failures that are remembered."""
        found = ((body.get("status") or {}).get("failures") for _, body in self.api.workspaces())
        return [failures for failures in found if failures is not None]

    def back_off(self) -> float:
        """Seconds until the last of those whose starts failed is tried again."""
        now = self.loop.moment()
        waits = [(datetime.fromisoformat(failures["retryAfter"]) - now).total_seconds() for failures in self.failed()]
        return max([0.0, *waits])

    def unreached(self) -> list[str]:
        """Wishes that are not fulfilled, in words."""
        found = []
        for name, body in self.api.workspaces():
            problem = self._unreached(name, body)
            if problem is not None:
                instances = ", ".join(f"#{u.incarnation} {u.reading}" for u in self._units(body)) or "no instance"
                status = body.get("status") or {}
                why = f"{status.get('phase')}, {_ready(status, 'message')}"
                found.append(f"{body['metadata']['uid']}: {problem} ({instances}; status: {why})")
        return found

    def _unreached(self, name: str, body: Object) -> str | None:
        status, units = body.get("status") or {}, self._units(body)
        if _deleting(body):
            return "it is deleted and still there"
        if not _finalized(body) or status.get("observedGeneration") != body["metadata"]["generation"]:
            return "it was not looked at"
        wish, orphaned = self._wish(name)
        readings = [unit.reading for unit in units]
        if wish == "Running" and orphaned and Reading.RUNNING not in readings:
            return None if status["phase"] == "Pending" else "without its parent it should be Pending"
        if (status["phase"], _ready(status)) != (wish, "True"):
            return f"it should be {wish}"
        if wish == "Running":
            if body["spec"].get("restartToken") != status.get("restartToken") and not orphaned:
                return "its restart token is not honoured"
            return None if readings == [Reading.RUNNING] else "one running instance is wanted"
        secret = self._secret(_ref(body))
        if secret is not None and secret in self._handed_over and not self.setting.freeze:
            return "its token is still valid (I-51)"
        allowed = {"Paused": {Reading.HALTED, Reading.FAILED, Reading.FROZEN}, "Stopped": set()}[wish]
        if not self.setting.freeze:
            allowed.discard(Reading.FROZEN)
        return None if set(readings) <= allowed else f"its compute is not {wish}"

    @property
    def sleeps(self) -> bool:
        """Whether the workspace that may idle has nothing to do and is paused for it, if it is to run at all."""
        body = self.api.workspace(IDLER)
        if body is None or _deleting(body) or body["spec"]["desiredState"] != "Running":
            return True
        return _idle(body) and body["status"]["phase"] == "Paused"

    def _units(self, body: Object) -> list[Unit]:
        return self.cloud.of(_ref(body))

    def _wish(self, name: str) -> tuple[str, bool]:
        """The lowest wish of a workspace and its ancestors, and whether one of these is missing."""
        lowest, here = "Running", self.api.objects[workspaces(NAMESPACE, name)]
        while True:
            lowest = max(lowest, here["spec"]["desiredState"], key=_RANK.index)
            parent = (here["spec"].get("parentRef") or {}).get("name")
            if parent is None:
                asleep = name == IDLER and lowest == "Running" and _idle(here) and not self.callers.any
                return "Paused" if asleep else lowest, False
            above = self.api.workspace(parent)
            if above is None:
                return lowest, True
            here = above


def _ref(body: Object) -> WorkspaceRef:
    metadata = body["metadata"]
    return WorkspaceRef(CLUSTER, metadata["uid"], NAMESPACE, metadata["name"], CLASS)


def _finalized(body: Object) -> bool:
    return FINALIZER in body["metadata"].get("finalizers", ())


def _deleting(body: Object) -> bool:
    return "deletionTimestamp" in body["metadata"]


def _intends(body: Object, incarnation: int) -> bool:
    instance = (body.get("status") or {}).get("instance") or {}
    return instance.get("incarnation") == incarnation and "since" in instance


def _idle(body: Object) -> bool:
    return (body.get("status") or {}).get("effectiveReason") == "IdleTimeout"


def _ready(status: Object, key: str = "status") -> str | None:
    return next((c[key] for c in status.get("conditions", ()) if c["type"] == "Ready"), None)
