"""How panels look here: what all of a kind have in common, said to Grafana's own builders (grafana-foundation-sdk)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    DataSourceRef,
    TableAutoCellOptions,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig as Step
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue as Property
from grafana_foundation_sdk.models.dashboard import FieldColorModeId, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.dashboard import Panel as Built
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BY_LEVEL = dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)
GREEN = Threshold(None, "green")
GOOD_TO_BAD = (GREEN, Threshold(1, "red"))
GOOD_TO_ODD = (GREEN, Threshold(1, "orange"))
Row = tuple[str, Sequence[Builder[Built]]]
"""A headline, and what stands below it."""
Panel = TypeVar("Panel", timeseries.Panel, stat.Panel, statetimeline.Panel, table.Panel)


def query(expr: str, legend: str) -> prometheus.Dataquery:
    """One expression over the time shown, and what its lines are called, with labels in double braces."""
    return _query(expr).legend_format(legend).range()


def now(expr: str) -> prometheus.Dataquery:
    """What one expression is at the end of the time shown, for a table."""
    return _query(expr).format(PromQueryFormat.TABLE).instant()


def lines(title: str, text: str, *queries: prometheus.Dataquery, width: int = 8) -> timeseries.Panel:
    """Lines over time; `text` is one sentence about what is seen, `width` is of the 24 columns of a dashboard."""
    panel = timeseries.Panel().show_points(VisibilityMode.NEVER).legend(common.VizLegendOptions().show_legend(True))
    panel = panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    return _common(panel, title, text, queries).unit("short").span(width).height(8)


def number(title: str, text: str, asked: prometheus.Dataquery, width: int) -> stat.Panel:
    """The last value of one line, large."""
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = stat.Panel().graph_mode(BigValueGraphMode.NONE).reduce_options(last)
    panel = panel.color_scheme(BY_LEVEL).thresholds(levels([GREEN]))
    return _common(panel, title, text, [asked]).unit("short").span(width).height(4)


def states(title: str, text: str, asked: prometheus.Dataquery, width: int) -> statetimeline.Panel:
    """A bar over time for each line, red while it is 1."""
    panel = statetimeline.Panel().show_value(VisibilityMode.NEVER)
    panel = panel.color_scheme(BY_LEVEL).thresholds(levels(GOOD_TO_BAD))
    return _common(panel, title, text, [asked]).span(width).height(8)


def listing(
    title: str, text: str, columns: Mapping[str, tuple[prometheus.Dataquery, str]], width: int = 24
) -> table.Panel:
    """A table with a row for each set of labels; `columns` are a query of `now` and the unit of it, by headline."""
    # Grafana names the values of a query after it, unless it is the only one.
    letters = [f"Value #{_letter(index)}" for index in range(len(columns))] if len(columns) > 1 else ["Value"]
    names = dict(zip(letters, columns, strict=True))
    panel = table.Panel().cell_options(TableAutoCellOptions()).with_transformation(Step("merge", options={}))
    panel = panel.with_transformation(
        Step("organize", options={"excludeByName": {"Time": True}, "renameByName": names})
    )
    for headline, (_, unit) in columns.items():
        panel = panel.override_by_name(headline, [Property("unit", unit)])
    return _common(panel, title, text, [asked for asked, _ in columns.values()]).span(width).height(8)


def levels(steps: Sequence[Threshold]) -> dashboard.ThresholdsConfig:
    """From which value on a number has which colour."""
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(list(steps))


def _common(panel: Panel, title: str, text: str, queries: Sequence[prometheus.Dataquery]) -> Panel:
    panel = panel.title(title).description(text).datasource(DATASOURCE)
    return panel.targets([asked.ref_id(_letter(index)) for index, asked in enumerate(queries)])


def _query(expr: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).datasource(DATASOURCE).editor_mode(QueryEditorMode.CODE)


def _letter(index: int) -> str:
    """What Grafana calls the query at this place of a panel."""
    return chr(ord("A") + index)
