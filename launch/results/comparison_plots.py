"""The figures of a comparison: every quantity by block, a line a group of runs, with the spread over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from launch.results.comparison_tables import Row
from launch.results.figure_style import (
    block_axis,
    label_outer,
    legend_below,
    lettering,
    panels,
    save,
    series_style,
    styled,
)
from launch.results.measure_names import QUALITY, in_order
from pipeline.config.places import Feature

_COLUMNS = 2
_ROWS = 4
"""Of one figure; what does not fit goes to the next, so that none is longer than a page."""


def write_comparison(rows: Sequence[Row], names: Sequence[str], folder: Path) -> list[Path]:
    """Draw `compare-DATA-accuracy-FEATURE` and `compare-DATA-quality-FEATURE`, where there is any, as PNG and SVG.

    Args:
        rows: what to draw, an axes for each quantity: the short table, not every corruption.
        names: of the groups, for the legend.
        folder: made if it is not there; files in it are replaced.

    Returns:
        The files that were written.

    Raises:
        UserError: they cannot be written.
    """
    written = []
    kinds: dict[tuple[str, str, Feature], list[Row]] = {}
    for row in rows:
        kind = "quality" if row.quantity.family == QUALITY else "accuracy" if row.quantity.percent else "other"
        kinds.setdefault((row.data, kind, row.feature), []).append(row)
    with styled():
        for (data, kind, feature), rows_of_kind in kinds.items():
            quantities = in_order(row.quantity for row in rows_of_kind)
            for part, start in enumerate(range(0, len(quantities), _COLUMNS * _ROWS)):
                chosen = quantities[start : start + _COLUMNS * _ROWS]
                some = [row for row in rows_of_kind if row.quantity in chosen]
                figure = _draw(f"{data}, {feature}", some, names)
                written += save(figure, folder, "compare", data, kind, feature, *([str(part + 1)] if part else []))
    return written


def _draw(title: str, rows: Sequence[Row], names: Sequence[str]) -> Figure:
    quantities = in_order(row.quantity for row in rows)
    step = min(0.06, 0.4 / len(names))  # beside each other, so that no group's spread hides another's
    figure, axes = panels([str(drawn) for drawn in quantities], _COLUMNS, height=2.7, sharex=True)
    for axis, drawn in zip(axes, quantities, strict=True):
        scale = 100.0 if drawn.percent else 1.0
        for index in range(len(names)):
            points = [(row.block, row.estimates[index]) for row in rows if row.quantity == drawn]
            measured = sorted((block, value.mean, value.spread or 0.0) for block, value in points if value is not None)
            axis.errorbar(
                [block + step * (index - (len(names) - 1) / 2) for block, _, _ in measured],
                [scale * mean for _, mean, _ in measured],
                yerr=[scale * spread for _, _, spread in measured]
                if any(spread for _, _, spread in measured)
                else None,
                capsize=3.0,
                elinewidth=1.4,
                **series_style(index),
            )
    block_axis(axes)
    label_outer(axes, _COLUMNS, "block", "")
    figure.suptitle(lettering(title), fontsize="medium")
    legend_below(figure, [Line2D([], [], **series_style(index)) for index in range(len(names))], names)
    return figure
