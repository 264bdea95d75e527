"""The first process in new namespaces (namespaces.py): makes the mounts, says so, and collects the dead until killed.

Called as: namespaces_init.py NAME SOURCE=TARGET...
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path


def main(name: str, *mounts: str) -> None:
    socket.sethostname(name)
    for mount in mounts:
        source, _, target = mount.partition("=")
        # With all below it: /run may have a mount in it already.
        subprocess.run(["mount", "--rbind", source, target], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")  # of these namespaces only
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects whoever is left to us
    Path("/run/ready").touch()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
