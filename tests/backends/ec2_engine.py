"""A container engine for the guests of the counterpart: runs the workload as a plain process of this machine.

Understands what ``boot.py`` says to docker. The image is ignored; the command must be given.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

VALUED = {"--name", "--cap-drop", "--security-opt", "--pids-limit", "--stop-timeout", "--env", "--volume", "--publish"}
VALUED |= {"--mount", "--entrypoint", "--cpus", "--memory"}


def main(words: list[str]) -> int:
    if words[0] != "run":
        return 0
    options: dict[str, list[str]] = {}
    rest = words[1:]
    while rest and rest[0].startswith("--"):
        name = rest.pop(0)
        options.setdefault(name, []).append(rest.pop(0) if name in VALUED else "")
    command = [*options.get("--entrypoint", []), *rest[1:]]
    names = {*options.get("--env", []), "PATH", "WORKSPACE_BIND_ADDRESS"}
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {"WORKSPACE_DATA": f"{os.environ['BOOT_DATA']}/volume"}
    environment |= {"WORKSPACE_IDENTITY": f"{os.environ['BOOT_STATE']}/identity"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)

    def end(*_: object) -> None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(float(options["--stop-timeout"][0]))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
