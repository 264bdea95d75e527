"""Every switch of the counterpart. Each may be turned at run time; the defaults are a fast and kind EC2.

"EC2 DG" is the Amazon EC2 Developer Guide, "EC2 UG" the Amazon EC2 User Guide, "API" the Amazon EC2 API Reference.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase

from .buckets import Bucket


def matches(action: str, patterns: Iterable[str]) -> bool:
    """Whether an action is meant: shell patterns, ``RunInstances`` or ``Describe*``."""
    return any(fnmatchcase(action, pattern) for pattern in patterns)


@dataclass
class Rule:
    """Which requests a fault hits: of these actions, every n-th one or a share of them, at most ``times``.

    ``every=2`` spares the first and hits the second. With neither ``every`` nor ``share`` it hits each one.
    The dice are seeded by ``Faults.seed``, the fault's name and the action, so that they fall the same way each time.
    """

    actions: str | tuple[str, ...] = "*"
    every: int = 0
    share: float = 0.0
    times: int | None = None
    seconds: float = 0.0
    "For faults that take time: how long."
    code: str = ""
    "For faults that answer: the error code."
    seen: Counter[str] = field(default_factory=Counter, repr=False)
    hit: int = 0

    def hits(self, action: str, dice: random.Random) -> bool:
        patterns = self.actions.split(",") if isinstance(self.actions, str) else self.actions
        if not matches(action, patterns) or (self.times is not None and self.hit >= self.times):
            return False
        self.seen[action] += 1
        due = self.seen[action] % self.every == 0 if self.every else (not self.share or dice.random() < self.share)
        self.hit += due
        return due


@dataclass
class Faults:
    """The switches. A field of type ``Rule`` is off when None."""

    seed: int = 0

    # States that take time. EC2 UG "Amazon EC2 instance state changes"; "Attach an Amazon EBS volume" (volume states).
    pending: float = 0.3
    stopping: float = 0.3
    shutting_down: float = 0.3
    terminated_visible: float = 3600.0
    'A terminated instance stays visible for a short while (about an hour). EC2 UG "Terminate Amazon EC2 instances".'
    initializing: float = 0.0
    'Seconds after boot until status checks are ok. EC2 UG "Status checks for Amazon EC2 instances".'
    hibernate_ready: float = 0.0
    'Seconds after boot until an instance can hibernate. EC2 UG "Hibernate an Amazon EC2 instance".'
    creating_volume: float = 0.1
    attaching: float = 0.1
    detaching: float = 0.1

    # Eventual consistency. EC2 DG "Eventual consistency in the Amazon EC2 API": a fresh id may not be found, a change
    # may not be seen.
    describe_delay: float = 0.0
    "Seconds until Describe* shows a new instance; until then InvalidInstanceID.NotFound by id."
    command_delay: float = 0.0
    "The same for Start, Stop, Terminate, Reboot, CreateTags, AttachVolume and GetConsoleOutput."
    volume_delay: float = 0.0
    "Seconds until DescribeVolumes shows a new volume; until then InvalidVolume.NotFound by id."
    tag_delay: float = 0.0
    "Seconds until Describe* shows what CreateTags or DeleteTags did. Tags of the create call come with the resource."
    state_delay: float = 0.0
    "Seconds by which the state that Describe* reports lags behind the truth."

    # Refusals before any effect.
    throttled: Rule | None = None
    'RequestLimitExceeded, 503 (``code`` for another). EC2 DG "Request throttling"; API "Error codes".'
    buckets: dict[str, Bucket] = field(default_factory=dict)
    "Action pattern (``Describe*``) to the bucket of that family; the first that matches counts."
    no_capacity: set[str] = field(default_factory=set)
    'Subnets, zones or instance types without capacity: InsufficientInstanceCapacity, 500. API "Error codes".'
    vcpu_limit: int | None = None
    'VcpuLimitExceeded beyond this many running vCPUs. EC2 UG "Amazon EC2 service quotas".'
    instance_limit: int | None = None
    'InstanceLimitExceeded beyond this many running instances. EC2 UG "Troubleshoot instance launch issues".'
    denied: set[str] = field(default_factory=set)
    'Action patterns that are not authorised: UnauthorizedOperation, 403. API "Error codes".'
    allowed: set[str] | None = None
    """When set, the only permissions there are, as in IAM (``ec2:Describe*``). Tags in a create call need
    ec2:CreateTags too, an instance profile iam:PassRole. EC2 UG "Grant permission to tag resources during creation"."""
    check_credentials: bool = False
    "Refuse access keys not in ``Counterpart.credentials``: AuthFailure, 401. Known keys' signatures count in any case."
    reset: Rule | None = None
    "The connection is reset before anything happened."
    slow: Rule | None = None
    "``seconds`` pass before the request is looked at."
    forget_tokens: bool = False
    """Be as moto is: no memory of ClientToken. A test that passes with this on proves nothing about idempotency.
    EC2 DG "Ensuring idempotency in Amazon EC2 API requests"."""

    # The effect happened, and the answer does not say so. EC2 DG "Ensuring idempotency", "Retry recommendations":
    # after a 5xx or a time-out the effect may have happened.
    lost: Rule | None = None
    "The connection is closed without an answer."
    truncated: Rule | None = None
    "Half of the body, then the connection is reset."
    error_after: Rule | None = None
    "InternalError, 500 (``code`` for another)."
    slow_answer: Rule | None = None
    "``seconds`` pass between effect and answer."

    # Later failures.
    launch_fails: Rule | None = None
    """RunInstances succeeds, and the instance goes from pending to terminated with the state reason ``code``
    (Server.InternalError). EC2 UG "Troubleshoot instance launch issues", "Instance terminates immediately"."""
    impaired: set[str] = field(default_factory=set)
    'Instances whose status checks fail. EC2 UG "Status checks for Amazon EC2 instances".'

    # Pages.
    page_size: int | None = None
    'An upper bound on the size of a page, below what MaxResults asks. EC2 DG "Pagination for EC2 API".'

    _dice: dict[str, random.Random] = field(default_factory=dict, repr=False)

    def hits(self, name: str, action: str) -> Rule | None:
        """The rule of that name, when it hits this request."""
        rule: Rule | None = getattr(self, name)
        if rule is None:
            return None
        key = f"{self.seed}:{name}:{action}"
        return rule if rule.hits(action, self._dice.setdefault(key, random.Random(key))) else None

    def bucket_refuses(self, action: str) -> bool:
        for pattern, bucket in self.buckets.items():
            if matches(action, [pattern]):
                return not bucket.take()
        return False

    def adopt(self, other: Faults) -> None:
        """Become equal to ``other`` in place, for whoever holds this object."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))
