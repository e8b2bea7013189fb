"""Writes dashboards/onward.json: the state of a run first, then why it is so, from the throughput down to the feed.

    python deploy/grafana/generate.py            # writes the file
    python deploy/grafana/generate.py --check    # exit code 1 if the file is another

The rates and shares are those of deploy/prometheus/rules.yml, so that dashboard and alerts mean the same by them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from panels import DATASOURCE, Json, lay_out, variable
from story import OF_RUN, ROWS

OUTPUT = Path(__file__).resolve().parent / "dashboards" / "onward.json"


def choices() -> list[Json]:
    """The variables: where the data is, which run, which of its processes, which stages."""
    datasource: Json = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "options": [],
    }
    return [
        datasource,
        variable("run", "Run", "label_values(onward_run_steps, run)", everything=False),
        variable("instance", "Process", 'label_values(onward_run_steps{run="$run"}, instance)', everything=True),
        variable("stage", "Stage", f"label_values(onward_step{OF_RUN}, stage)", everything=True),
    ]


def dashboard() -> Json:
    """The whole of it, as Grafana imports it."""
    alerts: Json = {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{run="$run", instance=~"$instance", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "stage {{stage}}",
    }
    return {
        "uid": "onward-run",
        "title": "Onward: a run",
        "description": "One run of Onward from top to bottom. Needs the rules of deploy/prometheus/rules.yml.",
        "tags": ["onward"],
        "schemaVersion": 42,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [alerts]},
        "templating": {"list": choices()},
        "links": [],
        "panels": lay_out(ROWS),
    }


def main(arguments: Sequence[str]) -> int:
    """Write the file, or with `--check` say whether it is up to date; returns the exit code."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if list(arguments) == ["--check"]:
        same = OUTPUT.exists() and OUTPUT.read_text(encoding="utf-8") == text
        print(f"{OUTPUT} is {'up to date' if same else 'another: run deploy/grafana/generate.py'}")
        return 0 if same else 1
    if arguments:
        print("error: give no argument, or --check", file=sys.stderr)
        return 2
    OUTPUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
