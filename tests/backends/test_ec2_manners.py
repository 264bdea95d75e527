"""Manners: few calls, in turn, in time; and pages read to their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from tests.backends import ec2_kit
from tests.backends.ec2_kit import Lab, eventually, halted, reads, run, started
from tests.ec2.counterpart import Bucket as TheirBucket
from tests.ec2.counterpart import Rule

from workspace_operator.api.ec2 import ApiRate, ApiRates
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.ec2 import buckets, connection
from workspace_operator.backends.ec2.batch import Batcher
from workspace_operator.backends.ec2.buckets import Bucket, Busy
from workspace_operator.backends.protocol import Reading, StopRequest
from workspace_operator.errors import BackendError, BackendUnreachable

lab = ec2_kit.lab
GRACE = timedelta(seconds=5)


# -- the token bucket --------------------------------------------------------------------------------------------------


async def test_a_bucket_gives_its_burst_at_once_and_then_one_turn_after_the_other() -> None:
    bucket = Bucket(ApiRate(per_second=20, burst=5))
    begun = time.monotonic()
    order: list[int] = []

    async def turn(number: int) -> None:
        await bucket.take(10)
        order.append(number)

    await asyncio.gather(*(turn(number) for number in range(15)))
    assert order == list(range(15))
    assert time.monotonic() - begun >= 0.45


async def test_a_turn_that_would_come_too_late_is_refused_at_once_and_costs_nothing() -> None:
    """I-45: the verb's deadline is known before waiting."""
    bucket = Bucket(ApiRate(per_second=1, burst=1))
    await bucket.take(0)
    for _ in range(3):
        with pytest.raises(Busy):
            await bucket.take(0.5)
    await bucket.take(1.5)


async def test_a_waiter_that_is_cancelled_gives_its_turn_back() -> None:
    bucket = Bucket(ApiRate(per_second=2, burst=1))
    await bucket.take(0)
    waiters = [asyncio.create_task(bucket.take(60)) for _ in range(20)]
    await asyncio.sleep(0)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    await bucket.take(1)


async def test_refusals_lower_the_rate_and_successes_bring_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(ApiRate(per_second=100, burst=100))
    bucket.slow_down()
    bucket.slow_down()
    assert bucket._rate == pytest.approx(70), "refusals of one moment are one signal"
    monkeypatch.setattr(buckets, "_ONE_SIGNAL", 0.0)
    for _ in range(100):
        bucket.slow_down()
    assert bucket._rate == pytest.approx(10)
    for _ in range(25):
        bucket.speed_up()
    assert bucket._rate == pytest.approx(100)


# -- the batcher -------------------------------------------------------------------------------------------------------


async def test_a_rate_that_recovers_lets_nobody_out_early() -> None:
    """Who waited at the lower rate and who comes at the higher one draw on the same tokens."""
    bucket, sent = Bucket(ApiRate(per_second=20, burst=1)), list[float]()

    async def call() -> None:
        await bucket.take(60)
        sent.append(time.monotonic())

    calls = [asyncio.create_task(call()) for _ in range(10)]
    await asyncio.sleep(0)
    bucket.slow_down()
    await asyncio.sleep(0.3)
    for _ in range(20):
        bucket.speed_up()
    calls += [asyncio.create_task(call()) for _ in range(10)]
    await asyncio.gather(*calls)
    for first in range(len(sent)):
        for last in range(first + 1, len(sent)):
            assert last - first <= 1 + 20 * (sent[last] - sent[first]) + 0.01


async def test_what_is_asked_while_calls_hang_goes_together() -> None:
    """A budget that is used up makes the calls larger, not the queue longer."""
    gate, sent = asyncio.Event(), list[list[int]]()

    async def send(keys: Sequence[int]) -> dict[int, int]:
        sent.append(list(keys))
        await gate.wait()
        return {key: key for key in keys}

    batcher = Batcher(send, window=0.001)
    asked = []
    for key in range(10):
        asked.append(asyncio.create_task(batcher.ask(key)))
        while len(sent) <= min(key, 3):
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert sent == [[0], [1], [2], [3]]
    gate.set()
    assert await asyncio.gather(*asked) == list(range(10))
    assert sent[4:] == [[4, 5, 6, 7, 8, 9]]


async def test_questions_of_one_moment_are_one_call_and_a_key_is_sent_once() -> None:
    sent: list[list[int]] = []

    async def send(keys: Sequence[int]) -> Mapping[int, int]:
        sent.append(list(keys))
        return {key: key * 10 for key in keys}

    batcher = Batcher(send, window=0.01)
    assert await asyncio.gather(*(batcher.ask(key) for key in (1, 2, 3, 2, 1))) == [10, 20, 30, 20, 10]
    assert sent == [[1, 2, 3]]
    assert await batcher.ask(1) == 10
    assert len(sent) == 2, "an answer is never older than its question"


async def test_a_batch_is_sent_when_it_is_full() -> None:
    sent: list[int] = []

    async def send(keys: Sequence[int]) -> Mapping[int, int]:
        sent.append(len(keys))
        return dict.fromkeys(keys, 0)

    batcher = Batcher(send, window=0.01, most=10)
    await asyncio.gather(*(batcher.ask(key) for key in range(25)))
    assert sent == [10, 10, 5]


async def test_one_bad_key_does_not_spoil_the_others() -> None:
    """EC2 refuses a call as a whole for one id that does not exist."""

    async def send(keys: Sequence[int]) -> Mapping[int, int]:
        if 13 in keys:
            raise BackendError(Reason.STOP_FAILED, "no such instance")
        return {key: key for key in keys}

    batcher = Batcher(send)
    answers = await asyncio.gather(*(batcher.ask(key) for key in (1, 13, 2)), return_exceptions=True)
    assert answers[0] == 1
    assert isinstance(answers[1], BackendError)
    assert answers[2] == 2


async def test_an_asker_that_goes_away_leaves_the_others_their_answer() -> None:
    async def send(keys: Sequence[int]) -> Mapping[int, int]:
        await asyncio.sleep(0.05)
        return {key: key for key in keys}

    batcher = Batcher(send)
    impatient, patient = (asyncio.create_task(batcher.ask(1)) for _ in range(2))
    await asyncio.sleep(0.02)
    impatient.cancel()
    assert await patient == 1


# -- towards EC2 -------------------------------------------------------------------------------------------------------


async def test_a_listing_costs_its_pages_and_reads_them_all(lab: Lab) -> None:
    """I-18; the price of observing is the number of pages, whatever the number of workspaces."""
    driver = lab.driver()
    await asyncio.gather(*(started(driver, lab.request()) for _ in range(12)))
    await asyncio.sleep(0.2)
    before = lab.ec2.count("DescribeInstances")
    assert len(await driver.list_owned()) == 12
    assert lab.ec2.count("DescribeInstances") - before == 1
    lab.ec2.faults.page_size = 5
    assert len(await lab.driver().list_owned()) == 12
    assert lab.ec2.count("DescribeInstances") - before == 4


async def test_a_page_that_fails_fails_the_listing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-40: a part is no listing."""
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    driver = lab.driver()
    await asyncio.gather(*(started(driver, lab.request()) for _ in range(6)))
    lab.ec2.faults.page_size = 5
    calls = lab.ec2.count("DescribeInstances")
    lab.ec2.faults.reset = Rule("DescribeInstances", every=1)
    lab.ec2.faults.reset.seen["DescribeInstances"] = 0

    class SecondPageOnly(Rule):
        def hits(self, action: str, dice: object) -> bool:
            return action == "DescribeInstances" and lab.ec2.count(action) - calls > 1

    lab.ec2.faults.reset = SecondPageOnly()
    with pytest.raises(BackendUnreachable):
        await driver.list_owned()


async def test_looks_starts_and_stops_of_one_moment_are_one_call_each(lab: Lab) -> None:
    driver = lab.driver()
    requests = [lab.request() for _ in range(8)]
    await asyncio.gather(*(run(driver, request) for request in requests))
    before = lab.ec2.counts()
    await asyncio.gather(*(driver.observe(request.ref) for request in requests))
    await asyncio.gather(*(driver.stop(StopRequest(request.ref, GRACE)) for request in requests))
    spent = lab.ec2.counts() - before
    assert (spent["DescribeInstances"], spent["StopInstances"]) == (2, 1)
    await asyncio.gather(*(reads(driver, request.ref, Reading.HALTED) for request in requests))
    await asyncio.gather(*(driver.provision(request) for request in requests))
    assert (lab.ec2.counts() - before)["StartInstances"] <= 3, "each is preceded by a call of its own"
    await asyncio.gather(*(driver.stop(StopRequest(request.ref, GRACE, release=True)) for request in requests))
    assert (lab.ec2.counts() - before)["TerminateInstances"] == 1


async def test_a_whole_life_costs_few_calls(lab: Lab) -> None:
    """Create, pause, resume, stop, delete, not counting the looks: each once."""
    lab.ec2.faults.pending = 0.5  # a disk is made long before a machine has booted
    driver = lab.driver()
    request = lab.request(mount_path="/data")
    await run(driver, request)
    await halted(driver, request.ref)
    await run(driver, request)
    await ec2_kit.released(driver, request.ref)
    assert await driver.delete_data(request.ref)
    counts = lab.ec2.counts()
    once = {
        "RunInstances",
        "CreateVolume",
        "AttachVolume",
        "StopInstances",
        "ModifyInstanceAttribute",
        "StartInstances",
        "TerminateInstances",
        "DeleteVolume",
    }
    assert {action: counts[action] for action in once} == dict.fromkeys(once, 1)
    assert counts["DescribeVolumes"] <= 3


async def test_throttling_slows_down_and_everything_gets_through(lab: Lab) -> None:
    """30 % refusals and a bucket of EC2's own: all run, each once."""
    lab.ec2.faults.throttled = Rule("*Instances", share=0.3)
    lab.ec2.faults.buckets = {"RunInstances": TheirBucket(10, 10)}
    rates = ApiRates(run=ApiRate(per_second=10, burst=5), change=ec2_kit.FAST.change, look=ec2_kit.FAST.look)
    driver = lab.driver(rates=rates)
    requests = [lab.request() for _ in range(15)]
    await asyncio.gather(*(started(driver, request) for request in requests))

    async def all_run() -> bool:
        try:
            listed = await driver.list_owned()
        except BackendUnreachable:
            return False
        return len(listed) == 15 and all(i.reading is Reading.RUNNING for i in listed)

    await eventually(all_run, "15 running", patience=40)
    assert len(lab.ec2.instances()) == 15
    assert lab.ec2.count("RunInstances") <= 15 * 3


async def test_no_hot_loop_against_an_endpoint_that_only_refuses(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 2.0)
    lab.ec2.faults.throttled = Rule("*", every=1)
    with pytest.raises(BackendUnreachable, match=r"ec2\.rates"):
        await lab.driver().list_owned()
    assert lab.ec2.count("DescribeInstances") < 30


async def test_every_call_has_a_deadline(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-45."""
    monkeypatch.setattr(connection, "PATIENCE", 1.0)
    lab.ec2.faults.slow = Rule("*", seconds=30)
    begun = time.monotonic()
    with pytest.raises(BackendUnreachable, match=r"ec2\.callTimeout"):
        await lab.driver(call_timeout="1s").list_owned()
    assert time.monotonic() - begun < 5


async def test_a_slow_answer_does_not_hold_up_the_loop(lab: Lab) -> None:
    lab.ec2.faults.slow = Rule("DescribeInstances", seconds=1)
    driver = lab.driver()
    look = asyncio.create_task(driver.list_owned())
    turns = 0
    while not look.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert turns > 20, "of 200 that a free loop has"
