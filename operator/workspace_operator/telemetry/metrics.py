"""Every metric that the operator exports, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram, Info

_PREFIX = "workspace_operator"
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LONG = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 86400)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)

BUILD = Info(f"{_PREFIX}_build", "Version and commit of the running code.")
LEADER = Gauge(f"{_PREFIX}_leader", "1 while this process holds the leader Lease.")

CLASS_READY = Gauge(
    f"{_PREFIX}_class_ready", "1 while a class is usable: configured completely, and its backend answers.", ["class"]
)
WORKSPACES = Gauge(f"{_PREFIX}_workspaces", "Number of workspaces by class and phase.", ["class", "phase"])

PASS_SECONDS = Histogram(
    f"{_PREFIX}_pass_seconds", "Duration of one pass over an object.", ["resource", "outcome"], buckets=_FAST
)
QUEUE_DELAY = Histogram(
    f"{_PREFIX}_queue_delay_seconds", "Time between a key being due and a worker taking it.", ["queue"], buckets=_FAST
)
QUEUE_DEPTH = Gauge(f"{_PREFIX}_queue_depth", "Keys that are due and wait for a worker.", ["queue"])
QUEUE_OLDEST = Gauge(
    f"{_PREFIX}_queue_oldest_seconds", "How long the key at the head of a queue has been due; 0 if none is.", ["queue"]
)
PASS_LONGEST = Gauge(
    f"{_PREFIX}_pass_longest_running_seconds", "Age of the oldest pass under way; 0 if there is none.", ["queue"]
)

VERB_SECONDS = Histogram(
    f"{_PREFIX}_verb_seconds", "Duration of a call to a backend.", ["backend", "verb"], buckets=_SLOW
)
VERBS = Counter(
    f"{_PREFIX}_verbs",
    "Calls to a backend by outcome and class of failure.",
    ["backend", "verb", "outcome", "failure_class"],
)
WISH_TO_EFFECT = Histogram(
    f"{_PREFIX}_wish_to_effect_seconds",
    "Time between the first sight of a wish and its confirmed effect.",
    ["goal"],
    buckets=_SLOW,
)

IDENTITY = Counter(
    f"{_PREFIX}_identity_operations", "Tokens of workspaces issued, renewed and revoked.", ["operation", "outcome"]
)

KUBE_REQUESTS = Counter(f"{_PREFIX}_kube_requests", "Requests to the Kubernetes API.", ["verb", "resource", "code"])
KUBE_SECONDS = Histogram(
    f"{_PREFIX}_kube_request_seconds", "Duration of requests to the Kubernetes API.", ["verb"], buckets=_FAST
)
EVENTS_DROPPED = Counter(f"{_PREFIX}_events_dropped", "Kubernetes Events that were not posted.")

A2A_REQUESTS = Counter(f"{_PREFIX}_a2a_requests", "Requests to agents by outcome.", ["operation", "outcome"])
A2A_SECONDS = Histogram(
    f"{_PREFIX}_a2a_request_seconds", "Duration of requests to agents.", ["operation"], buckets=_FAST
)
A2A_STREAMS = Gauge(f"{_PREFIX}_a2a_streams", "Streams of events from agents that are open.")

ORPHANS = Gauge(f"{_PREFIX}_orphans", "Instances that no workspace accounts for, in the last sweep.", ["class", "kind"])
ORPHAN_OLDEST = Gauge(
    f"{_PREFIX}_orphan_oldest_seconds",
    "How long the longest known orphan had been known in the last sweep; 0 if there was none.",
    ["class", "kind"],
)
ORPHANS_REMOVED = Counter(f"{_PREFIX}_orphans_removed", "Orphans that were removed and seen gone.", ["class", "kind"])
ORPHANS_SPARED = Counter(
    f"{_PREFIX}_orphans_spared", "Times that an orphan was not removed, by reason.", ["class", "reason"]
)
ORPHAN_AGE = Histogram(
    f"{_PREFIX}_orphan_age_seconds",
    "Time between the first sight of an orphan and seeing it gone.",
    ["class"],
    buckets=_LONG,
)
SWEEP_COMPLETED = Gauge(
    f"{_PREFIX}_sweep_completed_timestamp_seconds", "When a class was last swept completely.", ["class"]
)
SWEEP_BOUND = Gauge(
    f"{_PREFIX}_sweep_bound_seconds", "Time within which a leak is to be gone: interval plus gracePeriod.", ["class"]
)
FUSE_BLOWN = Gauge(f"{_PREFIX}_sweep_fuse_blown", "1 while a class's sweeps wait for a person.", ["class"])

LOOP_AGE = Gauge(
    f"{_PREFIX}_loop_age_seconds", "Time since the last success of a loop (its listing, event or beat).", ["loop"]
)
LOOP_OVERDUE_AFTER = Gauge(
    f"{_PREFIX}_loop_overdue_after_seconds",
    "How long a loop may go without success; absent for one that may be silent.",
    ["loop"],
)
LOOP_FAILURES = Counter(f"{_PREFIX}_loop_failures", "Rounds of a loop that failed.", ["loop"])

DELEGATIONS = Gauge(f"{_PREFIX}_delegations", "Number of delegations by phase.", ["phase"])
DELEGATION_OLDEST_QUEUED = Gauge(
    f"{_PREFIX}_delegation_oldest_queued_seconds", "Age of the oldest delegation that is Queued; 0 if none is."
)
DELEGATIONS_ENDED = Counter(
    f"{_PREFIX}_delegations_ended", "Delegations that reached a terminal phase, by reason.", ["phase", "reason"]
)
DELEGATION_WAIT = Histogram(
    f"{_PREFIX}_delegation_wait_seconds",
    "Time between the creation of a delegation and its first sending.",
    buckets=_SLOW,
)
DELEGATION_SECONDS = Histogram(
    f"{_PREFIX}_delegation_seconds", "Time between the creation of a delegation and its end.", ["phase"], buckets=_LONG
)
SENDINGS = Counter(f"{_PREFIX}_delegation_sendings", "Messages of delegations sent to agents by outcome.", ["outcome"])
RESENDS = Counter(f"{_PREFIX}_delegation_resends", "Messages sent again although an earlier sending may have arrived.")
TALKS = Gauge(f"{_PREFIX}_delegation_talks", "Talks with agents under way.")

_OF_A_CLASS = (CLASS_READY, WORKSPACES, ORPHANS, ORPHAN_OLDEST, SWEEP_COMPLETED, SWEEP_BOUND, FUSE_BLOWN)


def forget_class(name: str) -> None:
    """Drop the gauges of a class that is gone; what they last said would be alerted on for ever."""
    for gauge in _OF_A_CLASS:
        gauge.remove_by_labels({"class": name})


@contextmanager
def counted(operation: str) -> Iterator[None]:
    """Count one operation on a workspace's token."""
    outcome = "error"
    try:
        yield
        outcome = "ok"
    finally:
        IDENTITY.labels(operation, outcome).inc()
