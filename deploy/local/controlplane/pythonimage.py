"""Builds images of our own Python programs from what is installed here: `make image`, `make operator-image`.

Nothing is pulled and no builder is needed: the running interpreter, the program's dependency closure and the
shared libraries of both go into one archive, which an engine or a node loads. Only what a recipe names is in it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath

import docker
import docker.errors
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from controlplane import images
from controlplane.processes import Say

HASH_LABEL = "workspace-operator.dev/content-hash"
# Part of the content hash: raise it when the way of building changes.
_VERSION = "3"

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
STDLIB = f"usr/local/lib/{PYTHON}"

# A set of files: path in the image → where it comes from.
Files = dict[str, Path]


@dataclass(frozen=True)
class Recipe:
    """One program's image."""

    tag: str
    # Both of the user and of its group; the image's processes run as it, and it owns `directories`.
    uid: int
    user: str
    # Requirements whose closure, as installed here, goes in.
    roots: tuple[str, ...]
    # The program's own package, which is run with `python -m`.
    package: Path
    directories: tuple[str, ...] = ()
    # Executables of this machine: path in the image → where it comes from.
    tools: Mapping[str, Path] = field(default_factory=dict)

    @property
    def site(self) -> str:
        """Where package and closure are in the image."""
        return f"opt/{self.user}"

    @property
    def texts(self) -> dict[str, str]:
        """Written into the image as they are."""
        return {
            "etc/passwd": f"root:x:0:0:root:/:/nologin\n{self.user}:x:{self.uid}:{self.uid}::/tmp:/nologin\n",
            "etc/group": f"root:x:0:\n{self.user}:x:{self.uid}:\n",
            "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        }

    @property
    def config(self) -> dict[str, object]:
        """OCI's image configuration."""
        variables = {
            "PATH": "/usr/local/bin:/bin",
            "PYTHONPATH": f"/{self.site}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
            "HOME": "/tmp",  # noqa: S108 (in the image)
        }
        return {
            "Env": [f"{name}={value}" for name, value in variables.items()],
            "User": f"{self.uid}:{self.uid}",
            "WorkingDir": "/tmp",  # noqa: S108 (in the image)
            "ExposedPorts": {"8080/tcp": {}},
            "Entrypoint": ["/usr/local/bin/python", "-m", self.package.name],
        }


UNUSED_STDLIB = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "turtle.py",
    "lib2to3",
    "ensurepip",
    "distutils",
    "msilib",
    "pydoc_data",
    "sqlite3",
    "curses",
    "dbm",
    "site-packages",
    "dist-packages",
    "__pycache__",
}
UNUSED_EXTENSIONS = re.compile(r"^(_?test|_tkinter|_ctypes_test|xx|_curses|readline|_sqlite3|_dbm|_gdbm|nis|ossaudio)")
UNUSED_SUFFIXES = frozenset({".pyi", ".pyc", ".pyx", ".pxd", ".a", ".c", ".h"})


def build(recipe: Recipe, client: docker.DockerClient, tag: str | None = None, say: Say = print) -> str:
    """Makes sure that the engine has the image under this tag, and returns the image's id."""
    started, tag = time.monotonic(), tag or recipe.tag
    files = collect(recipe)
    digest = content_hash(recipe, files)
    known = _known(client, tag, digest)
    if known is not None:
        say(f"{tag} is up to date ({time.monotonic() - started:.1f} s).")
        return known
    with tempfile.TemporaryDirectory(prefix="image-") as scratch:
        archive = Path(scratch) / "image.tar"
        _make(recipe, files, digest, archive, tag, say)
        with archive.open("rb") as content:
            (image,) = client.images.load(content)
    say(f"Built {tag}: {image.attrs['Size'] / 1e6:.0f} MB in {time.monotonic() - started:.1f} s.")
    return str(image.id)


def save(recipe: Recipe, archive: Path, tag: str | None = None, say: Say = print) -> None:
    """The same image as a file, as `docker save` would make it, for nodes that no engine builds for."""
    files = collect(recipe)
    _make(recipe, files, content_hash(recipe, files), archive, tag or recipe.tag, say)


def _make(recipe: Recipe, files: Files, digest: str, archive: Path, tag: str, say: Say) -> None:
    say(f"Building {tag} from {len(files)} local files; this takes some seconds.")
    with tempfile.TemporaryDirectory(prefix="image-") as scratch:
        layer = Path(scratch) / "layer.tar"
        _write(recipe, _stage(recipe, files, Path(scratch) / "rootfs"), layer)
        images.write(archive, tag, layer, {**recipe.config, "Labels": {HASH_LABEL: digest}})


def _known(client: docker.DockerClient, tag: str, digest: str) -> str | None:
    for image in client.images.list(filters={"label": f"{HASH_LABEL}={digest}"}):
        if tag not in image.tags:
            image.tag(tag)
        return str(image.id)
    return None


# What goes in


def collect(recipe: Recipe) -> Files:
    """Every file of the image that comes from this machine."""
    stdlib = Path(os.__file__).resolve().parent
    files: Files = {f"usr/local/bin/{PYTHON}": Path(sys._base_executable).resolve()}  # type: ignore[attr-defined]
    files |= {f"{STDLIB}/{path.relative_to(stdlib)}": path for path in _standard_library(stdlib)}
    files |= {f"{recipe.site}/{name}": path for name, path in _dependencies(recipe)}
    home = recipe.package.parent
    files |= {f"{recipe.site}/{path.relative_to(home)}": path for path in recipe.package.rglob("*.py")}
    files |= {name: path.resolve() for name, path in recipe.tools.items()}
    tools = list(recipe.tools.values())
    files |= _shared_libraries([*tools, *(path for path in files.values() if _is_binary(path))])
    return files


def _is_binary(path: Path) -> bool:
    return path.suffix == ".so" or ".so." in path.name or path.name == PYTHON


def _standard_library(stdlib: Path) -> Iterator[Path]:
    for directory, names, leaves in os.walk(stdlib):
        names[:] = [name for name in names if name not in UNUSED_STDLIB and not name.startswith("config-")]
        for leaf in leaves:
            path = Path(directory, leaf)
            unused = leaf in UNUSED_STDLIB or path.suffix in UNUSED_SUFFIXES or UNUSED_EXTENSIONS.match(leaf)
            # Distributions keep links into /etc here; one may point nowhere.
            if not unused and path.exists():
                yield path


def _dependencies(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """The installed files of the program's dependency closure, without scripts, stubs and most metadata."""
    for distribution in _closure(recipe.roots):
        for file in distribution.files or ():
            name = PurePosixPath(file)
            if ".." in name.parts or "__pycache__" in name.parts or name.suffix in UNUSED_SUFFIXES:
                continue
            if name.name.startswith("__editable__"):
                continue
            metadata_only = name.parts[0].endswith(".dist-info")
            # The version of a package and its entry points are asked for at run time; the rest is not.
            if metadata_only and name.name not in ("METADATA", "entry_points.txt"):
                continue
            yield str(name), Path(str(distribution.locate_file(file)))


def _closure(roots: tuple[str, ...]) -> list[metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(root) for root in roots]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        distribution = found.setdefault(name, _installed(name))
        for extra in requirement.extras | {""}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += _requirements(distribution, extra)
    return [found[name] for name in sorted(found)]


def _installed(name: str) -> metadata.Distribution:
    for distribution in metadata.distributions(name=name):
        # A source tree on the path may hold an .egg-info of that name, which lists the sources of some day.
        if distribution.read_text("RECORD") is not None:
            return distribution
    raise SystemExit(f"{name} is not installed here; run this with the project's .venv.")


def _requirements(distribution: metadata.Distribution, extra: str) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _shared_libraries(binaries: list[Path]) -> Files:
    """What the dynamic loader would load, and the loader itself.

    All of it goes beside libc, which is a place that the loader always searches, wherever it is here;
    libraries that wheels bring along are found relative to their users and stay where they are.
    """
    listing = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    missing = re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
    if missing:
        raise SystemExit(f"Shared libraries are missing on this machine: {', '.join(sorted(set(missing)))}.")
    resolved = dict(re.findall(r"^\s+(\S+) => (/\S+) \(", listing, re.MULTILINE))
    loaders = set(re.findall(r"^\s+(/\S+) \(", listing, re.MULTILINE))
    home = str(Path(resolved["libc.so.6"]).parent).lstrip("/")
    bundled = {path.resolve() for path in binaries}
    libraries = {f"{home}/{name}": Path(path) for name, path in resolved.items()}
    libraries |= {path.lstrip("/"): Path(path) for path in loaders}
    return {name: path for name, path in libraries.items() if path.resolve() not in bundled}


def content_hash(recipe: Recipe, files: Files) -> str:
    """Changes when any input or the recipe changes; no result need be compiled or stripped to know it."""
    total = hashlib.sha256(
        repr((_VERSION, recipe.config, recipe.texts, recipe.directories, shutil.which("strip"))).encode()
    )
    for name in sorted(files):
        with files[name].open("rb") as content:
            total.update(f"{name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


# How it becomes a tar


def _stage(recipe: Recipe, files: Files, root: Path) -> Path:
    for name, source in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        runs = name in recipe.tools or _is_binary(target) or target.name.startswith("ld-")
        target.chmod(0o755 if runs else 0o644)
    for name, text in recipe.texts.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    for alias in ("python", "python3"):
        (root / "usr/local/bin" / alias).symlink_to(PYTHON)
    for directory in ("tmp", *recipe.directories):
        (root / directory).mkdir(parents=True)
    site = root / recipe.site
    _strip(root, site)
    _compile(root, site)
    return root


def _strip(root: Path, site: Path) -> None:
    """Debug symbols are most of a self-built interpreter. Wheels are left alone: some do not survive this."""
    tool = shutil.which("strip")
    if tool is None:
        return
    inside = [path for path in root.rglob("*.so*") if not path.is_relative_to(site)]
    binaries = [path for path in inside if not path.name.startswith("ld-")]
    subprocess.run([tool, "--strip-unneeded", *map(str, binaries)], capture_output=True, check=False)


def _compile(root: Path, site: Path) -> None:
    """Byte code that is trusted as it is: checked against the sources' times it would be invalid in a tar
    whose times are all zero, and compiling at each start costs a second."""
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    # A fixed seed: the order of a set in byte code must not depend on the run.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    where = ["-s", str(root), "-p", "/", str(root / STDLIB), str(site)]
    subprocess.run([*command, *where], env=environment, capture_output=True, check=False)


def _write(recipe: Recipe, root: Path, archive: Path) -> None:
    """The same files give the same bytes: sorted, without times, owners by number."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            info = tar.gettarinfo(str(path), name)
            info.mtime, info.uname, info.gname = 0, "", ""
            info.uid = info.gid = recipe.uid if name in recipe.directories else 0
            if info.isdir():
                info.mode = 0o1777 if name == "tmp" else 0o755
            if info.isreg():
                with path.open("rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)


def main(recipe: Recipe) -> int:
    """The command line of a recipe's own module."""
    parser = argparse.ArgumentParser(description=f"Build {recipe.tag} from local files only.")
    parser.add_argument("--host", help="the engine's address, such as unix:///run/docker.sock")
    parser.add_argument("--tag", default=recipe.tag)
    parser.add_argument("--save", metavar="FILE", type=Path, help="write an archive for `controlplane load` instead")
    arguments = parser.parse_args()
    if arguments.save is not None:
        save(recipe, arguments.save, arguments.tag)
        return 0
    try:
        client = docker.DockerClient(base_url=arguments.host) if arguments.host else docker.from_env()
        print(build(recipe, client, arguments.tag))
    except docker.errors.DockerException as error:
        raise SystemExit(f"The Docker engine does not do its part: {error}") from None
    return 0
