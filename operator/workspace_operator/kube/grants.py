"""What a workspace may read back: the Delegations that it sent and their answers, listed by name in a Role of its own.

RBAC knows no "those whose spec.from is me", so the names are listed. Only names that begin with the workspace's own and
a dot ever are: admission (deploy/base/admission.yaml) keeps such names to that sender, so a name that is listed for
longer than its Delegation lives can never become a right to somebody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from workspace_operator.api import meta
from workspace_operator.api.delegation import answer_name
from workspace_operator.api.workspace import ObjectMeta
from workspace_operator.errors import OperatorError
from workspace_operator.kube.client import KubeClient, NotFound, Object, path
from workspace_operator.kube.owned import BINDINGS, ROLES, account_name, adopt, bind, binding, role
from workspace_operator.telemetry.loops import Heartbeat

log = logging.getLogger(__name__)

LIMIT = 2000  # names per Role. Each is in it twice, with at most 253 bytes: below etcd's 1.5 MiB per object
SPACING = 1.0  # seconds between two writes for one workspace
LAZINESS = 300.0  # seconds that names without a Delegation may stay, so that they go together
REREAD = 900.0  # seconds after which a Role is looked at again, in case somebody else changed it
LONGEST_BACKOFF = 60.0
_WRITERS = 8  # of the client's 32 connections
_IDLE = 30.0  # seconds without a heartbeat
_NEVER = float("inf")
_VERBS = ["get", "watch", "patch", "delete"]


def grants_name(workspace: str) -> str:
    """Name of the Role and the RoleBinding. The colon keeps them apart from those of any workspace's identity."""
    return f"{account_name(workspace)}:delegations"


@dataclass
class _Account:
    """What one workspace is to be granted, and what it is. Times are of the monotonic clock."""

    workspace: ObjectMeta
    wished: frozenset[str] = frozenset()
    known: dict[str, None] = field(default_factory=dict)  # granted or wished, oldest first
    granted: frozenset[str] | None = None  # None: unknown, read it first
    role: Object | None = None  # as last read or written
    bound: bool = False
    read: float = 0.0
    not_before: float = 0.0
    surplus_since: float = 0.0
    failures: int = 0
    complaint: str = ""
    busy: bool = False  # a task is settling it

    def wish(self, names: frozenset[str], now: float) -> bool:
        """Take a new wish; True when there may be something to do."""
        if self.granted is not None and now - self.read > REREAD:
            self.granted = None
        if names == self.wished:
            return self.granted is None
        if not self._surplus():
            self.surplus_since = now
        self.wished = names
        return True

    def target(self) -> list[str]:
        """The names to grant, oldest first: in the order of the Role once it was read, and newer ones after them."""
        self.known.update(dict.fromkeys(sorted(self.wished - self.known.keys())))
        return [name for name in self.known if name in self.wished][-LIMIT:]

    def due(self) -> float:
        """When there is something to write or to read: at once for what is missing, later for what is too much."""
        if self.granted is None or not self.granted.issuperset(self.target()):
            return self.not_before
        return max(self.not_before, self.surplus_since + LAZINESS) if self._surplus() else _NEVER

    def made_so(self, written: Object | None) -> None:
        """The Role as the API server has it now."""
        names = _names(written)
        self.role, self.granted = written, frozenset(names)
        order = dict.fromkeys([name for name in names if name not in self.known]) | self.known
        self.known = {name: None for name in order if name in self.granted or name in self.wished}

    def _surplus(self) -> bool:
        return bool(self.granted and not self.granted <= self.wished)


class Grants:
    """Keeps these Roles; ``run`` is its loop."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._accounts: dict[str, _Account] = {}
        self._pending: dict[str, _Account] = {}
        self._news = asyncio.Event()
        self._writers = asyncio.Semaphore(_WRITERS)

    def wish(self, workspace: ObjectMeta, names: Iterable[str]) -> None:
        """A workspace may read exactly these Delegations. Returns at once; calling it again with the same is cheap.

        Names that do not begin with the workspace's own and a dot are left out (people's, who have rights of their
        own), and above :data:`LIMIT` all but the newest.
        """
        own = f"{workspace.name}."
        wished = frozenset(name for name in names if name.startswith(own))
        account = self._accounts.get(workspace.uid)
        if account is None:
            if not wished:
                return
            account = self._accounts[workspace.uid] = _Account(workspace)
        if account.wish(wished, time.monotonic()):
            self._pending[workspace.uid] = account
            self._news.set()

    def forget(self, uid: str) -> None:
        """The workspace is gone, and its Role with it."""
        self._accounts.pop(uid, None)
        self._pending.pop(uid, None)

    async def run(self, beat: Heartbeat) -> None:
        """Make the wishes so, for ever; whatever the API server says is waited out."""
        async with asyncio.TaskGroup() as settling:
            while True:
                self._news.clear()
                for account in self._take_due():
                    settling.create_task(self._settle(account))
                beat.beat()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), self._pause())

    def _take_due(self) -> Iterator[_Account]:
        now = time.monotonic()
        for uid, account in list(self._pending.items()):
            if account.busy:
                continue
            due = account.due()
            if due <= now:
                account.busy = True
                yield account
            elif due == _NEVER:
                del self._pending[uid]

    def _pause(self) -> float:
        due = min((account.due() for account in self._pending.values() if not account.busy), default=_NEVER)
        return min(_IDLE, max(0.0, due - time.monotonic()))

    async def _settle(self, account: _Account) -> None:
        async with self._writers:
            try:
                await self._make_so(account)
            except OperatorError as error:
                self._failed(account, error)
            else:
                account.failures, account.complaint = 0, ""
                account.not_before = time.monotonic() + SPACING
        account.busy = False
        self._news.set()

    async def _make_so(self, account: _Account) -> None:
        if account.granted is None:
            await self._read(account)
        if account.due() <= time.monotonic():
            await self._write(account)
        if account.role is not None and not account.bound:
            await self._bind(account)

    async def _read(self, account: _Account) -> None:
        url = self._url(account, ROLES)
        try:
            found = await self._client.get(url)
        except NotFound:
            account.made_so(None)
        else:
            await adopt(self._client, account.workspace, url, found)
            account.made_so(found)
        account.read, account.bound = time.monotonic(), False

    async def _write(self, account: _Account) -> None:
        workspace, rules = account.workspace, _rules(account.target())
        name = grants_name(workspace.name)
        if account.role is None:
            written = await self._client.create(path(ROLES, workspace.namespace), role(workspace, name, rules))
        else:
            written = await self._client.update(self._url(account, ROLES), {**account.role, "rules": rules})
        account.made_so(written)

    async def _bind(self, account: _Account) -> None:
        workspace, url = account.workspace, self._url(account, BINDINGS)
        try:
            found = await self._client.get(url)
        except NotFound:
            body = binding(workspace, grants_name(workspace.name))
            await bind(self._client, workspace, path(BINDINGS, workspace.namespace), body)
        else:
            await adopt(self._client, workspace, url, found)
        account.bound = True

    def _failed(self, account: _Account, error: OperatorError) -> None:
        """Nobody knows what the Role is now: it is read before the next try."""
        account.granted = None
        account.not_before = time.monotonic() + min(LONGEST_BACKOFF, SPACING * 2**account.failures)
        account.failures += 1
        if str(error) != account.complaint:
            account.complaint = str(error)
            where = f"{account.workspace.namespace}/{account.workspace.name}"
            log.warning("what workspace %s may read of its Delegations is not up to date: %s", where, error)

    @staticmethod
    def _url(account: _Account, resource: str) -> str:
        return path(resource, account.workspace.namespace, grants_name(account.workspace.name))


def _rules(names: list[str]) -> list[Object]:
    """No rule at all for no names: a rule without resourceNames would be a right to all of them."""
    if not names:
        return []
    return [
        {"apiGroups": [meta.GROUP], "resources": [meta.DELEGATIONS], "resourceNames": names, "verbs": _VERBS},
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [answer_name(name) for name in names],
            "verbs": ["get"],
        },
    ]


def _names(written: Object | None) -> list[str]:
    """The names in a Role as we write it; none for any other."""
    rules = (written or {}).get("rules") or []
    names = list(rules[0].get("resourceNames", ())) if rules else []
    return names if rules == _rules(names) else []
