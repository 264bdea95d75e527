"""The operator as it is, with every call to the outside wrapped: ``-m tests.crash.operator_main``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.crash import seams
from tests.crash.points import Switch

from workspace_operator.__main__ import main as operator


def main(command_line: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", type=Path, required=True, help="directory shared with the harness")
    parser.add_argument("--root", type=Path, required=True, help="directory of the process backend")
    arguments, rest = parser.parse_known_args(command_line)
    seams.install(Switch(arguments.control), arguments.root)
    return operator(["run", *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
