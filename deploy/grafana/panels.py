"""The few parts of Grafana's dashboard format that the dashboard needs, as functions that return plain JSON.

Grafana's own builders (grafana-foundation-sdk) are still alpha: another release may write another file, and version
0.0.21 writes keys that Grafana's schema refuses. What is written here is checked against that schema instead
(tests/deploy), and needs nothing but Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
"""Columns of a dashboard."""


@dataclass(frozen=True)
class Query:
    """One expression and what its lines are called.

    Args:
        expr: PromQL; Grafana puts in what its variables stand for.
        legend: with labels in double braces.
    """

    expr: str
    legend: str

    def to_json(self, letter: str) -> Json:
        """As a target of a panel."""
        return {
            "refId": letter,
            "datasource": DATASOURCE,
            "expr": self.expr,
            "legendFormat": self.legend,
            "editorMode": "code",
            "range": True,
            "instant": False,
        }


@dataclass(frozen=True)
class Panel:
    """One panel; where it stands is decided by `lay_out`.

    Args:
        title: unlike that of any other.
        text: one sentence about what is seen.
        queries: at least one.
        width: columns of 24.
        unit: Grafana's name of it.
        kind: the panel plugin.
        bounds: lowest and highest value of the axis, None for what the values ask for.
        levels: value from which on it has this colour, in order; the first has none.
        options: of the plugin, beside what every panel of its kind has.
        custom: how lines are drawn, beside what every panel of its kind has.
    """

    title: str
    text: str
    queries: Sequence[Query]
    width: int = 8
    unit: str = "short"
    kind: Literal["timeseries", "stat", "state-timeline"] = "timeseries"
    bounds: tuple[float | None, float | None] = (None, None)
    levels: Sequence[tuple[float | None, str]] = ((None, "green"),)
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)

    @property
    def height(self) -> int:
        """Rows of the grid: a number needs less than lines."""
        return 4 if self.kind == "stat" else 8

    def to_json(self, number: int, x: int, y: int) -> Json:
        """As Grafana reads it."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.text,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [query.to_json(chr(ord("A") + index)) for index, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._field(), "overrides": []},
            "options": _OPTIONS[self.kind] | self.options,
        }

    def _field(self) -> Json:
        low, high = self.bounds
        steps = [{"value": value, "color": color} for value, color in self.levels]
        defaults: Json = {
            "unit": self.unit,
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
            "thresholds": {"mode": "absolute", "steps": steps},
            "custom": _CUSTOM[self.kind] | self.custom,
        }
        return defaults | {name: value for name, value in (("min", low), ("max", high)) if value is not None}


_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "value",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    },
    "state-timeline": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
        "showValue": "never",
        "mergeValues": True,
        "alignValue": "left",
        "rowHeight": 0.8,
    },
}
_CUSTOM: dict[str, Json] = {
    "timeseries": {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "never", "spanNulls": False},
    "stat": {},
    "state-timeline": {"lineWidth": 0, "fillOpacity": 70},
}


def lay_out(rows: Sequence[tuple[str, Sequence[Panel]]]) -> list[Json]:
    """Headlines and panels from top to bottom, from left to right, numbered from 1.

    Raises:
        ValueError: a row of panels is wider than the dashboard, or leaves room.
    """
    placed: list[Json] = []
    y = 0
    for headline, panels in rows:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        number = len(placed) + 1
        placed.append(
            {"id": number, "type": "row", "title": headline, "gridPos": place, "collapsed": False, "panels": []}
        )
        x, y = 0, y + 1
        for panel in panels:
            placed.append(panel.to_json(len(placed) + 1, x, y))
            x += panel.width
            if x > WIDTH:
                raise ValueError(f"{headline}: with '{panel.title}' a line is {x} columns wide. Give it {WIDTH}")
            if x == WIDTH:
                x, y = 0, y + panel.height
        if x:
            raise ValueError(f"{headline}: the last line is {x} columns wide. Give it {WIDTH}")
    return placed


def variable(name: str, label: str, query: str, everything: bool) -> Json:
    """A choice at the top, filled by a query.

    Args:
        name: as expressions call it.
        label: as users read it.
        query: `label_values(METRIC, LABEL)`.
        everything: whether several values, and all of them, may be chosen.
    """
    made: Json = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 3 if everything else 2,  # numbers rising; runs, whose names end with their date, newest first
        "multi": everything,
        "includeAll": everything,
        "options": [],
    }
    return made | ({"current": {"text": "All", "value": "$__all"}} if everything else {})
