"""python -m demo.standin_server: the local stand-in for AWS, as a process that serves until told to end.

moto's server behind the tests' fault proxy (tests/ec2/counterpart). Each running "machine" is a process here that runs
the operator's own boot program, as in the conformance suite (tests/backends/ec2_rig.py). The first line of output is
JSON with what a class needs; nothing in it is secret.
"""

from __future__ import annotations

import json
import os
import signal
import threading

from tests.backends.ec2_kit import security_group
from tests.backends.ec2_rig import Machines
from tests.ec2.counterpart.counterpart import ACCESS_KEY, SECRET_KEY

# moto knows no image of ECS; this parameter names one that it does know.
_IMAGE = "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
_ORPHAN_CHECK = 0.5  # seconds


def main() -> None:
    """Serve until SIGTERM, or until the parent has died, however it did: the machines must not outlive the demo."""
    parent, done = os.getppid(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    machines = Machines()
    try:
        ec2 = machines.ec2
        facts = {
            "endpoint": ec2.endpoint,
            "region": ec2.region,
            "image": _IMAGE,
            "subnets": list(ec2.subnets.values())[:2],
            "group": security_group(ec2),
            "accessKey": ACCESS_KEY,
            "secretKey": SECRET_KEY,
        }
        print(json.dumps(facts), flush=True)
        while os.getppid() == parent and not done.wait(_ORPHAN_CHECK):
            pass
    finally:
        machines.close()


if __name__ == "__main__":
    main()
