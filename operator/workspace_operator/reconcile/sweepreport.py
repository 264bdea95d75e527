"""What the sweeper tells people, in a class's status, conditions and Events."""

from __future__ import annotations

from dataclasses import dataclass

from workspace_operator.api.meta import RELEASE_FUSE_ANNOTATION
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import ConditionStatus
from workspace_operator.api.sweep import SweepFuse, SweepStatus
from workspace_operator.lifecycle.conditions import Verdict
from workspace_operator.lifecycle.orphans import Judgement, Kind, Suspect


@dataclass(frozen=True)
class SweepReport:
    """What a sweep found, for the class pass to write."""

    status: SweepStatus
    swept: Verdict
    stalled: Verdict


def words(suspect: Suspect) -> str:
    """An orphan in words that lead to it."""
    compute = suspect.compute
    why = {
        Kind.NO_WORKSPACE: "which does not exist",
        Kind.OTHER_CLASS: "which lives in another class",
        Kind.SUPERSEDED: "which has a newer incarnation",
        Kind.NOT_WANTED: "which should not run",
    }[suspect.kind]
    return f"instance {compute.id} of workspace {compute.namespace}/{compute.name} (UID {compute.uid}), {why}"


def stalled(fuse: SweepFuse | None, name: str) -> Verdict:
    """Whether a person is needed, and for what."""
    if fuse is None:
        return ConditionStatus.FALSE, Reason.SWEEP_COMPLETE, "Nothing waits for a person."
    text = (
        f"{fuse.orphans} instances have no workspace: more than a sweep removes by itself, so none is removed. If "
        "workspaces are missing from this control plane (a restore, the wrong cluster, deleted CRDs), bring them back. "
        "If the instances are to go (data volumes stay): kubectl annotate --overwrite workspaceclass "
        f"{name} {RELEASE_FUSE_ANNOTATION}={fuse.token}"
    )
    return ConditionStatus.TRUE, Reason.SWEEP_FUSE_BLOWN, text


def swept(judgement: Judgement, waits: Verdict) -> Verdict:
    """Whether every instance is accounted for."""
    if waits[0] is ConditionStatus.TRUE:
        return ConditionStatus.FALSE, waits[1], waits[2]
    if not judgement.orphans:
        return ConditionStatus.TRUE, Reason.SWEEP_COMPLETE, Reason.SWEEP_COMPLETE.meaning
    first = min(judgement.book.suspects.values(), key=lambda suspect: suspect.since)
    others = f" and {judgement.orphans - 1} more" if judgement.orphans > 1 else ""
    return ConditionStatus.FALSE, Reason.ORPHANS_FOUND, f"Found {words(first)}{others}."
