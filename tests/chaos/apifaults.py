"""Every switch of the API server's proxy. Each may be turned at run time; the defaults are a kind API server.

"Concepts" is the Kubernetes documentation's "Kubernetes API Concepts", "Conventions" the community's "API Conventions"
(section "HTTP Status codes"), "APF" the page "API Priority and Fairness".
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, fields

from tests.ec2.counterpart import Rule

#: Where 409 can be an answer: a write to an object that exists.
WRITES = ("update *", "patch *", "delete *")


@dataclass
class ApiFaults:
    """The switches. A rule's actions are patterns over "<verb> <resource>", such as ``list *`` or
    ``patch workspaces/status``; the verbs are those of RBAC.
    """

    seed: int = 0
    exempt: tuple[str, ...] = ()
    "Resources that no fault hits, as ``<resource>`` or ``<resource>/<namespace>/<name>``: the leader's Lease, say."

    # Refusals before any effect.
    throttled: Rule | None = None
    "429 with Retry-After (``seconds``, at least 1). APF: requests beyond the queues of a priority level are rejected."
    conflict: Rule | None = None
    "409 with reason Conflict, for writes only. Conventions: the client is to read the object again and retry."
    server_error: Rule | None = None
    "500 with reason InternalError. Conventions: the server is in a state from which it cannot proceed."
    timeout: Rule | None = None
    "504 with reason Timeout before any effect."
    reset: Rule | None = None
    "The connection is reset, and nothing happened."
    slow: Rule | None = None
    "``seconds`` pass before the request is looked at; more than the client's patience is a request never answered."
    expired: Rule | None = None
    """410 with reason Expired, for lists with a continue token and for watches from a resourceVersion. Concepts,
    "Retrieving large results sets in chunks" and "Efficient detection of changes"."""

    # It took effect, and the answer does not say so.
    timeout_after: Rule | None = None
    "504 with reason Timeout. Conventions: the request may have been carried out, so the client must find out."
    lost: Rule | None = None
    "The connection is reset instead of an answer."

    # Views of the past.
    stale: Rule | None = None
    """A list is answered as of ``seconds`` ago (or of the resourceVersion in ``code``), its resourceVersion included,
    so that a watch from it brings what is missing. Concepts, "Semantics for get and list": a cache of the API server
    may lag; a list without a resourceVersion should be the most recent one, and was not in releases with bugs
    (kubernetes/kubernetes #59848)."""

    # Watches; the dice are cast for each event, and the event that is hit is not delivered.
    watch_cut: Rule | None = None
    'The connection ends without a word. Concepts, "Efficient detection of changes": clients resume a broken watch.'
    watch_expired: Rule | None = None
    'An ERROR event with code 410, then the end. Concepts, ibid.: "too old resource version".'
    watch_silent: Rule | None = None
    "Nothing comes any more, for ``seconds``, though the connection is open; then it ends. A half-open connection."

    injected: Counter[str] = field(default_factory=Counter)
    "How often each fault was."
    _dice: dict[str, random.Random] = field(default_factory=dict, repr=False)

    def hits(self, name: str, action: str) -> Rule | None:
        """The rule of that name, when it hits this request or event."""
        rule: Rule | None = getattr(self, name)
        if rule is None:
            return None
        key = f"{self.seed}:{name}:{action}"
        if not rule.hits(action, self._dice.setdefault(key, random.Random(key))):
            return None
        self.injected[name] += 1
        return rule

    def clear(self) -> None:
        """Every rule off; what was counted stays."""
        for each in fields(self):
            if "Rule" in str(each.type):
                setattr(self, each.name, None)
