"""Runs inside the machine, as root, at every boot: starts the workspace's container and keeps its identity files fresh.

The user data carries this file; it uses the standard library only, and nothing of it runs in the operator. The one
document it works from is the ``write_files`` entry ``DOCUMENT`` of the newest user data, which it reads from the
metadata service itself, because cloud-init reads it only once per instance and a resumed workspace has new files.

``boot.py run`` is workspace.service; ``boot.py refresh`` runs once a minute and after a hibernation.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

DOCUMENT = "/run/workspace-operator/workspace.json"
STATE = Path(os.environ.get("BOOT_STATE", "/run/workspace-operator"))
IDENTITY = STATE / "identity"
DATA = Path(os.environ.get("BOOT_DATA", "/mnt/workspace-data"))
CONSOLE = os.environ.get("BOOT_CONSOLE", "/dev/console")
METADATA = os.environ.get("BOOT_METADATA", "http://169.254.169.254")
OUTPUT = "workspace| "  # before each line of the workload on the console
ENDED = "workspace-operator: the workload ended with status "
MOUNT = "/var/run/secrets/workspace-operator.dev"
MODEL = "Amazon Elastic Block Store"
WAIT_FOR_DISK = 600.0


def say(text: str) -> None:
    """One line on the serial console, where the operator reads it."""
    with open(CONSOLE, "a", errors="replace") as console:  # noqa: PTH123
        console.write(text.rstrip("\n") + "\n")


def newest_user_data() -> bytes:
    """IMDSv2: a session token first, then the data."""
    ask = urllib.request.Request(f"{METADATA}/latest/api/token", method="PUT")  # noqa: S310
    ask.add_header("X-aws-ec2-metadata-token-ttl-seconds", "60")
    with urllib.request.urlopen(ask, timeout=5) as answer:  # noqa: S310
        session = answer.read().decode()
    get = urllib.request.Request(f"{METADATA}/latest/user-data")  # noqa: S310
    get.add_header("X-aws-ec2-metadata-token", session)
    with urllib.request.urlopen(get, timeout=5) as answer:  # noqa: S310
        found: bytes = answer.read()
    return found


def read(user_data: bytes) -> dict:  # type: ignore[type-arg]
    """The document inside the user data: '#cloud-config' and JSON, perhaps compressed."""
    if user_data[:2] == b"\x1f\x8b":
        user_data = gzip.decompress(user_data)
    config = json.loads(user_data.partition(b"\n")[2])
    entry = next(each for each in config["write_files"] if each["path"] == DOCUMENT)
    document: dict = json.loads(entry["content"])  # type: ignore[type-arg]
    return document


def put(files: dict[str, str]) -> None:
    """Replace the identity files, each atomically; readable inside the container, hidden on the machine by STATE."""
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    IDENTITY.mkdir(mode=0o755, exist_ok=True)
    for name, content in files.items():
        new = IDENTITY / f".{name}.new"
        new.write_bytes(base64.b64decode(content))
        new.chmod(0o444)
        new.replace(IDENTITY / name)


def data_disk() -> Path:
    """The attached EBS volume that is not the root disk; it may come seconds after the boot."""
    root = subprocess.run(["findmnt", "-no", "SOURCE", "/"], capture_output=True, text=True, check=True).stdout.strip()
    deadline = time.monotonic() + WAIT_FOR_DISK
    while time.monotonic() < deadline:
        for device in (Path("/dev/sdf"), Path("/dev/xvdf"), *_blank_looking(root)):
            if device.exists():
                return device
        time.sleep(0.5)
    raise SystemExit("workspace-operator: the data volume did not come")


def _blank_looking(root: str) -> list[Path]:
    """NVMe disks of EBS without partitions: Nitro machines name disks in the order in which they come."""
    blocks = [block for block in sorted(Path("/sys/block").glob("nvme*n1")) if not any(block.glob(f"{block.name}p*"))]
    models = {block: (block / "device" / "model").read_text().strip() for block in blocks}
    found = [Path("/dev") / block.name for block in blocks if models[block] == MODEL]
    return [device for device in found if not root.startswith(str(device))]


def mount_data() -> None:
    """Mount the data volume; a blank one gets a file system first, one with any signature never."""
    if os.path.ismount(DATA):
        return
    device = str(data_disk())
    known = subprocess.run(["blkid", "-p", device], capture_output=True, check=False).returncode
    if known == 2:  # nothing recognised at all
        subprocess.run(["mkfs.ext4", "-q", "-L", "workspace", device], check=True)
    DATA.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", device, str(DATA)], check=True)
    (DATA / "volume").mkdir(exist_ok=True)


def command(document: dict) -> list[str]:  # type: ignore[type-arg]
    """The engine's command line. Values of variables stay out of it: anyone on the machine can read arguments."""
    words = [document["engine"], "run", "--rm", "--name", "workspace", "--init", "--cap-drop", "ALL"]
    words += ["--security-opt", "no-new-privileges", "--pids-limit", "4096"]
    words += ["--stop-timeout", str(document["grace"])]
    for option in ("cpus", "memory"):
        if document[option] is not None:
            words += [f"--{option}", str(document[option])]
    for name in sorted(document["environment"]):
        words += ["--env", name]
    if document["files"]:
        words += ["--volume", f"{IDENTITY}:{MOUNT}:ro"]
    if document["port"] is not None:
        words += ["--publish", f"{document['port']}:{document['port']}"]
    if document["mountPath"] is not None:
        # A named volume, not a bind: the engine then gives it the owner that the image's directory has.
        bind = f"type=volume,source=workspace-data,target={document['mountPath']},volume-driver=local"
        options = f"volume-opt=type=none,volume-opt=o=bind,volume-opt=device={DATA}/volume"
        words += ["--mount", f"{bind},{options}"]
    command, args = document["command"], list(document["args"] or ())
    if command:
        words += ["--entrypoint", command[0]]
        args = [*command[1:], *args]
    return [*words, document["image"], *args]


def run() -> int:
    """Run the workload to its end; its output and its status go to the console."""
    document = read(_with_patience())
    shutil.rmtree(IDENTITY, ignore_errors=True)
    put(document["files"])
    if document["mountPath"] is not None and "BOOT_NO_DISK" not in os.environ:
        mount_data()
    subprocess.run([document["engine"], "rm", "--force", "workspace"], capture_output=True, check=False)
    environment = {**os.environ, **document["environment"]}
    process = subprocess.Popen(
        command(document),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    # The engine's client hands the signal on to the workload, and kills nothing: systemd's time-out does.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    assert process.stdout is not None
    for line in process.stdout:
        say(OUTPUT + line)
    status = process.wait()
    say(f"{ENDED}{status if status >= 0 else 128 - status}")
    return status


def refresh() -> int:
    """Write the newest files beside a running workload."""
    put(read(newest_user_data())["files"])
    return 0


def _with_patience() -> bytes:
    for _ in range(60):
        try:
            return newest_user_data()
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    return newest_user_data()


if __name__ == "__main__":
    sys.exit(refresh() if sys.argv[1:] == ["refresh"] else run())
