"""Whether agents serve: Leases on our own clock, probes, and addresses that are never contacted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from tests.unit.kit import workspace

from workspace_operator.a2a.addresses import refused
from workspace_operator.api import meta
from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Probe
from workspace_operator.reconcile import serving
from workspace_operator.reconcile.serving import LeaseBook, Prober, report_on


class Monotonic:
    """Our own clock, under the test's control."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    clock = Monotonic()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def lease(
    renewed: str | None, state: str = "", message: str = "", tasks: str | None = None, holder: str = "w/1"
) -> dict[str, Any]:
    annotations = {meta.AGENT_STATE_ANNOTATION: state, meta.AGENT_MESSAGE_ANNOTATION: message}
    if tasks is not None:
        annotations[meta.ACTIVE_TASKS_ANNOTATION] = tasks
    metadata = {"namespace": "n", "name": "workspace-w", "annotations": annotations}
    return {"metadata": metadata, "spec": {"renewTime": renewed, "holderIdentity": holder} if renewed else {}}


def test_without_a_renewal_the_agent_is_waited_for(clock: Monotonic) -> None:
    book = LeaseBook()
    assert book.serving(workspace()).reason is Reason.WAITING_FOR_AGENT
    book.put(lease(None))
    assert not book.serving(workspace()).answers


def test_silence_expires_by_our_own_clock_whatever_the_agent_writes(clock: Monotonic) -> None:
    """I-41: expired is a reason to show, and nothing else follows from it."""
    book = LeaseBook()
    book.put(lease("2099-01-01T00:00:00Z"))
    clock.now += 179
    assert book.serving(workspace()).answers
    clock.now += 2
    assert book.serving(workspace()).reason is Reason.LEASE_EXPIRED


def test_the_same_renewal_seen_again_is_no_sign_of_life(clock: Monotonic) -> None:
    book = LeaseBook()
    assert book.put(lease("2030-01-01T00:00:00Z"))
    clock.now += 200
    assert not book.put(lease("2030-01-01T00:00:00Z"))
    assert not book.serving(workspace()).answers


def test_an_agent_that_comes_back_wakes_a_pass(clock: Monotonic) -> None:
    book = LeaseBook()
    book.put(lease("1"))
    clock.now += 30
    assert not book.put(lease("2")), "an ordinary renewal costs no pass"
    clock.now += 200
    assert book.put(lease("3"))


@pytest.mark.parametrize(
    ("state", "answers", "reason"),
    [
        ("", True, Reason.SERVING),
        ("Busy", True, Reason.AGENT_BUSY),
        ("Starting", False, Reason.WAITING_FOR_AGENT),
        ("Wedged", False, Reason.AGENT_WEDGED),
    ],
)
def test_what_the_agent_says_of_itself_is_shown(clock: Monotonic, state: str, answers: bool, reason: Reason) -> None:
    """I-42: it renews its Lease and is wedged all the same."""
    book = LeaseBook()
    assert book.put(lease("1", state, "The loop hangs."))
    shown = book.serving(workspace())
    assert (shown.answers, shown.reason) == (answers, reason)
    assert not state or shown.message == "The loop hangs."


def test_a_wiped_renewal_is_not_the_new_instances(clock: Monotonic) -> None:
    book = LeaseBook()
    book.put(lease("1"))
    assert book.put(lease(None))
    assert not book.serving(workspace()).answers
    assert book.expires_in(workspace()) is None


# -- tasks that the agent reports --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tasks", "at_work"),
    [
        ("0", 0, False),
        ("1", 1, True),
        ("17", 17, True),
        (None, None, None),
        ("", None, None),
        ("-1", None, None),
        ("1.5", None, None),
        ("none", None, None),
        ("\u0661", None, None),
        ("9" * 5000, None, None),
    ],
)
def test_a_number_of_tasks_that_makes_no_sense_is_unknown_and_not_none(
    text: str | None, tasks: int | None, at_work: bool | None
) -> None:
    """I-22."""
    report = report_on(lease("1", tasks=text))
    assert report is not None
    assert (report.tasks, report.at_work) == (tasks, at_work)


def test_only_the_first_task_and_the_end_of_the_last_wake_a_pass(clock: Monotonic) -> None:
    book = LeaseBook()
    woken = []
    for mark, tasks in enumerate(("0", "0", "1", "2", "1", "0", "0", None, "0")):
        clock.now += 10
        woken.append(book.put(lease(str(mark), tasks=tasks)))
    assert woken == [True, False, True, False, False, True, False, True, True]


def test_when_the_agent_last_had_a_task_and_since_when_that_is_known(clock: Monotonic) -> None:
    """I-22: time in which nobody was told is not time without a task."""
    book = LeaseBook()

    def told(tasks: str | None, holder: str = "w/1", after: float = 10) -> tuple[float | None, float | None]:
        clock.now += after
        book.put(lease(str(clock.now), tasks=tasks, holder=holder))
        renewal = book.renewal(workspace())
        assert renewal is not None
        return renewal.counted_since, renewal.worked_at

    assert told("0") == (1010, None), "what it did before is not known"
    assert told("2") == (1010, 1020)
    assert told("0") == (1010, 1030), "it had one until now"
    assert told("0") == (1010, 1030)
    assert told(None) == (None, 1030)
    assert told("0") == (1060, 1030)
    assert told("0", after=serving.LEASE_EXPIRY + 1) == (1241, None), "after a silence"
    assert told("0", holder="w/2") == (1251, None), "another instance"


def test_a_silent_agent_and_a_previous_incarnation_tell_nothing_of_tasks(clock: Monotonic) -> None:
    """I-22."""
    book = LeaseBook()
    assert book.renewal(workspace()) is None
    book.put(lease("1", tasks="0"))
    successor = workspace().model_copy(update={"status": workspace().status.model_copy(update={"incarnation": 2})})
    assert book.renewal(workspace()) is not None and book.renewal(successor) is None
    clock.now += serving.LEASE_EXPIRY + 1
    assert book.renewal(workspace()) is None


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254:80",
        "169.254.170.2:80",
        "[fe80::1]:80",
        "[fd00:ec2::254]:80",
        "0.0.0.0:80",
        "[::]:80",
        "224.0.0.1:80",
        "[::ffff:169.254.169.254]:80",
        "metadata.google.internal:80",
        "",
    ],
)
def test_metadata_and_link_local_addresses_are_refused(address: str) -> None:
    """I-56."""
    assert refused(address) is not None


@pytest.mark.parametrize("address", ["127.0.0.1:80", "10.0.0.1:8080", "[::1]:80"])
def test_ordinary_addresses_are_contacted(address: str) -> None:
    assert refused(address) is None


# -- probes ------------------------------------------------------------------------------------------------------------


class Agent:
    """An agent that answers as told."""

    def __init__(self) -> None:
        self.status, self.headers, self.asked = 200, {}, 0  # type: ignore[var-annotated]
        self.address = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status, headers=self.headers)


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    agent = Agent()
    app = web.Application()
    app.router.add_get("/{path:.*}", agent.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    agent.address = f"127.0.0.1:{runner.addresses[0][1]}"
    yield agent
    await runner.cleanup()


@pytest.fixture
async def prober(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Prober]:
    for name, value in (("_STEADY", 0.02), ("_FAILING", 0.02), ("_FIRST", 0.02), ("_STARTING_MAX", 0.02)):
        monkeypatch.setattr(serving, name, value)
    woken: list[str] = []
    prober = Prober(woken.append)
    prober.woken = woken  # type: ignore[attr-defined]
    yield prober
    await prober.close()
    await asyncio.sleep(0)


async def asked(agent: Agent, times: int) -> None:
    goal = agent.asked + times
    async with asyncio.timeout(5):
        while agent.asked < goal:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.015)


@pytest.mark.parametrize("probe", [Probe.AGENT_CARD, Probe.TCP])
async def test_the_first_question_is_answered_at_once(prober: Prober, agent: Agent, probe: Probe) -> None:
    assert (await prober.serving("u", "n/w", agent.address, probe)).answers


async def test_one_failed_probe_says_nothing_and_three_in_a_row_do(
    prober: Prober, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I-41: a hiccup is not an outage."""
    monkeypatch.setattr(serving, "_FAILING", 0.1)
    await prober.serving("u", "n/w", agent.address, Probe.AGENT_CARD)
    agent.status = 503
    await asked(agent, 1)
    assert (await prober.serving("u", "n/w", agent.address, Probe.AGENT_CARD)).answers
    await asked(agent, 2)
    shown = await prober.serving("u", "n/w", agent.address, Probe.AGENT_CARD)
    assert (shown.answers, shown.reason) == (False, Reason.AGENT_NOT_ANSWERING)
    assert "503" in shown.message
    assert prober.woken == ["n/w"]  # type: ignore[attr-defined]
    agent.status = 200
    await asked(agent, 1)
    assert (await prober.serving("u", "n/w", agent.address, Probe.AGENT_CARD)).answers


async def test_redirects_are_not_followed(prober: Prober, agent: Agent) -> None:
    """I-56: an agent cannot send the operator elsewhere."""
    agent.status, agent.headers = 302, {"Location": f"http://{agent.address}/elsewhere"}
    shown = await prober.serving("u", "n/w", agent.address, Probe.AGENT_CARD)
    assert (shown.answers, agent.asked) == (False, 1)
    assert "302" in shown.message


async def test_an_agent_that_never_answers_is_given_up_on_in_time(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I-45."""
    monkeypatch.setattr(serving, "PROBE_TIMEOUT", 0.05)
    closed = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closed.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(2):
        shown = await prober.serving("u", "n/w", address, Probe.AGENT_CARD)
    assert not shown.answers
    prober.forget("u")
    closed.set()
    server.close()


async def test_a_closed_port_and_a_missing_address_are_told_apart(prober: Prober) -> None:
    shown = await prober.serving("u", "n/w", "127.0.0.1:1", Probe.TCP)
    assert "does not accept connections" in shown.message
    assert "no published address" in (await prober.serving("v", "n/v", None, Probe.TCP)).message


async def test_a_refused_address_is_never_contacted(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-56."""
    contacted: list[object] = []

    async def ask(tracked: object) -> None:
        contacted.append(tracked)

    monkeypatch.setattr(prober, "_ask", ask)
    shown = await prober.serving("u", "n/w", "169.254.169.254:80", Probe.AGENT_CARD)
    assert not shown.answers and not contacted
