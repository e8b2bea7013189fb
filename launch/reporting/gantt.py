"""The pipeline at work: what every process did during a few steps in the middle of a run, from its trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from launch.reporting.charts import Picture
from launch.reporting.colours import CARD, INK, QUIET, stage_colour
from launch.showing.figures import lettering
from workers.observing.trace_part import Part, Slice, offsets
from workers.topology import stage_name

STEPS = 6
"""That the picture shows of each stage, about."""
MAX_ROWS = 32
WIDTH = 11.0
"""Inches: for the whole width of a page; at 7 inches, two columns of a paper, letters have 6 points and more."""
_ROW = 0.42
_LETTER = 7.0
"""Width of a digit in a bar, in points."""


@dataclass(frozen=True)
class _Row:
    """One track: its name, its stage (0 for the feed), and what it did in order, in nanoseconds since 1970."""

    name: str
    stage: int
    slices: list[Slice]

    def of(self, what: str, step: int | None = None) -> list[Slice]:
        """What it did of this kind, at this step or at all."""
        return [each for each in self.slices if each.name == what and step in (None, each.step)]


def gantt(parts: Sequence[Part], count: int) -> Picture | None:
    """A row a stage and replica, a bar for each thing it did; None where the trace has no whole step.

    To be called within `launch.showing.figures.styled`.

    Args:
        parts: of the trace.
        count: of the stages of the run.
    """
    rows = _rows(parts)
    window = _window(rows)
    if window is None:
        return None
    step, start, end = window
    shown = rows[:MAX_ROWS]
    scale, unit = (1e6, "ms") if end - start < 20e9 else (1e9, "s")
    figure = Figure(figsize=(WIDTH, 1.2 + _ROW * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, row in enumerate(shown):
        inside = [each for each in row.slices if each.start < end and each.start + each.duration > start]
        _draw_row(axes, place, row, inside, count, (start, end, scale))
    _draw_way(axes, shown, step, (start, end, scale))
    axes.set_xlim(0, (end - start) / scale)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [lettering(row.name, 24) for row in shown])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(unit)
    kinds = {"forward": 1.0, "update (loss, backward, optimizer)": 0.42}
    handles = [Patch(facecolor=QUIET.light, alpha=alpha) for alpha in kinds.values()]
    handles += [Patch(facecolor=QUIET.light, alpha=0.16), Patch(facecolor=INK.light)]
    names = [*kinds, "handing on, or waiting for room to", "measuring, snapshot"]
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), columnspacing=1.6, fontsize=11)
    caption = f"Numbers are steps; gaps are waiting. The line follows the batch of step {step} through the pipeline."
    if len(rows) > MAX_ROWS:
        caption += f" The first {MAX_ROWS} of {len(rows)} rows."
    return Picture("pipeline", "The pipeline at work", caption, figure, wide=True)


def _rows(parts: Sequence[Part]) -> list[_Row]:
    """In the order of the pipeline; those of a process that was restarted together."""
    shift = offsets(parts)
    found: dict[tuple[int, int, int, str], _Row] = {}
    for part in sorted(parts, key=lambda each: (each.header.unit, each.header.replica)):
        head = part.header
        stages = {stage_name(stage): stage for stage in head.stages}
        for each in part.slices:
            stage = stages.get(each.track, 0)
            name = each.track + (f" replica {head.replica}" if head.replicas > 1 and stage else "")
            row = found.setdefault((head.unit, stage, head.replica, name), _Row(name, stage, []))
            row.slices.append(each._replace(start=each.start + shift[head.clock]))
    return [found[key] for key in sorted(found)]


def _window(rows: Sequence[_Row]) -> tuple[int, int, int] | None:
    """The step in the middle, and from when to when: from its batch's beginning to its end, and `STEPS` at least."""
    stages = [row for row in rows if row.stage]
    if not stages:
        return None
    steps = set.intersection(*({each.step for each in row.of("forward")} for row in stages))
    known = sorted(step for step in steps if step is not None)
    if not known:
        return None
    step = known[len(known) // 2]
    start = min(row.of("forward", step)[0].start for row in stages)
    ends = [
        each.start + each.duration for row in stages for each in (row.of("update", step) or row.of("forward", step))[:1]
    ]
    starts = np.array([each.start for each in stages[-1].of("forward")])
    pace = int(np.median(np.diff(starts))) if starts.size > 1 else max(ends) - start
    end = min(max(*ends, start + STEPS * pace), start + 2 * STEPS * max(pace, 1) + max(pace, 1))
    margin = max((end - start) // 100, 1)
    return step, start - margin, max(end, start + 1) + margin


def _draw_row(
    axes: Axes, place: int, row: _Row, inside: Sequence[Slice], count: int, window: tuple[int, int, float]
) -> None:
    start, end, scale = window
    colour = stage_colour(row.stage, count).light if row.stage else QUIET.light
    looks: dict[str, tuple[float, dict[str, Any]]] = {
        "send": (0.22, {"facecolor": colour, "alpha": 0.16}),
        "update": (0.68, {"facecolor": colour, "alpha": 0.42}),
        "online": (0.68, {"facecolor": INK.light}),
        "snapshot": (0.68, {"facecolor": INK.light}),
        "forward": (0.68, {"facecolor": colour}),
        "make batch": (0.68, {"facecolor": colour, "alpha": 0.42}),
    }
    for what, (height, look) in looks.items():
        bars = [((each.start - start) / scale, each.duration / scale) for each in inside if each.name == what]
        if bars:
            axes.broken_barh(bars, (place - height / 2, height), linewidth=0, **look)
    room = WIDTH * 72 * 0.85 / (end - start)
    for each in inside:
        if each.name not in ("forward", "update", "make batch") or each.step is None:
            continue
        left, right = max(each.start, start), min(each.start + each.duration, end)
        if (right - left) * room > _LETTER * len(str(each.step)) + 2:
            colour_of_text = CARD.light if each.name == "forward" else INK.light
            middle = ((left + right) / 2 - start) / scale
            axes.text(
                middle, place, str(each.step), ha="center", va="center_baseline", fontsize=10, color=colour_of_text
            )


def _draw_way(axes: Axes, rows: Sequence[_Row], step: int, window: tuple[int, int, float]) -> None:
    """From forward pass to forward pass of one batch; through the first replica where there are several."""
    start, _, scale = window
    points: list[tuple[float, int, float]] = []
    seen: set[int] = set()
    for place, row in enumerate(rows):
        found = row.of("forward" if row.stage else "send", step)
        if found and found[0].start >= start and row.stage not in seen:
            seen.add(row.stage)
            points.append(((found[0].start - start) / scale, place, found[0].duration / scale))
    for (x, y, width), (next_x, next_y, _) in pairwise(points):
        axes.annotate(
            "",
            xy=(next_x, next_y - 0.34),
            xytext=(x + width, y + 0.34) if x + width <= next_x else (x, y + 0.34),
            arrowprops={"arrowstyle": "-|>", "color": INK.light, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0},
        )
