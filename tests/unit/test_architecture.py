"""The rules that no single module can keep: who may import whom, and that every list has one source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workspace_operator.api import crds, states
from workspace_operator.api.reasons import Reason

ROOT = Path(__file__).parents[2]
PACKAGE = "workspace_operator"
SOURCE = ROOT / "operator" / PACKAGE
SHARED = {f"{PACKAGE}.backends.{name}" for name in ("door", "labels", "metered", "protocol", "rate")}
LIBRARIES = {
    "docker": f"{PACKAGE}.backends.docker",
    "boto3": f"{PACKAGE}.backends.ec2",
    "botocore": f"{PACKAGE}.backends.ec2",
    "a2a": f"{PACKAGE}.a2a",
    "httpx": f"{PACKAGE}.a2a",
    "httpcore": f"{PACKAGE}.a2a",
}

#: room → rooms of ours that it may import. ``errors`` and ``telemetry`` are open to all.
MAY_IMPORT = {
    "api": {"api"},
    "lifecycle": {"api", "lifecycle"},
    "kube": {"api", "kube"},
    "a2a": {"api", "a2a"},
    "backends": {"api", "backends"},
    "reconcile": {"api", "lifecycle", "kube", "backends", "a2a", "reconcile"},
    "telemetry": set(),
    "errors": set(),
    "settings": set(),
    "handlers": {"api", "reconcile"},
    "app": {"api", "reconcile", "kube", "backends", "handlers", "settings"},
    "commands": {"api", "reconcile", "kube", "backends", "commands"},
}
OPEN_TO_ALL = {"errors", "telemetry"}
#: The one driver whose backend is what `kube` speaks to, and the door that hands it the operator's own client.
SPEAK_KUBE = (f"{PACKAGE}.backends.kubernetes", f"{PACKAGE}.backends.door")


def modules(source: Path = SOURCE) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module."""
    for file in sorted(source.rglob("*.py")):
        parts = file.relative_to(source.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imports(file: Path) -> set[str]:
    """Everything that a module imports, anywhere in it; ``from a import b`` counts as ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute, so that this test sees them"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            found.update(str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))
    return found


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _driver_of(name: str) -> str | None:
    """``workspace_operator.backends.docker.engine`` → ``workspace_operator.backends.docker``; None for no driver."""
    prefix = f"{PACKAGE}.backends."
    if not name.startswith(prefix):
        return None
    package = prefix + name.removeprefix(prefix).split(".")[0]
    return None if package in SHARED else package


def trespassers(source: Path) -> list[str]:
    """Imports past the door, as sentences."""
    found = []
    for name, file in modules(source):
        for imported in sorted(imports(file)):
            driver = _driver_of(imported)
            if driver is not None and name != f"{PACKAGE}.backends.door" and not _within(name, driver):
                found.append(f"{name} imports {imported}; only backends/door.py may")
            for library, owner in LIBRARIES.items():
                if _within(imported, library) and not _within(name, owner):
                    found.append(f"{name} imports {imported}; only {owner} may")
    return found


def test_nothing_but_the_door_imports_a_backend() -> None:
    """I-01, I-02."""
    assert trespassers(SOURCE) == []


@pytest.mark.parametrize(
    "line",
    [
        "import docker",
        "from docker.errors import NotFound",
        "import boto3",
        "def f():\n    import boto3.session",
        "from workspace_operator.backends import docker",
        "from workspace_operator.backends.docker import create",
        "from workspace_operator.backends.docker.engine import Engine",
        "import workspace_operator.backends.ec2",
        "import importlib\nimportlib.import_module('workspace_operator.backends.kubernetes')",
    ],
)
@pytest.mark.parametrize("place", ["reconcile/bad.py", "handlers.py", "backends/metered.py", "backends/process/bad.py"])
def test_the_gate_catches_a_planted_import(tmp_path: Path, place: str, line: str) -> None:
    """I-02: the gate itself works."""
    file = tmp_path / PACKAGE / place
    file.parent.mkdir(parents=True)
    file.write_text(f"{line}\n")
    assert len(trespassers(tmp_path / PACKAGE)) >= 1


def test_imports_point_one_way() -> None:
    wrong = []
    for name, file in modules():
        room = [*name.split("."), ""][1]
        for imported in imports(file):
            parts = imported.split(".")
            if parts[0] != PACKAGE or len(parts) == 1 or room in ("", "__main__"):
                continue
            allowed = MAY_IMPORT[room] | OPEN_TO_ALL | {room, "__version__"}
            if any(_within(name, speaker) for speaker in SPEAK_KUBE):
                allowed |= {"kube"}
            if parts[1] not in allowed:
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_kopf_is_imported_where_kopf_is_spoken_to() -> None:
    users = {name for name, file in modules() if any(_within(i, "kopf") for i in imports(file))}
    assert users == {f"{PACKAGE}.handlers", f"{PACKAGE}.app"}


def test_the_lifecycle_does_no_io_reads_no_clock_and_logs_nothing() -> None:
    allowed = {
        "__future__",
        "collections",
        "dataclasses",
        "datetime",
        "bisect",
        "enum",
        "fnmatch",
        "hashlib",
        "heapq",
        "json",
        "re",
        "typing",
        PACKAGE,
    }
    for name, file in modules():
        if _within(name, f"{PACKAGE}.lifecycle"):
            assert {i.split(".")[0] for i in imports(file)} <= allowed | {PACKAGE}, name
            assert ".now(" not in file.read_text(), name


def test_the_directory_operator_never_shadows_the_standard_library() -> None:
    assert not list((ROOT / "operator").glob("*.py"))
    command = [sys.executable, "-S", "-c", "import operator; print(operator.__file__)"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(out).name == "operator.py"
    assert str(ROOT) not in out


@pytest.mark.parametrize("folder", ["operator", "tests", "deploy"])
def test_files_can_be_read_in_one_sitting(folder: str) -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for file in (ROOT / folder).rglob("*.py")
        if (lines := len(file.read_text().splitlines())) >= 400
    }
    assert not long


def test_every_module_says_its_one_job() -> None:
    silent = [name for name, file in modules() if not ast.get_docstring(ast.parse(file.read_text()))]
    assert not silent


# -- one list ----------------------------------------------------------------------------------------------------------


def test_every_reason_that_is_named_exists() -> None:
    """I-28: attributes of Reason, and literals that stand where a reason is meant."""
    members, values = set(Reason.__members__), {reason.value for reason in Reason}
    unknown = []
    for name, file in modules():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "Reason" and node.attr.isupper():
                if node.attr not in members:
                    unknown.append(f"{name}: Reason.{node.attr}")
            elif isinstance(node, ast.Call):
                unknown += [f"{name}: {text!r}" for text in _literal_reasons(node) if text not in values]
    assert not unknown


_WITH_REASON = {
    "BadRequest": 0,
    "BackendError": 0,
    "BackendUnreachable": 0,
    "QuotaExceeded": 0,
    "Failure": 1,
    "Progress": 0,
}


def _literal_reasons(call: ast.Call) -> list[str]:
    function = getattr(call.func, "attr", getattr(call.func, "id", ""))
    arguments = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    position = _WITH_REASON.get(function)
    if function == "__init__" and "super" in ast.unparse(call.func) and len(call.args) == 2:
        position = 0
    if position is not None and len(call.args) > position:
        arguments.append(call.args[position])
    return [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]


def test_every_reason_says_what_it_means_and_is_used() -> None:
    text = "\n".join(file.read_text() for _, file in modules())
    assert not [reason for reason in Reason if not reason.meaning.endswith(".")]
    assert not [name for name in Reason.__members__ if f"Reason.{name}" not in text and f"_R.{name}" not in text]


def _enums(node: object) -> Iterator[tuple[str, ...]]:
    if isinstance(node, dict):
        if isinstance(node.get("enum"), list):
            yield tuple(node["enum"])
        for value in node.values():
            yield from _enums(value)
    elif isinstance(node, list):
        for value in node:
            yield from _enums(value)


_PUBLISHED = (
    *("DesiredState", "EffectiveReason", "Phase", "PauseMode", "WhenDeleted", "UpdatePolicy", "Probe"),
    *("IdentityMode", "PullPolicy", "ConditionStatus", "DelegationPhase", "WhenAmbiguous", "CancelOutcome"),
)


@pytest.mark.parametrize("name", _PUBLISHED)
def test_the_schema_knows_every_value_of_the_code(name: str) -> None:
    """I-28."""
    published = {values for kind in crds.KINDS for values in _enums(crds.definition(kind))}
    assert tuple(member.value for member in getattr(states, name)) in published
