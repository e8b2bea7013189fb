"""The dashboards as files: what their program writes, which Grafana's schema allows, and which ask for what exists."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.deploy.parts import (
    DASHBOARDS,
    GRAFANA,
    Expression,
    dashboard,
    dashboard_file,
    of_panels,
    panels,
    read_yaml,
    series,
)
from tests.deploy.promql import GRAFANA as GRAFANA_VALUES
from tests.deploy.promql import TARGET, labels_in_text, labels_of, parse, selectors
from tests.waiting import LIMIT

SCHEMAS = Path(__file__).resolve().parent / "grafana_schema"
"""Made of Grafana's own types; SCHEMAS/README.md says how."""


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", str(GRAFANA / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


@pytest.mark.processes
def test_the_files_are_what_the_program_writes() -> None:
    assert generate("--check").returncode == 0, "run deploy/grafana/generate.py"
    assert generate("--chek").returncode == 2


@pytest.mark.processes
def test_the_program_finds_a_file_that_was_changed(tmp_path: Path) -> None:
    for path in GRAFANA.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    copies = tmp_path / "dashboards"
    copies.mkdir()
    for name in DASHBOARDS:
        (copies / f"{name}.json").write_text(dashboard_file(name).read_text().replace("Images/s", "Speed"))
    command = [sys.executable, "-B", str(tmp_path / "generate.py")]
    assert subprocess.run([*command, "--check"], capture_output=True, timeout=LIMIT).returncode == 1
    assert subprocess.run(command, capture_output=True, timeout=LIMIT).returncode == 0
    for name in DASHBOARDS:
        assert (copies / f"{name}.json").read_text() == dashboard_file(name).read_text()


def common_part(value: dict[str, Any]) -> dict[str, Any]:
    """Without the keys of an annotation that only the data source knows, which the common schema leaves out."""
    for annotation in value["annotations"]["list"]:
        for key in ("expr", "titleFormat", "textFormat"):
            del annotation[key]
    return value


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_schema_allows_it(name: str) -> None:
    jsonschema.validate(common_part(dashboard(name)), schema("dashboard"))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_the_schema_of_its_kind_allows_a_panel(panel: dict[str, Any]) -> None:
    jsonschema.validate(panel["options"], schema(f"{panel['type']}_options"))
    if panel["type"] != "stat":  # which has no fields of its own
        jsonschema.validate(panel["fieldConfig"]["defaults"]["custom"], schema(f"{panel['type']}_field"))


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "refrsh", "5s"),
        (("panels", 1), "fieldconfig", {}),
        (("panels", 1, "gridPos"), "w", "12"),
        (("templating", "list", 1), "typ", "query"),
    ],
)
def test_the_schema_itself(place: tuple[str | int, ...], key: str, value: object) -> None:
    damaged = part = common_part(dashboard())
    for step in place:
        part = part[step]  # type: ignore[index]
    part[key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(damaged, schema("dashboard"))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_titles_and_numbers_are_unique(name: str) -> None:
    for key in ("id", "title"):
        values = [panel[key] for panel in dashboard(name)["panels"]]
        assert len(values) == len(set(values)), f"two panels have the same {key}"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_covers_another_or_leaves_the_grid(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard(name)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} covers {taken[x, y]}"
                taken[x, y] = panel["title"]
    bottom = max(y for _, y in taken) + 1
    assert len(taken) == 24 * bottom, "there is a hole"


@pytest.mark.parametrize(
    "query", [query for query in of_panels() if query.names != ("",)], ids=lambda query: query.where
)
def test_a_line_is_of_what_there_is(query: Expression) -> None:
    labels = labels_of(parse(query.text), series())
    named = labels_in_text(query.names[0])
    assert named <= labels, "the legend names a label that the result has not"
    assert labels - TARGET <= named, "two lines have the same legend"


@pytest.mark.parametrize("query", of_panels(), ids=lambda query: query.where)
def test_what_several_processes_of_a_run_tell_counts_once(query: Expression) -> None:
    assert not labels_of(parse(query.text), series()) & {"instance", "job", "replica"}, "each process has its own line"


def test_the_variables_lead_to_every_query() -> None:
    names = [variable["name"] for variable in dashboard()["templating"]["list"]]
    assert names == ["datasource", "run", "instance", "stage"]
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    (alerts,) = dashboard()["annotations"]["list"]
    for expression in [alerts["expr"], *(query.text for query in of_panels("onward"))]:
        assert_of_one_run(expression)


def test_the_dashboard_of_all_runs_asks_for_all_of_them_and_leads_to_each() -> None:
    assert [variable["name"] for variable in dashboard("onward-runs")["templating"]["list"]] == ["datasource"]
    (alerts,) = dashboard("onward-runs")["annotations"]["list"]
    for expression in [alerts["expr"], *(query.text for query in of_panels("onward-runs"))]:
        for node in selectors(parse(expression)):
            chosen = {matcher.name: matcher.value for matcher in node.matchers.matchers}
            assert chosen.pop("job") == "onward", expression
            assert chosen in ({}, {"alertstate": "firing"}), expression
    (table,) = (panel for panel in panels("onward-runs") if panel["title"] == "Runs, one by one")
    (link,) = (
        each["value"]
        for override in table["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "links"
    )
    assert link[0]["url"].startswith(f"/d/{dashboard()['uid']}?var-run=")


def assert_of_one_run(expression: str) -> None:
    """Another run may have had the same port before, and a run of the same name may be on another host."""
    for node in selectors(parse(expression)):
        chosen = {matcher.name: matcher.value for matcher in node.matchers.matchers}
        assert (chosen["run"], chosen["instance"]) == (GRAFANA_VALUES["$run"], GRAFANA_VALUES["$instance"]), expression


def test_every_panel_says_what_is_seen() -> None:
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["description"] != panel["title"]


def test_grafana_is_told_where_the_data_and_the_dashboard_are() -> None:
    (source,) = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    assert source["type"] == dashboard()["panels"][1]["datasource"]["type"]
    (provider,) = read_yaml(GRAFANA / "provisioning" / "dashboards" / "onward.yaml")["providers"]
    guide = (GRAFANA / "README.md").read_text(encoding="utf-8")
    for variable in (source["url"], provider["options"]["path"]):
        assert f"{variable.removeprefix('$')}=" in guide
