"""The Lease is the proof of life: renewed with the token of the moment, carrying the agent's own report."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from tests.agent.conftest import NewAgent
from tests.agent.fake_kube import LEASE_PATH, FakeKube

OFTEN = {"AGENT_LEASE_INTERVAL": "0.2"}


async def test_a_renewal_says_who_lives_and_how_it_is(new_agent: NewAgent, kube: FakeKube) -> None:
    new_agent().start()

    renewal = kube.wait_for(lambda seen: seen.state == "Ready")

    assert renewal.path == LEASE_PATH
    assert renewal.authorization == "Bearer first-token"
    assert renewal.content_type == "application/merge-patch+json"
    assert set(renewal.body) == {"metadata", "spec"}
    assert renewal.body["spec"].pop("holderIdentity") == "researcher/7"
    assert renewal.body["spec"].pop("leaseDurationSeconds") == 30
    moment = renewal.body["spec"].pop("renewTime")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", moment)
    assert not renewal.body["spec"]
    annotations = renewal.body["metadata"]["annotations"]
    assert annotations["workspace-operator.dev/active-tasks"] == "0"
    assert 0 < len(annotations["workspace-operator.dev/agent-message"]) <= 256


async def test_the_lease_is_renewed_again_and_again(new_agent: NewAgent, kube: FakeKube) -> None:
    new_agent(**OFTEN).start()

    kube.wait_for(lambda seen: True, after=5)


async def test_a_new_token_is_used_from_the_next_renewal_on(new_agent: NewAgent, kube: FakeKube) -> None:
    agent = new_agent(**OFTEN).start()
    kube.wait_for(lambda seen: seen.authorization == "Bearer first-token")

    kube.give_identity("second-token")
    kube.accepted = "second-token"

    kube.wait_for(lambda seen: seen.authorization == "Bearer second-token")
    assert agent.terminate() == 0
    assert "first-token" not in agent.output
    assert "second-token" not in agent.output


async def test_a_revoked_token_does_not_stop_the_agent(new_agent: NewAgent, kube: FakeKube) -> None:
    agent = new_agent(**OFTEN).start()
    kube.wait_for(lambda seen: seen.state == "Ready")

    kube.accepted = "some-other-token"
    await _until(lambda: kube.refusals >= 3)

    assert await agent.ask("hello") == "researcher: hello"
    assert "the Kubernetes API answered 401" in agent.output
    assert agent.output.count("is not renewed") == 1, "a lasting trouble is told once"
    before = len(kube.renewals)
    kube.accepted = "first-token"
    kube.wait_for(lambda seen: True, after=before)
    await _until(lambda: "is renewed again" in agent.output)
    assert "first-token" not in agent.output


async def test_a_token_that_breaks_the_header_is_not_quoted(new_agent: NewAgent, kube: FakeKube) -> None:
    kube.give_identity("sec\nret-\x00token")
    agent = new_agent(**OFTEN).start()

    await _until(lambda: "is not renewed" in agent.output)

    assert "ret-" not in agent.output
    assert await agent.ask("hello") == "researcher: hello"


async def test_an_api_that_is_away_is_tried_until_it_is_back(new_agent: NewAgent, kube: FakeKube) -> None:
    (server := kube._identity / "server").write_text("http://127.0.0.1:1")
    agent = new_agent(**OFTEN).start()
    await _until(lambda: "is not renewed: ConnectError" in agent.output)

    kube.give_identity("first-token")

    assert server.read_text() != "http://127.0.0.1:1"
    kube.wait_for(lambda seen: seen.state == "Ready")


async def test_without_an_identity_nothing_is_renewed_or_complained_of(new_agent: NewAgent) -> None:
    agent = new_agent(**OFTEN).start()
    await agent.ask("hello")

    assert agent.terminate() == 0
    assert "Lease" not in agent.output


async def test_a_slow_start_is_reported_as_starting(new_agent: NewAgent, kube: FakeKube) -> None:
    agent = new_agent(AGENT_FAULTS="start-delay=1").spawn()

    assert kube.wait_for(lambda seen: True).state == "Starting"
    assert not agent.listening()
    kube.wait_for(lambda seen: seen.state == "Ready")
    assert agent.listening()


async def test_a_change_of_state_is_reported_at_once(new_agent: NewAgent, kube: FakeKube) -> None:
    agent = new_agent().start()
    kube.wait_for(lambda seen: seen.state == "Ready")

    for mode, state in (("busy", "Busy"), ("wedged", "Wedged"), ("none", "Ready")):
        before = len(kube.renewals)
        await agent.fault(mode)
        kube.wait_for(lambda seen, state=state: seen.state == state, after=before, within=0.9)  # type: ignore[misc]


async def test_a_task_in_work_is_counted(new_agent: NewAgent, kube: FakeKube) -> None:
    agent = new_agent(AGENT_FAULTS="slow=3").start()
    answering = asyncio.create_task(agent.ask("hello"))

    await _until(lambda: any(seen.active_tasks == "1" for seen in kube.renewals), within=3)

    before = len(kube.renewals)
    await answering
    await _until(lambda: any(seen.active_tasks == "0" for seen in kube.renewals[before:]), within=3)


async def test_silent_stops_renewing_and_goes_on_serving(new_agent: NewAgent, kube: FakeKube) -> None:
    agent = new_agent(**OFTEN).start()
    kube.wait_for(lambda seen: seen.state == "Ready")
    await agent.fault("silent")
    await asyncio.sleep(0.3)
    before = len(kube.renewals)

    await asyncio.sleep(0.8)

    assert len(kube.renewals) == before
    assert await agent.ask("hello") == "researcher: hello"
    await agent.fault("none")
    kube.wait_for(lambda seen: True, after=before)


async def test_a_certificate_authority_is_required_where_one_is_given(
    new_agent: NewAgent, kube: FakeKube, tmp_path: Path
) -> None:
    (tmp_path / "identity/ca.crt").write_text("not a certificate")
    agent = new_agent(**OFTEN).start()

    await _until(lambda: "is not renewed" in agent.output)

    assert not kube.renewals
    assert await agent.ask("hello") == "researcher: hello"


async def _until(what: object, within: float = 10) -> None:
    assert callable(what)
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)
