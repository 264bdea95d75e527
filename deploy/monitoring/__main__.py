"""Writes what is generated in deploy/monitoring, or with ``--check`` fails when something is not current."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import yaml
from deploy.monitoring import dashboard, exported

HERE = Path(__file__).parent
_PART = re.compile(r"(<!-- generated: metrics -->)\n.*?(<!-- end -->)", re.DOTALL)
_NOTE = "# Generated from alerts.yaml by `make generate`.\n"


def prometheus_rule() -> str:
    """The alerts as the Prometheus Operator's object."""
    rules = yaml.safe_load((HERE / "alerts.yaml").read_text())
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "workspace-operator", "labels": {"app.kubernetes.io/name": "workspace-operator"}},
        "spec": rules,
    }
    return _NOTE + yaml.safe_dump(document, sort_keys=False, width=120)


def readme() -> str:
    """The README with the table of metrics."""
    table = "\n".join(exported.table())
    return _PART.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", (HERE / "README.md").read_text())


def render() -> dict[Path, str]:
    """Every generated file with its content."""
    return {
        HERE / "prometheusrule.yaml": prometheus_rule(),
        HERE / "dashboard.json": json.dumps(dashboard.document(), indent=2) + "\n",
        HERE / "README.md": readme(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.monitoring", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when something is not current")
    check = parser.parse_args().check
    stale = {path: text for path, text in render().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if check:
            sys.stderr.write(f"{path} is not current; run `make generate`\n")
        else:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
