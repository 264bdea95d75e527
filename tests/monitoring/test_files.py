"""What is committed in deploy/monitoring is current, and asks for nothing that the operator does not export."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from deploy.monitoring import __main__ as generator
from deploy.monitoring import dashboard
from tests.monitoring.conftest import Promtool
from tests.monitoring.rules import ALERTS, ALERTS_FILE, FOLDER, labels_of, unknown

RUNBOOK = (FOLDER / "RUNBOOK.md").read_text()


def test_everything_generated_is_current() -> None:
    assert [path.name for path, text in generator.render().items() if path.read_text() != text] == []


def test_promtool_accepts_the_rules(promtool: Promtool) -> None:
    done = promtool("check", "rules", ALERTS_FILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_parses_every_expression_of_the_dashboard(promtool: Promtool, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(dashboard.expressions())
    ]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in ALERTS.values()), *dashboard.expressions()])
def test_every_name_and_label_that_is_asked_for_is_exported(expression: str) -> None:
    assert unknown(expression) == []


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("workspace_operator_leaders", "no metric workspace_operator_leaders"),
        ('workspace_operator_orphans{clas="x"}', "workspace_operator_orphans has no label clas"),
        ("sum by (kind) (workspace_operator_leader)", "nothing has the label kind"),
        ("workspace_operator_verbs", "no metric workspace_operator_verbs"),
    ],
)
def test_the_check_itself_finds_what_is_wrong(expression: str, wrong: str) -> None:
    assert unknown(expression) == [wrong]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_tells_who_is_concerned_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    told = rule["annotations"]
    assert told["summary"].endswith(".") and told["description"].endswith(".")
    assert set(re.findall(r"\$labels\.(\w+)", told["description"])) <= labels_of(rule["expr"])
    assert told["runbook"] == f"deploy/monitoring/RUNBOOK.md#{name.lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_none_else() -> None:
    """In the order of the rules, each with its four parts."""
    sections = re.split(r"^## (.+)\n", RUNBOOK, flags=re.MULTILINE)[1:]
    assert sections[::2] == list(ALERTS)
    for name, text in zip(sections[::2], sections[1::2], strict=True):
        parts = [text.find(part) for part in ("**Means.**", "```bash", "**Do.**", "**Meanwhile** the operator:")]
        assert parts == sorted(parts) and parts[0] >= 0, name


def test_no_panel_overlaps_another_and_each_has_an_id_of_its_own() -> None:
    cells: Counter[tuple[int, int]] = Counter()
    panels = dashboard.document()["panels"]
    for panel in panels:
        place = panel["gridPos"]
        cells.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert set(cells.values()) == {1}
    assert len({panel["id"] for panel in panels}) == len(panels)
