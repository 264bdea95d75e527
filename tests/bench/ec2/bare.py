"""The baseline for EC2: a bare boto3 program that makes the same calls, in threads, and does nothing else.

``life``: for each machine what the operator's verbs ask for: a look by tag before each of RunInstances,
StopInstances, ModifyInstanceAttribute with StartInstances, and TerminateInstances, with the operator's parameters.
``rush``: as many launches at once as the SDK's own adaptive retries let through.
"""

from __future__ import annotations

import argparse
import base64
import copy
import json
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.bench.ec2.stopwatch import Stopwatch
from tests.bench.operator_main import die_with_parent

_POLL = 0.1  # seconds between looks at a machine that changes; they are no part of a verb
_ATTEMPTS = 10  # of the SDK's adaptive mode


@dataclass(frozen=True)
class _Bare:
    """One program with one client."""

    client: Any
    stopwatch: Stopwatch
    asked: dict[str, Any]  # RunInstances' parameters, with the user data in base64
    uid_tag: str

    def life(self, _: int) -> None:
        """One machine from launch to termination."""
        uid = str(uuid.uuid4())
        with self.stopwatch.verb("provision", uid):
            self._look(uid)
            instance = self.launch(uid)
        self._reach(uid, "running")
        with self.stopwatch.verb("stop", uid):
            self._look(uid)
            self.client.stop_instances(InstanceIds=[instance])
        self._reach(uid, "stopped")
        with self.stopwatch.verb("provision", uid):
            self._look(uid)
            self.client.modify_instance_attribute(InstanceId=instance, UserData={"Value": self._user_data})
            self.client.start_instances(InstanceIds=[instance])
        self._reach(uid, "running")
        with self.stopwatch.verb("stop", uid):
            self._look(uid)
            self.client.terminate_instances(InstanceIds=[instance])

    def try_launch(self, _: int) -> bool:
        """Whether the SDK's retries were enough."""
        try:
            self.launch(str(uuid.uuid4()))
        except ClientError:
            return False
        return True

    def launch(self, uid: str) -> str:
        """The id of a new machine with this UID in its tags."""
        asked = copy.deepcopy(self.asked) | {"ClientToken": f"bare-{uid}", "UserData": self._user_data}
        for each in asked["TagSpecifications"]:
            each["Tags"] = [{**tag, "Value": uid} if tag["Key"] == self.uid_tag else tag for tag in each["Tags"]]
        return str(self.client.run_instances(**asked)["Instances"][0]["InstanceId"])

    @property
    def _user_data(self) -> bytes:
        return base64.b64decode(self.asked["UserData"])

    def _look(self, uid: str) -> str:
        filters = [{"Name": f"tag:{self.uid_tag}", "Values": [uid]}]
        found = self.client.describe_instances(Filters=filters, MaxResults=1000)["Reservations"]
        return str(found[0]["Instances"][0]["State"]["Name"]) if found else ""

    def _reach(self, uid: str, state: str) -> None:
        while self._look(uid) != state:
            time.sleep(_POLL)


def main() -> None:
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=Path, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--plan", type=Path, required=True, help="JSON: client, asked, uidTag")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("what", choices=("life", "rush"))
    arguments = parser.parse_args()
    plan = json.loads(arguments.plan.read_text())
    stopwatch = Stopwatch(arguments.stamps)
    patient = {"mode": "adaptive", "total_max_attempts": _ATTEMPTS}
    retries: Any = patient if arguments.what == "rush" else {"total_max_attempts": 1}
    options = Config(retries=retries, max_pool_connections=arguments.threads, read_timeout=30)
    client: Any = boto3.Session().client("ec2", config=options, **plan["client"])
    bare = _Bare(client, stopwatch, plan["asked"], plan["uidTag"])
    with ThreadPoolExecutor(arguments.threads) as pool:
        work = bare.life if arguments.what == "life" else bare.try_launch
        done = list(pool.map(work, range(arguments.number)))
    counts = {"failed": done.count(False)}
    part = arguments.counts.with_suffix(".part")
    part.write_text(json.dumps(counts))
    part.replace(arguments.counts)
    signal.pause()  # until the benchmark, which waits for the file, ends this process


if __name__ == "__main__":
    main()
