"""A picture of a dashboard, drawn from what a Prometheus answers: for whoever has no Grafana, or wants to see a change.

    .venv/bin/python -m tests.deploy.pictures http://127.0.0.1:9090 onward run.png --run NAME
    .venv/bin/python -m tests.deploy.pictures http://127.0.0.1:9090 onward-runs runs.png --minutes 30

Every panel stands where Grafana puts it, with the lines, names, units and bounds that the dashboard's file says; what
Grafana stacks is drawn as lines.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from math import isfinite, nan
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tests.deploy.parts import dashboard
from tests.deploy.promql import fill
from tests.deploy.server import Server

COLUMNS, COLUMN_INCHES, ROW_INCHES = 24, 0.75, 0.42
LINES = 120
"""Points of a line."""
Answer = list[dict[str, Any]]


def scaled(value: float, suffix: str) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{suffix}"
    return f"{value:.3g} {suffix}".strip()


def binary(value: float) -> str:
    for power, prefix in ((4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if abs(value) >= 1024**power:
            return f"{value / 1024**power:.3g} {prefix}B"
    return f"{value:.3g} B"


def duration(value: float) -> str:
    for length, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(value) >= length:
            return f"{value / length:.3g} {name}"
    return f"{value:.3g} s"


UNITS: Mapping[str, Callable[[float], str]] = {
    "short": lambda value: scaled(value, ""),
    "percentunit": lambda value: f"{100 * value:.3g}%",
    "Bps": lambda value: scaled(value, "B/s"),
    "flops": lambda value: scaled(value, "FLOP/s"),
    "bytes": binary,
    "s": duration,
    "dthms": duration,
}
"""How a value is written, by Grafana's name of its unit."""


def named(series: Mapping[str, Any], legend: str) -> str:
    """What Grafana calls a line."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: series["metric"].get(found[1], ""), legend)


def asked(server: Server, panel: Mapping[str, Any], values: Mapping[str, str], end: float, minutes: float) -> Answer:
    """All series of a panel, each with its `target`: over time, or at the end where the panel wants no more."""
    found = []
    for target in panel["targets"]:
        text = fill(target["expr"], values)
        if target["instant"]:
            series = server.query(text, end)
        else:
            series = server.query_range(text, end - 60 * minutes, end, max(60 * minutes / LINES, 1.0))
        found += [one | {"target": target} for one in series]
    return found


def draw_lines(axes: Axes, panel: Mapping[str, Any], series: Answer) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    for one in series:
        label = named(one, one["target"]["legendFormat"])
        axes.plot(*over_time(one), ".-", markersize=2, linewidth=0.8, label=label)  # type: ignore[arg-type]
    scale = defaults["custom"].get("scaleDistribution", {"type": "linear"})
    if scale["type"] != "linear":
        axes.set_yscale(scale["type"], **({"linthresh": scale["linearThreshold"]} if scale["type"] == "symlog" else {}))
    axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: UNITS[defaults["unit"]](value)))
    if series:
        axes.legend(fontsize=5, loc="upper left")


def over_time(series: Mapping[str, Any]) -> tuple[list[datetime], list[float]]:
    """The points of a line, with a gap where it has none."""
    times: list[datetime] = []
    points: list[float] = []
    step = min((after - when for (when, _), (after, _) in pairwise(series["values"])), default=0.0)
    for when, value in series["values"]:
        if times and when - times[-1].timestamp() > 1.5 * step:
            times.append(datetime.fromtimestamp(when - step))
            points.append(nan)
        times.append(datetime.fromtimestamp(when))
        points.append(float(value))
    return times, points


def draw_number(axes: Axes, panel: Mapping[str, Any], series: Answer) -> None:
    words = []
    for one in series:
        last = [float(value) for _, value in one["values"] if isfinite(float(value))][-1:]
        if panel["options"]["textMode"] == "name":
            words.append(named(one, one["target"]["legendFormat"]).replace(", ", "\n"))
        else:
            words += [UNITS[panel["fieldConfig"]["defaults"]["unit"]](value) for value in last]
    axes.text(0.5, 0.5, "\n".join(words), ha="center", va="center", fontsize=8)


def draw_states(axes: Axes, panel: Mapping[str, Any], series: Answer) -> None:
    for row, one in enumerate(series):
        times = [datetime.fromtimestamp(when) for when, _ in one["values"]]
        colors = ["tab:red" if float(value) >= 1 else "tab:green" for _, value in one["values"]]
        axes.scatter(times, [row] * len(times), c=colors, marker="s", s=9)  # type: ignore[arg-type]
    axes.set_yticks(range(len(series)), [named(one, one["target"]["legendFormat"]) for one in series])


def draw_table(axes: Axes, panel: Mapping[str, Any], series: Answer) -> None:
    organize = panel["transformations"][1]["options"]["renameByName"]
    units = {each["matcher"]["options"]: each["properties"][0] for each in panel["fieldConfig"]["overrides"]}
    rows: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for one in series:
        headline = organize[f"Value #{one['target']['refId']}" if len(panel["targets"]) > 1 else "Value"]
        labels = dict(sorted(one["metric"].items()))
        value = UNITS[units[headline]["value"]](float(one["value"][1]))
        rows.setdefault(tuple(labels.items()), labels.copy())[headline] = value
    headlines = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [[row.get(name, "") for name in headlines] for row in rows.values()]
    if cells:
        axes.table(cells, colLabels=headlines, loc="upper center", fontsize=6)


DRAW = {"timeseries": draw_lines, "stat": draw_number, "state-timeline": draw_states, "table": draw_table}


def picture(
    server: Server, name: str, values: Mapping[str, str], end: float, minutes: float
) -> tuple[Figure, list[str]]:
    """The picture of a dashboard, and the titles of the panels without a line.

    Args:
        server: where the data is.
        name: of the file of the dashboard.
        values: for its variables.
        end: of the time shown, in seconds since 1970.
        minutes: that are shown.
    """
    panels, empty = dashboard(name)["panels"], []
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(COLUMNS * COLUMN_INCHES, rows * ROW_INCHES))
    for panel in panels:
        place = panel["gridPos"]
        left, bottom = place["x"] / COLUMNS, 1 - (place["y"] + place["h"]) / rows
        if panel["type"] == "row":
            figure.text(left + 0.005, bottom + 0.2 / rows, panel["title"], fontsize=9, weight="bold")
            continue
        box = (left + 0.03, bottom + 0.8 / rows, place["w"] / COLUMNS - 0.04, (place["h"] - 2.2) / rows)
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=7)
        axes.tick_params(which="both", labelsize=5)
        if panel["type"] in ("stat", "table"):
            axes.axis("off")
        series = asked(server, panel, values, end, minutes)
        empty += [] if series else [panel["title"]]
        DRAW[panel["type"]](axes, panel, series)
    return figure, empty


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a dashboard from what a Prometheus answers.")
    parser.add_argument("server", help="such as http://127.0.0.1:9090")
    parser.add_argument("dashboard", choices=["onward", "onward-runs"])
    parser.add_argument("file", help="the picture, such as run.png")
    parser.add_argument("--run", default="", help="which run onward shows")
    parser.add_argument("--minutes", type=float, default=30.0, help="that are shown, until now (30)")
    given = parser.parse_args()
    values = {"$run": given.run, "$instance": ".*", "$stage": ".*"}
    figure, empty = picture(Server(given.server), given.dashboard, values, time.time(), given.minutes)
    figure.savefig(given.file, dpi=110)
    print(f"{given.file}: {', '.join(empty) or 'nothing'} is empty")


if __name__ == "__main__":
    main()
