"""Writes dashboards/onward.json, one run from its state down to what holds it up, and onward-runs.json, all runs.

    python deploy/grafana/generate.py            # writes the files
    python deploy/grafana/generate.py --check    # exit code 1 if one of them is another

Needs grafana-foundation-sdk, which `make install` brings. Its builders would rather write the second version of the
format, which no Grafana before 12 reads. The rates and shares are those of deploy/prometheus/rules.yml, so that
dashboards and alerts mean the same by them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import runs
import story
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType
from panels import DATASOURCE, Row

OUTPUT = Path(__file__).resolve().parent / "dashboards"
NEEDS = "Needs the rules of deploy/prometheus/rules.yml."


def of_rows(title: str, uid: str, rows: Sequence[Row], matchers: str) -> dashboard.Dashboard:
    """A dashboard of these rows, with marks at alerts of the runs that `matchers` choose, and a way to the others."""
    link = dashboard.DashboardLink("Onward").type(DashboardLinkType.DASHBOARDS).tags(["onward"]).keep_time(True)
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["onward"])
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-30m", "now")
        .timezone("browser")
        .link(link)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    alerts = dashboard.AnnotationQuery().name("Alerts").datasource(DATASOURCE).enable(True).icon_color("red")
    alerts = alerts.expr(f'ALERTS{{{matchers}, alertstate="firing"}}').title_format("{{run}}: {{alertname}}")
    made = made.annotation(alerts.text_format("stage {{stage}}"))
    for headline, panels in rows:
        made = made.with_row(dashboard.Row(headline))
        for panel in panels:
            made = made.with_panel(panel)
    return made


def file(made: dashboard.Dashboard) -> str:
    """The text of it, with panels that are numbered."""
    value = json.loads(JSONEncoder().encode(made.build()))
    for number, panel in enumerate(value["panels"], 1):
        panel["id"] = number
    # What the builders write unasked: keys that Grafana's schema refuses, and a place in a menu.
    for panel in value["panels"]:
        if panel["type"] == "table":
            del panel["options"]["footer"]
    for variable in value["templating"]["list"]:
        del variable["auto"], variable["auto_min"], variable["auto_count"]
    for shown in value["links"] + value["annotations"]["list"]:
        del shown["placement"]
    return json.dumps(value, indent=2) + "\n"


def files() -> dict[Path, str]:
    """What is in each file."""
    one = of_rows("Onward: a run", "onward-run", story.rows(), story.OF_RUN.strip("{}"))
    one = one.description(f"One run of Onward from top to bottom. {NEEDS}")
    for choice in story.choices():
        one = one.with_variable(choice)
    every = of_rows("Onward: all runs", "onward-runs", runs.rows(), runs.OF_RUNS.strip("{}"))
    every = every.description(f"All runs of Onward that Prometheus reads. {NEEDS}")
    return {OUTPUT / "onward.json": file(one), OUTPUT / "onward-runs.json": file(every)}


def main(arguments: Sequence[str]) -> int:
    """Write the files, or with `--check` say whether they are up to date; returns the exit code."""
    if list(arguments) not in ([], ["--check"]):
        print("error: give no argument, or --check", file=sys.stderr)
        return 2
    stale = {path: text for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if arguments:
            print(f"{path} is another: run deploy/grafana/generate.py")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
