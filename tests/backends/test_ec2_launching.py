"""Never two instances of one workspace: lost answers, crashes, several subnets, listings that lag."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.backends import ec2_kit
from tests.backends.ec2_kit import Lab, eventually, reads, released, run, started
from tests.ec2.counterpart import Rule

from workspace_operator.api.ec2 import ApiRate, ApiRates
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.ec2 import connection, launching, ledger, shape
from workspace_operator.backends.ec2.ledger import Ledger
from workspace_operator.backends.ec2.shape import Place
from workspace_operator.backends.protocol import Instance, Progress, ProvisionRequest, Reading, StopRequest
from workspace_operator.errors import BackendError, BackendUnreachable, BadRequest, OperatorError, QuotaExceeded

lab = ec2_kit.lab


async def insistently(lab: Lab, request: ProvisionRequest, **changes: object) -> Instance:
    """Provision as the operator does: an error is followed by asking again, here without its back-off."""
    driver = lab.drivers[-1] if lab.drivers and not changes else lab.driver(**changes)

    async def probe() -> Instance | None:
        try:
            answer = await driver.provision(request)
        except OperatorError:
            return None
        return answer if isinstance(answer, Instance) else None

    return await eventually(probe, "an instance")


def test_the_client_token_is_a_function_of_the_intent_and_the_place(lab: Lab) -> None:
    """I-06: and of nothing that changes from one ask to the next, such as the files."""
    ref, place = lab.ref(), Place("subnet-1", "a", "t3.small")
    token = shape.client_token(ref, 1, place)
    assert token == shape.client_token(ref, 1, place)
    assert len(token) <= 64
    assert token.isascii()
    others = [
        shape.client_token(lab.ref(), 1, place),
        shape.client_token(ref, 2, place),
        shape.client_token(ref, 1, Place("subnet-2", "a", "t3.small")),
        shape.client_token(ref, 1, Place("subnet-1", "a", "t3.large")),
    ]
    assert len({token, *others}) == 5


@pytest.mark.parametrize("fault", ["lost", "truncated", "error_after", "reset"])
async def test_a_lost_answer_is_asked_again_word_for_word(lab: Lab, fault: str) -> None:
    """I-06: within one verb; EC2 returns what the first request made."""
    setattr(lab.ec2.faults, fault, Rule("RunInstances", every=1, times=1))
    request = lab.request()
    made = await started(lab.driver(), request)
    assert [m.id for m in lab.alive(request.ref)] == [made.id]
    assert lab.ec2.count("RunInstances") == 2


async def test_an_answer_that_stays_lost_is_an_error_and_never_an_absence(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I-40, I-07: EC2 lists nothing yet, and the workspace is not absent; a finalizer would go."""
    monkeypatch.setattr(connection, "PATIENCE", 1.0)
    lab.ec2.faults.lost = Rule("RunInstances", every=1)
    lab.ec2.faults.describe_delay = 2.0
    driver, request = lab.driver(), lab.request()
    with pytest.raises(BackendUnreachable):
        await driver.provision(request)
    assert [i.reading for i in await driver.observe(request.ref)] == [Reading.STARTING]
    assert [i.reading for i in await driver.list_owned()] == [Reading.STARTING]
    lab.ec2.faults.lost = None
    with pytest.raises(BackendError, match="still alive"):
        await driver.provision(lab.request(request.ref, 2))
    await released(driver, request.ref)
    assert lab.alive(request.ref) == []
    assert len(lab.ec2.instances()) == 1


async def test_what_was_launched_is_listed_before_ec2_lists_it(lab: Lab) -> None:
    lab.ec2.faults.describe_delay = 1.0
    driver, request = lab.driver(), lab.request()
    made = await started(driver, request)
    (seen,) = await driver.observe(request.ref)
    assert (seen.id, seen.reading, seen.ref, seen.incarnation) == (made.id, Reading.STARTING, request.ref, 1)
    assert [i.id for i in await driver.list_owned()] == [made.id]
    again = await driver.provision(request)
    assert isinstance(again, Instance)
    assert lab.ec2.count("RunInstances") == 1
    await reads(driver, request.ref, Reading.RUNNING)


async def test_a_crash_after_the_create_is_adopted_though_the_new_token_differs(lab: Lab) -> None:
    """I-08, I-09: IdempotentParameterMismatch instead of a second instance, then the listing shows it."""
    lab.ec2.faults.describe_delay = 1.5
    request = lab.request(token="first")
    first = await started(lab.driver(), request)
    after = lab.driver()
    with pytest.raises(BackendUnreachable, match="adopted"):
        await after.provision(lab.request(request.ref, token="second"))
    assert [i.reading for i in await after.observe(request.ref)] == [Reading.STARTING], "or a finalizer would go"
    found = await insistently(lab, lab.request(request.ref, token="third"))
    assert found.id == first.id
    assert lab.most_alive() == 1


async def test_a_fresh_process_waits_before_it_trusts_an_empty_listing(lab: Lab) -> None:
    """Several subnets have several tokens, a later incarnation has another: the listing must guard, and it lags."""
    lab.ec2.faults.describe_delay = 300.0
    subnets = tuple(lab.ec2.subnets.values())
    request = lab.request()
    lab.ec2.faults.no_capacity = {subnets[0]}
    before = lab.driver(subnets=subnets, ledger=aged())
    first = await started(before, request)
    await before.close()
    lab.ec2.faults.no_capacity = set()  # the first subnet has room again: a second token would launch a second one
    after = lab.driver(subnets=subnets, consistency_window="5m")
    assert isinstance(await after.provision(lab.request(request.ref, token="other")), Progress)
    assert isinstance(await after.provision(lab.request(request.ref, 2)), Progress)
    lab.ec2.settle()
    found = await insistently(lab, lab.request(request.ref, token="other"))
    assert found.id == first.id
    assert lab.most_alive() == 1


async def test_a_fresh_process_does_not_take_unlisted_for_gone(lab: Lab) -> None:
    """On such a look a finalizer would go, with the machine or its disk left behind (I-10, I-13)."""
    lab.ec2.faults.describe_delay = lab.ec2.faults.volume_delay = 300.0
    request = lab.request(mount_path="/data")
    await started(lab.driver(), request)
    after = lab.driver(consistency_window="5m")
    with pytest.raises(BackendUnreachable, match=r"ec2\.consistencyWindow"):
        await after.observe(request.ref)
    assert await after.delete_data(request.ref) is False
    lab.ec2.settle()
    assert [i.incarnation for i in await after.observe(request.ref)] == [1]


async def test_the_look_after_a_refused_start_is_answered(lab: Lab) -> None:
    """A fresh process says what is wrong with the class, and not that it has just begun (I-81)."""
    driver, request = lab.driver(image="ami-00000000000000001", consistency_window="5m"), lab.request()
    with pytest.raises(BadRequest, match=r"ec2\.image"):
        await driver.provision(request)
    assert await driver.observe(request.ref) == ()
    with pytest.raises(BackendUnreachable):
        await driver.observe(request.ref)


async def test_a_machine_counts_as_running_once_it_is_listed(lab: Lab) -> None:
    """A repeated request may be answered with one that runs already; the next process has only listings (I-09)."""
    lab.ec2.faults.describe_delay, lab.ec2.faults.pending = 300.0, 0.0
    lab.ec2.faults.lost = Rule("RunInstances", times=1)
    driver, request = lab.driver(), lab.request()
    made = await started(driver, request)
    assert lab.ec2.instance(made.id).state == "running"
    assert (await driver.provision(request)).reading is Reading.STARTING  # type: ignore[union-attr]
    assert made.reading is Reading.STARTING
    lab.ec2.settle()
    await reads(driver, request.ref, Reading.RUNNING)


def aged() -> Ledger:
    """Of a process that has been running for a while."""
    made = Ledger()
    made.born -= 1000
    return made


async def test_subnets_are_tried_in_order_with_a_token_each(lab: Lab) -> None:
    """I-08: EC2 binds a token to its parameters even when it refuses for capacity (ubicloud #5898)."""
    subnets = tuple(lab.ec2.subnets.values())
    lab.ec2.faults.no_capacity = {subnets[0]}
    driver, request = lab.driver(subnets=subnets, ledger=aged()), lab.request()
    made = await started(driver, request)
    asked = [call.params for call in lab.ec2.calls if call.action == "RunInstances"]
    assert [params["NetworkInterface.1.SubnetId"] for params in asked] == [subnets[0], subnets[1]]
    assert len({params["ClientToken"] for params in asked}) == 2
    assert lab.ec2.instance(made.id).subnet == subnets[1]
    await started(driver, lab.request())
    assert lab.ec2.count("RunInstances") == 3, "a place without capacity is not tried first for a while"


async def test_no_capacity_anywhere_is_a_quota_failure_with_the_way_out(lab: Lab) -> None:
    lab.ec2.faults.no_capacity = {"t3.small"}
    driver = lab.driver(subnets=tuple(lab.ec2.subnets.values()), ledger=aged())
    with pytest.raises(QuotaExceeded, match=r"ec2\.subnets") as caught:
        await driver.provision(lab.request())
    assert caught.value.failure.reason == Reason.NO_CAPACITY


async def test_another_subnet_is_not_tried_while_an_answer_is_open(lab: Lab) -> None:
    """The lost request decides: only a refusal frees the way to another token."""
    subnets = tuple(lab.ec2.subnets.values())
    lab.ec2.faults.lost = Rule("RunInstances", every=1, times=3)
    lab.ec2.faults.describe_delay = 1.0
    made = await started(lab.driver(subnets=subnets, ledger=aged()), lab.request())
    asked = [call.params["ClientToken"] for call in lab.ec2.calls if call.action == "RunInstances"]
    assert len(asked) == 4
    assert len(set(asked)) == 1
    assert lab.ec2.instance(made.id).subnet == subnets[0]


async def test_a_second_incarnation_waits_for_the_end_of_the_first(lab: Lab) -> None:
    lab.ec2.faults.shutting_down = 0.3
    driver, request = lab.driver(ledger=aged()), lab.request()
    await run(driver, request)
    with pytest.raises(BackendError, match="Incarnation 1"):
        await driver.provision(lab.request(request.ref, 2))
    await driver.stop(StopRequest(request.ref, timedelta(0), release=True))
    with pytest.raises(BackendError, match="Incarnation 1"):
        await driver.provision(lab.request(request.ref, 2))
    await released(driver, request.ref)
    await run(driver, lab.request(request.ref, 2))
    assert lab.most_alive() == 1


async def test_a_terminated_instance_spends_its_incarnation(lab: Lab) -> None:
    """I-08: while EC2 lists it, and by IdempotentInstanceTerminated afterwards."""
    driver, request = lab.driver(), lab.request()
    made = await run(driver, request)
    lab.ec2.terminate(made.id)
    await eventually_absent(driver, request)
    with pytest.raises(BackendError) as caught:
        await driver.provision(request)
    assert caught.value.failure.reason == Reason.INCARNATION_SPENT
    lab.ec2.instance(made.id).gone = True
    with pytest.raises(BackendError) as caught:
        await lab.driver().provision(request)
    assert caught.value.failure.reason == Reason.INCARNATION_SPENT
    assert len(lab.ec2.instances()) == 1


async def eventually_absent(driver: object, request: ProvisionRequest) -> None:
    async def gone() -> bool:
        return not await driver.observe(request.ref)  # type: ignore[attr-defined]

    await eventually(gone, "absent")


async def test_a_start_goes_on_as_soon_as_there_is_capacity(lab: Lab) -> None:
    """The refusal has bound the token; this process knows that it made nothing and takes the next at once (I-08)."""
    driver, request = lab.driver(ledger=aged()), lab.request()
    lab.ec2.faults.no_capacity = {"t3.small"}
    with pytest.raises(QuotaExceeded):
        await driver.provision(request)
    lab.ec2.faults.no_capacity = set()
    with pytest.raises(BackendError) as caught:
        await driver.provision(lab.request(request.ref, token="another"))
    assert caught.value.failure.reason == Reason.INCARNATION_SPENT
    assert await driver.observe(request.ref) == ()
    await run(driver, lab.request(request.ref, 2, token="another"))
    assert len(lab.ec2.instances()) == 1


async def test_a_token_without_an_instance_is_given_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound by a refusal, with parameters of which nobody knows any more: no dead end (I-27)."""
    monkeypatch.setattr(launching, "UNKNOWN_FOR", 0.5)
    request = lab.request()
    lab.ec2.faults.no_capacity = {"t3.small"}
    with pytest.raises(QuotaExceeded):
        await lab.driver(consistency_window="0s").provision(request)
    lab.ec2.faults.no_capacity = set()
    after = lab.driver(consistency_window="0s")
    other = lab.request(request.ref, token="another")
    with pytest.raises(BackendUnreachable):
        await after.provision(other)
    await asyncio.sleep(0.6)
    with pytest.raises(BackendError) as caught:
        await after.provision(other)
    assert caught.value.failure.reason == Reason.INCARNATION_SPENT
    await run(after, lab.request(request.ref, 2))


async def test_a_doubtful_launch_is_forgotten_when_ec2_never_shows_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I-10: a launch that had no effect does not hold up a deletion for ever."""
    driver, request = lab.driver(ledger=aged()), lab.request()
    lab.ec2.faults.reset = lost = Rule("RunInstances", every=1)
    task = asyncio.create_task(driver.provision(request))

    async def asked() -> bool:
        return lost.hit > 0

    await eventually(asked, "a lost answer")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [i.reading for i in await driver.observe(request.ref)] == [Reading.STARTING]
    monkeypatch.setattr(ledger, "UNKNOWN_FOR", 0.5)  # not before, however slow this machine is
    await eventually_absent(driver, request)
    assert lab.ec2.instances() == []


async def test_provisions_of_one_workspace_go_one_after_the_other(lab: Lab) -> None:
    """I-21: and two operators by mistake still make one."""
    one, two, request = lab.driver(), lab.driver(), lab.request()
    answers = await asyncio.gather(*(d.provision(request) for d in (one, two, one, two)), return_exceptions=True)
    assert all(isinstance(a, Instance | BackendError) for a in answers), answers
    assert len(lab.alive(request.ref)) == 1


async def test_many_provisions_through_lost_answers_and_lagging_lists_make_one_each(lab: Lab) -> None:
    """The second thing that the issue must show, in small: at every moment at most one, and in the end one."""
    lab.ec2.faults.lost = Rule("RunInstances", every=2)
    lab.ec2.faults.describe_delay = 1.0
    driver = lab.driver(subnets=tuple(lab.ec2.subnets.values()), ledger=aged())
    requests = [lab.request() for _ in range(40)]
    await asyncio.gather(*(started(driver, request) for request in requests))

    async def all_run() -> bool:
        listed = await driver.list_owned()
        return len(listed) == 40 and all(i.reading is Reading.RUNNING for i in listed)

    await eventually(all_run, "40 running")
    assert (len(lab.ec2.instances()), lab.most_alive()) == (40, 1)


async def test_a_throttled_launch_is_progress_and_leaves_nothing_open(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing failed: it waits for its turn, so the workspace's back-off does not grow."""
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    lab.ec2.faults.throttled = Rule("RunInstances", every=1)
    slow = ApiRates(run=ApiRate(per_second=1, burst=1), change=ec2_kit.FAST.change, look=ec2_kit.FAST.look)
    driver, request = lab.driver(rates=slow, ledger=aged()), lab.request()
    answer = await driver.provision(request)
    assert isinstance(answer, Progress)
    assert answer.reason == Reason.START_QUEUED
    assert await driver.observe(request.ref) == ()
