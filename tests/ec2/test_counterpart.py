"""The counterpart as a whole: the console, guests, a hundred launches under the issue's faults, and standing alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.config import Config
from tests.ec2.counterpart import Counterpart, Faults, Guest, Rule
from tests.ec2.counterpart.__main__ import faults
from tests.ec2.counterpart.session import isolated
from tests.ec2.kit import described, launch, reach, request, running, tagged, until

ROOT = Path(__file__).resolve().parents[2]
GUEST = "import time, sys; print(sys.argv[1], flush=True); time.sleep(600)"


def test_half_of_the_answers_lost_and_describe_late_still_one_each(ec2: Counterpart) -> None:
    """I-06, and the shape of the issue's second proof: tokens, retries, and the oracle over the whole history."""
    ec2.faults.lost, ec2.faults.describe_delay = Rule("RunInstances", every=2), 5.0
    client = ec2.client("ec2", retries={"total_max_attempts": 10, "mode": "standard"}, max_pool_connections=10)

    def one(uid: int) -> None:
        asked = request(ec2, ClientToken=f"ws-{uid}-1", TagSpecifications=tagged("instance", uid=str(uid)))
        client.run_instances(**asked)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(one, range(40)))
    assert len(ec2.alive()) == 40
    assert set(ec2.max_alive_per("uid").values()) == {1}
    assert ec2.count("RunInstances", "ok, lost") >= 20


def test_reset_forgets_everything(ec2: Counterpart) -> None:
    launch(ec2, ClientToken="one")
    ec2.faults.lost = Rule()
    ec2.reset()
    for kept in (ec2.instances(), ec2.volumes(), ec2.calls, ec2.history, ec2.launches):
        assert not kept
    assert ec2.faults.lost is None
    launch(ec2, ClientToken="one", InstanceType="t3.small")


def test_the_environment_leads_a_process_here(ec2: Counterpart) -> None:
    code = "import boto3; print(boto3.client('ec2').describe_instances()['Reservations'])"
    made = subprocess.run([sys.executable, "-c", code], env=ec2.environment(), capture_output=True, text=True)
    assert (made.stdout.strip(), made.returncode) == ("[]", 0), made.stderr
    assert ec2.count("DescribeInstances") == 1


def test_faults_are_read_from_a_command_line() -> None:
    made = faults(["describe_delay=5", "lost=RunInstances:every=2:times=3", "no_capacity=a,b", "vcpu_limit=8"])
    assert (made.describe_delay, made.no_capacity, made.vcpu_limit) == (5.0, {"a", "b"}, 8)
    assert made.lost is not None
    assert (made.lost.actions, made.lost.every, made.lost.times) == ("RunInstances", 2, 3)
    with pytest.raises(SystemExit, match="unknown fault"):
        faults(["nonsense=1"])


def test_it_stands_alone() -> None:
    command = [sys.executable, "-m", "tests.ec2.counterpart", "--fault", "throttled=DescribeVolumes"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as alone:
        try:
            assert alone.stdout is not None
            endpoint = alone.stdout.readline().split()[1]
            client = isolated().client(
                "ec2",
                endpoint_url=endpoint,
                region_name="eu-central-1",
                aws_access_key_id="AKIDANYONE0000000000",
                aws_secret_access_key="any",
                config=Config(retries={"total_max_attempts": 1}),
            )
            assert client.describe_instances()["Reservations"] == []
            with pytest.raises(client.exceptions.ClientError, match="RequestLimitExceeded"):
                client.describe_volumes()
            client.close()
        finally:
            alone.send_signal(signal.SIGTERM)
            assert alone.wait(10) == 0


@pytest.fixture
def inhabited(ec2: Counterpart) -> Iterator[Counterpart]:
    """A counterpart whose machines run something."""

    def start(guest: Guest) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", GUEST, guest.user_data], stdout=subprocess.DEVNULL)

    ec2.reset(Faults(pending=0.1, stopping=0.1, shutting_down=0.1), guest=start)
    yield ec2
    ec2.reset()


def test_a_guest_lives_as_long_as_its_machine_runs(inhabited: Counterpart) -> None:
    ec2 = inhabited
    instance = running(ec2, UserData="hello")
    until(lambda: ec2.guest_process(instance) is not None)
    first = ec2.guest_process(instance)
    address = ec2.guest_address(instance)
    assert address.startswith("127.")
    assert described(ec2, instance)["PrivateIpAddress"] == address
    ec2.client("ec2").stop_instances(InstanceIds=[instance])
    reach(ec2, instance, "stopped")
    assert first.poll() is not None, "stopped means that nothing runs"
    ec2.client("ec2").start_instances(InstanceIds=[instance])
    until(lambda: ec2.guest_process(instance) is not None)
    second = ec2.guest_process(instance)
    assert ec2.guest_address(instance) == address
    ec2.client("ec2").terminate_instances(InstanceIds=[instance])
    reach(ec2, instance, "terminated")
    assert second.poll() is not None


def test_a_hibernated_guest_comes_back_with_its_memory(inhabited: Counterpart) -> None:
    ec2 = inhabited
    instance = running(ec2, HibernationOptions={"Configured": True})
    until(lambda: ec2.guest_process(instance) is not None)
    guest = ec2.guest_process(instance)
    ec2.client("ec2").stop_instances(InstanceIds=[instance], Hibernate=True)
    reach(ec2, instance, "stopped")
    until(lambda: _process_state(guest.pid) == "T")
    ec2.client("ec2").start_instances(InstanceIds=[instance])
    until(lambda: _process_state(guest.pid) in "SR")
    assert ec2.guest_process(instance) is guest
    ec2.terminate(instance)
    reach(ec2, instance, "terminated")
    assert guest.poll() is not None


def _process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_many_are_described_quickly(ec2: Counterpart) -> None:
    """moto takes thirteen seconds for a thousand; a bench of the operator must not measure that."""
    for _ in range(2):
        ec2.client("ec2").run_instances(**request(ec2, MinCount=100, MaxCount=100))
    started = time.monotonic()
    ec2.client("ec2").describe_instances()
    assert time.monotonic() - started < 2.0
