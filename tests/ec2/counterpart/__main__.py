"""The counterpart on its own, for the demo: prints its endpoint and what exists, and serves until interrupted."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import subprocess
import threading
from typing import Any

from .counterpart import Counterpart
from .faults import Faults, Rule
from .guests import Guest, Starter

EXAMPLES = """faults: NAME=VALUE, any field of Faults
  --fault describe_delay=5 --fault lost=RunInstances:every=2 --fault throttled=*:share=0.3
  --fault no_capacity=eu-central-1a,t3.micro --fault slow=Describe*:seconds=2
"""
NUMBERS = {"every": int, "times": int, "share": float, "seconds": float}


def rule(text: str) -> Rule:
    """``Actions:key=value:…`` as a rule."""
    actions, *options = text.split(":")
    pairs = (option.partition("=") for option in options)
    settings: dict[str, Any] = {key: NUMBERS.get(key, str)(value) for key, _, value in pairs}
    return Rule(actions, **settings)


def faults(texts: list[str]) -> Faults:
    made = Faults()
    kinds = {each.name: str(each.type) for each in dataclasses.fields(Faults)}
    for text in texts:
        name, _, value = text.partition("=")
        kind = kinds.get(name, "")
        if kind.startswith("Rule"):
            setattr(made, name, rule(value))
        elif kind.startswith("set"):
            setattr(made, name, set(value.split(",")))
        elif kind == "bool":
            setattr(made, name, value.lower() in ("1", "true", "yes", ""))
        elif kind.startswith(("int", "float")):
            setattr(made, name, int(value) if kind.startswith("int") else float(value))
        else:
            raise SystemExit(f"unknown fault {text!r}\n{EXAMPLES}")
    return made


def starter(command: str) -> Starter | None:
    """A shell command for each guest; it finds EC2_INSTANCE_ID, EC2_ADDRESS and EC2_USER_DATA in its environment."""

    def start(guest: Guest) -> subprocess.Popen[bytes]:
        names = {
            "EC2_INSTANCE_ID": guest.instance_id,
            "EC2_ADDRESS": guest.address,
            "EC2_USER_DATA": guest.user_data,
        }
        return subprocess.Popen(
            ["/usr/bin/env", *(f"{k}={v}" for k, v in names.items()), "sh", "-c", f"exec {command}"]
        )

    return start if command else None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.ec2.counterpart",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--region", default="eu-central-1")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--guest", default="", metavar="COMMAND", help="run this for each running instance")
    options = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    chosen = faults(options.fault)
    with Counterpart(chosen, region=options.region, port=options.port, guest=starter(options.guest)) as ec2:
        print(f"endpoint {ec2.endpoint}", flush=True)
        print(f"region   {ec2.region}\nimage    {ec2.image}", flush=True)
        for zone, subnet in ec2.subnets.items():
            print(f"subnet   {subnet} {zone}", flush=True)
        for line in (f"{k}={v}" for k, v in ec2.environment().items() if k.startswith("AWS_")):
            print(f"env      {line}", flush=True)
        done.wait()


if __name__ == "__main__":
    main()
