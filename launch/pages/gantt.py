"""The pipeline at work: what every process did during a few steps in the middle of a run, from its trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from launch.pages.charts import Picture
from launch.pages.colours import INK, QUIET, on_bar, stage_colour
from launch.results.figure_style import lettering
from workers.observing.trace_flows import share_rows
from workers.observing.trace_part import Part, Slice, offsets
from workers.topology.members import stage_name

STEPS = 6
"""That the picture shows of each stage, about."""
MAX_ROWS = 32
WIDTH = 11.0
"""Inches: for the whole width of a page; at 7 inches, two columns of a paper, letters have 6 points and more."""
_ROW = 0.42
_PAUSE = 5.0
"""Times as long as from step to step, as a rule."""
_LETTER = 7.0
"""Width of a digit in a bar, in points."""
_LEARNING = ("head", "loss", "backward", "optimizer")
"""Parts of an update; end to end, and with one scaler for all stages, they stand alone."""


@dataclass(frozen=True)
class _Row:
    """One track: its name, its stage (0 for the feed), and what it did in order, in nanoseconds since 1970."""

    name: str
    stage: int
    replica: int
    replicas: int
    slices: list[Slice]

    def of(self, what: str, step: int | None = None) -> list[Slice]:
        """What it did of this kind, at this step or at all."""
        return [each for each in self.slices if each.name == what and step in (None, each.step)]

    def within(self, start: int, end: int, names: Sequence[str]) -> list[Slice]:
        """What it did of these kinds from `start` to `end`, in part at least."""
        return [s for s in self.slices if s.name in names and s.start < end and s.start + s.duration > start]


def gantt(parts: Sequence[Part], count: int) -> Picture | None:
    """A row a stage and replica, a bar for each thing it did; None where the trace has no whole step.

    To be called within `launch.results.figure_style.styled`.

    Args:
        parts: of the trace.
        count: of the stages of the run.
    """
    rows = _rows(parts)
    window = _window(rows)
    if window is None:
        return None
    step, start, end = window
    rows = [row for row in rows if row.stage or row.within(start, end, ("send", "make batch"))]
    shown = rows[:MAX_ROWS]
    scale, unit = (1e6, "ms") if end - start < 20e9 else (1e9, "s")
    figure = Figure(figsize=(WIDTH, 1.2 + _ROW * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, row in enumerate(shown):
        _draw_row(axes, place, row, count, (start, end, scale))
    _draw_way(axes, shown, step, (start, end, scale))
    axes.set_xlim(0, (end - start) / scale)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [lettering(row.name, 24) for row in shown])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"time, {unit}")
    _legend(figure)
    alone = len({part.header.name for part in parts}) == 1 and count > 1
    gaps = "one process trains all stages in turn" if alone else "gaps are waiting"
    caption = f"Numbers are steps; {gaps}. Arrows follow the batch of step {step} through the pipeline."
    if len(rows) > MAX_ROWS:
        caption += f" The first {MAX_ROWS} of {len(rows)} rows."
    return Picture("pipeline", "The pipeline at work", caption, figure, wide=True)


def _legend(figure: Figure) -> None:
    looks: dict[str, dict[str, Any]] = {
        "forward": {"facecolor": QUIET.light},
        "update (loss, backward, optimizer)": {"facecolor": QUIET.light, "alpha": 0.42},
        "sending, or waiting for room": {"facecolor": QUIET.light, "alpha": 0.16},
        "probe, snapshot": {"facecolor": INK.light},
        "making a batch": {"facecolor": "none", "edgecolor": QUIET.light},
    }
    handles = [Patch(**{"linewidth": 0.8, **look}) for look in looks.values()]
    figure.legend(handles, list(looks), loc="outside lower center", ncols=len(looks), columnspacing=1.3, fontsize=10.5)


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
            key = (head.unit, stage, head.replica, name)
            row = found.setdefault(key, _Row(name, stage, head.replica, head.replicas, []))
            row.slices.append(each._replace(start=each.start + shift[head.clock]))
    for row in found.values():
        row.slices.sort(key=lambda each: (each.start, -each.duration))
    return [found[key] for key in sorted(found)]


def _window(rows: Sequence[_Row]) -> tuple[int, int, int] | None:
    """The step in the middle, and from when to when: from its batch's beginning to its end, and `STEPS` at least.

    Of steps that were done again the last time counts; the one that is shown went from stage to stage without a restart
    and is of the longest attempt.
    """
    stages = [row for row in rows if row.stage]
    if not stages:
        return None
    begins = [(row.stage, {each.step: each.start for each in row.of("forward")}) for row in stages]
    known = sorted(step for step in set.intersection(*(set(found) for _, found in begins)) if step is not None)
    if not known:
        return None
    ways = [(first, then) for k, first in begins for after, then in begins if after == k + 1]
    known = [step for step in known if all(first[step] <= then[step] for first, then in ways)] or known
    known = _longest_stretch(known, begins[-1][1])
    step = known[len(known) // 2]
    start = min(row.of("forward", step)[-1].start for row in stages)
    ends = [
        each.start + each.duration
        for row in stages
        for each in (row.of("update", step) or row.of("forward", step))[-1:]
    ]
    starts = np.array([each.start for each in stages[-1].of("forward")])
    pace = int(np.median(np.diff(starts))) if starts.size > 1 else max(ends) - start
    end = min(max(*ends, start + STEPS * pace), start + 2 * STEPS * max(pace, 1) + max(pace, 1))
    margin = max((end - start) // 100, 1)
    return step, start - margin, max(end, start + 1) + margin


def _longest_stretch(steps: list[int], begins: Mapping[int | None, int]) -> list[int]:
    """Those of the steps that follow each other without a pause."""
    if len(steps) < 3:
        return steps
    apart = np.diff([begins[step] for step in steps])
    breaks = np.flatnonzero((apart < 0) | (apart > _PAUSE * np.median(apart))) + 1
    edges = [0, *breaks.tolist(), len(steps)]
    first, end = max(pairwise(edges), key=lambda edge: edge[1] - edge[0])
    return steps[first:end]


def _draw_row(axes: Axes, place: int, row: _Row, count: int, window: tuple[int, int, float]) -> None:
    start, end, scale = window
    colour = stage_colour(row.stage, count) if row.stage else QUIET
    updates = ("update",) if row.of("update") else _LEARNING
    looks: dict[tuple[str, ...], tuple[float, dict[str, Any]]] = {
        ("send",): (0.22, {"facecolor": colour.light, "alpha": 0.16}),
        updates: (0.68, {"facecolor": colour.light, "alpha": 0.42}),
        ("probe", "snapshot"): (0.68, {"facecolor": INK.light}),
        ("forward",): (0.68, {"facecolor": colour.light}),
        ("make batch",): (0.5, {"facecolor": "none", "edgecolor": colour.light, "linewidth": 0.8}),
    }
    for names, (height, look) in looks.items():
        bars = [((s.start - start) / scale, s.duration / scale) for s in row.within(start, end, names)]
        if bars:
            axes.broken_barh(bars, (place - height / 2, height), **{"linewidth": 0, **look})
    room = WIDTH * 72 * 0.85 / (end - start)
    numbered = ("forward", "make batch", "update" if "update" in updates else "backward")
    for each in row.within(start, end, numbered):
        left, right = max(each.start, start), min(each.start + each.duration, end)
        if each.step is not None and (right - left) * room > _LETTER * len(str(each.step)) + 2:
            ink = on_bar(colour) if each.name == "forward" else INK
            middle, look = ((left + right) / 2 - start) / scale, {"fontsize": 10, "color": ink.light}
            axes.text(middle, place, str(each.step), ha="center", va="center_baseline", **look)


def _draw_way(axes: Axes, rows: Sequence[_Row], step: int, window: tuple[int, int, float]) -> None:
    """From forward pass to forward pass of one batch, and to each replica that holds rows of it."""
    start, _, scale = window
    points: dict[int, list[tuple[float, float, int, _Row]]] = {}
    for place, row in enumerate(rows):
        found = row.of("forward" if row.stage else "send", step)
        if found and found[-1].start >= start:
            since = (found[-1].start - start) / scale
            points.setdefault(row.stage, []).append((since, since + found[-1].duration / scale, place, row))
    for stage, sources in points.items():
        for since, until, place, row in sources:
            for begins, _, below, next_row in points.get(stage + 1, ()):
                if stage and not share_rows(row.replica - 1, row.replicas, next_row.replica - 1, next_row.replicas):
                    continue
                axes.annotate(
                    "",
                    xy=(begins, below - 0.34),
                    xytext=(min(since if until > begins else until, begins), place + 0.34),
                    arrowprops={"arrowstyle": "-|>", "color": INK.light, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0},
                )
