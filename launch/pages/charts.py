"""The figures of a run over its steps: one line per stage, in the colours of the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from launch.pages.colours import BLOCKED, BUSY, CARD, COPYING, INK, QUIET, STARVED, stage_colour
from launch.pages.series import POINTS, Numbers, RunSeries, StageSeries, curve
from launch.results.figure_style import MARKERS, label_outer, legend_below, named_blocks, panels
from workers.observing.observer import TIMES

MEASURES = {
    "linear": ("linear probe, %", 100.0), "knn": ("k-NN, %", 100.0), "rankme": ("RankMe", 1.0),
    "lidar": ("LiDAR", 1.0), "collapse": ("collapse level", 1.0), "alpha": ("α of the spectrum", 1.0),
}  # fmt: skip
"""Online measures: label, and factor."""
MAX_TERMS = 7
"""Maximum number of terms of a loss that are drawn; a user's loss may have any number."""
_MIB = 2.0**20
_LOG_RATIO = 50.0
"""Ratio of largest to smallest value from which a scale is logarithmic."""
_DOTS = 12
"""Number of markers on a curve, which tell curves apart; shorter curves have one per point."""
_MEANS = 30
"""Points of a curve that fluctuates with every step: means only, as the band of extremes would cover everything."""
Values = Callable[[StageSeries], Numbers]


@dataclass(frozen=True)
class Picture:
    """One figure, drawn in the light colours.

    Args:
        key: names its files, and its place on the page.
        title: what it shows.
        caption: how to read it.
        figure: drawn.
        wide: it needs the whole width of a page.
    """

    key: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False


def charts(series: RunSeries, count: int, depth: int) -> Iterator[Picture]:
    """All figures for which there are numbers; to be called within `launch.results.figure_style.styled`.

    Args:
        series: of the run.
        count: of its stages.
        depth: batches that may wait on a link.
    """
    drawing = _Drawing(list(series.stages.values()), count)
    found = (
        _throughput(series), _losses(drawing), _online(drawing), _shares(drawing), _busy(drawing),
        _queues(drawing, depth), _norms(drawing), _learning_rates(drawing), _memory(drawing),
    )  # fmt: skip
    yield from (picture for picture in found if picture is not None)


def _throughput(series: RunSeries) -> Picture | None:
    points = curve(series.step, np.where(series.rate > 0, series.rate, np.nan))  # 0: not known yet
    if not points.x.size:
        return None
    figure, (axes,) = panels([""], 1)
    axes.plot(points.x, points.y, color=INK.light, marker="o" if points.x.size == 1 else None)
    axes.fill_between(points.x, points.low, points.high, color=INK.light, alpha=0.15, linewidth=0)
    highest, handles, labels = float(points.high.max()), [Line2D([], [], color=INK.light)], ["measured"]
    for name, values, dashes in (("predicted", series.predicted, ":"), ("bound", series.bound, "--")):
        limit = curve(series.step, values)
        if limit.x.size:
            handles += axes.plot(limit.x, limit.y, color=QUIET.light, linestyle=dashes)
            labels.append(name)
            highest = max(highest, float(limit.y.max()))
    if handles[1:]:
        legend_below(figure, handles, labels)
    axes.set_ylim(0, 1.08 * max(highest, 1e-9))
    _steps([axes])
    axes.set_ylabel("images a second")
    caption = "Images that all stages have finished, over the last 20 seconds."
    if handles[1:]:
        caption += " Bound: if the slowest process only computed. Predicted: by a model of the pipeline."
    return Picture("throughput", "Throughput", caption, figure)


def _losses(drawing: _Drawing) -> Picture | None:
    wanted: dict[str, Values] = {"loss": lambda stage: stage.values["loss"]}
    terms = dict.fromkeys(name for stage in drawing.stages for name in stage.groups["terms"])
    for name in list(terms)[:MAX_TERMS]:
        wanted[name] = _member("terms", name)
    caption = "What every stage minimises, and the terms that its objective adds up; nothing is summed over stages."
    if len(terms) > MAX_TERMS:
        caption += f" {len(terms) - MAX_TERMS} more terms are in metrics.jsonl."
    return drawing.panels("loss", "Loss", caption, wanted, logarithmic=True)


def _online(drawing: _Drawing) -> Picture | None:
    wanted: dict[str, Values] = {}
    for name, (words, scale) in MEASURES.items():
        if any(name in stage.groups["online"] for stage in drawing.stages):
            wanted[words] = _member("online", name, scale)
    caption = "Measured of every stage's features beside the training, on augmented training images."
    return drawing.panels("online", "Online measures", caption, wanted)


def _norms(drawing: _Drawing) -> Picture | None:
    wanted: dict[str, Values] = {
        "gradient norm": lambda stage: stage.values["gradient_norm"],
        "update norm": lambda stage: stage.values["update_norm"],
    }
    caption = "Euclidean norm of each stage's whole gradient, and of the step that its parameters took."
    return drawing.panels("norms", "Gradient and update norms", caption, wanted, logarithmic=True)


def _learning_rates(drawing: _Drawing) -> Picture | None:
    wanted: dict[str, Values] = {"": lambda stage: stage.values["learning_rate"]}
    return drawing.panels("learning-rate", "Learning rate", "As the schedule of each stage sets it.", wanted)


def _memory(drawing: _Drawing) -> Picture | None:
    def of_gpu(stage: StageSeries) -> Numbers:
        found = stage.values["cuda_bytes"]
        return np.where(found > 0, found, np.nan) / _MIB

    wanted: dict[str, Values] = {
        "resident memory, MiB": lambda stage: stage.values["memory_bytes"] / _MIB,
        "GPU memory, MiB": of_gpu,
    }
    return drawing.panels("memory", "Memory", "Of the process of each stage; stages of one process share it.", wanted)


def _queues(drawing: _Drawing, depth: int) -> Picture | None:
    wanted: dict[str, Values] = {"": lambda stage: stage.values["queue_depth"]}
    caption = f"Batches that wait before each stage; a link holds {depth} at most and then blocks the stage before. "
    caption += "Means of neighbouring steps where there are many."
    picture = drawing.panels("queues", "Queue depth", caption, wanted, points=_MEANS)
    if picture is not None:
        axes = picture.figure.axes[0]
        axes.set_ylim(-0.05 * depth, 1.1 * depth)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("batches")
    return picture


def _busy(drawing: _Drawing) -> Picture | None:
    def share(stage: StageSeries) -> Numbers:
        parts = [stage.values[name] for name in TIMES]
        whole = np.nansum(parts, axis=0)  # earlier versions did not measure copying
        return np.where(whole > 0, 100 * parts[0] / np.maximum(whole, 1e-12), np.nan)

    caption = "Of the time of each step; the rest is waiting and copying. Means of several steps where there are many."
    picture = drawing.panels("busy", "Share of time computing", caption, {"": share}, points=_MEANS)
    if picture is not None:
        picture.figure.axes[0].set_ylim(0, 104)
        picture.figure.axes[0].set_ylabel("% of the step")
    return picture


def _shares(drawing: _Drawing) -> Picture | None:
    """One bar per stage: computing, waiting for input, waiting for room, copying."""
    shares = {stage.stage: stage.shares() for stage in drawing.stages}
    shares = {stage: found for stage, found in shares.items() if np.isfinite(found["busy"])}
    if not shares:
        return None
    figure, (axes,) = panels([""], 1, height=min(1.4 + 0.42 * len(shares), 9.0))
    left = np.zeros(len(shares))
    kinds = (
        ("busy", BUSY, "computing"),
        ("wait_input", STARVED, "waiting for input"),
        ("wait_output", BLOCKED, "waiting for room"),
        ("copying", COPYING, "copying"),
    )
    rows = np.arange(len(shares))
    for name, colour, _ in kinds:
        widths = np.array([100 * found[name] for found in shares.values()])
        axes.barh(rows, widths, left=left, height=0.68, color=colour.light)
        left += widths
    axes.set_yticks(rows, [f"stage {stage}" for stage in shares])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of its time")
    legend_below(figure, [Patch(color=colour.light) for _, colour, _ in kinds], [words for _, _, words in kinds])
    caption = "Over the whole run. The busiest stage sets the pace; the others wait for it."
    return Picture("time", "Where the time went", caption, figure)


class _Drawing:
    """Draws figures with one line per stage.

    Args:
        stages: what they reported.
        count: of the stages of the run.
    """

    def __init__(self, stages: Sequence[StageSeries], count: int) -> None:
        self.stages = stages
        self.colours = {stage.stage: stage_colour(stage.stage, count).light for stage in stages}

    def panels(
        self,
        key: str,
        title: str,
        caption: str,
        wanted: Mapping[str, Values],
        logarithmic: bool = False,
        points: int = POINTS,
    ) -> Picture | None:
        """A panel for each name of `wanted` that any stage has numbers for; None where there is none.

        Args:
            key, title, caption: see `Picture`.
            wanted: by the title of the panel, a stage's values, `[T]`.
            logarithmic: where the values span much.
            points: of each curve, at most; the extremes are drawn only of curves with `POINTS`.
        """
        known = {name: {stage.stage: get(stage) for stage in self.stages} for name, get in wanted.items()}
        known = {name: each for name, each in known.items() if any(np.isfinite(y).any() for y in each.values())}
        if not known:
            return None
        figure, all_axes = panels(list(known), 2, height=2.7, sharex=True)
        for axes, values in zip(all_axes, known.values(), strict=True):
            self._draw(axes, values, points)
            if logarithmic and _spans_much(list(values.values())):
                axes.set_yscale("log")
        _steps(all_axes)
        label_outer(all_axes, 2, "step", "")
        named = named_blocks(self.colours)
        handles, labels = [Line2D([], [], **self._look(stage)) for stage in named], [f"stage {k}" for k in named]
        if spare := [axes for axes in figure.axes if axes not in all_axes]:
            spare[0].legend(handles, labels, loc="center")
        else:
            legend_below(figure, handles, labels)
        return Picture(key, title, caption, figure)

    def _draw(self, axes: Axes, values: Mapping[int, Numbers], most: int) -> None:
        for index, stage in enumerate(self.stages):
            points = curve(stage.step, values[stage.stage], most)
            apart = -(-points.x.size // _DOTS)
            first = index * apart // len(self.stages)  # so that marks do not hide each other
            axes.plot(points.x, points.y, **self._look(stage.stage), linewidth=1.8, markevery=(first, max(apart, 1)))
            if most == POINTS and (points.high > points.low).any():
                colour = self.colours[stage.stage]
                axes.fill_between(points.x, points.low, points.high, color=colour, alpha=0.14, linewidth=0)

    def _look(self, stage: int) -> dict[str, Any]:
        marker = MARKERS[(stage - 1) % len(MARKERS)]
        edge = {"markeredgecolor": CARD.light, "markeredgewidth": 0.6}
        return {"color": self.colours[stage], "marker": marker, "markersize": 5.5, **edge}


def _member(group: str, name: str, scale: float = 1.0) -> Values:
    return lambda stage: scale * stage.groups[group].get(name, np.full(stage.step.shape, np.nan))


def _spans_much(values: Sequence[Numbers]) -> bool:
    known = np.concatenate([each[np.isfinite(each)] for each in values])
    known = known[known != 0]  # norms of steps without an update
    return bool(known.size and known.min() > 0 and known.max() / known.min() > _LOG_RATIO)


def _steps(all_axes: Sequence[Axes]) -> None:
    """Label the x axes with steps as short whole numbers."""
    for axes in all_axes:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: short_count(step)))
        if axes.get_subplotspec().is_last_row():  # type: ignore[union-attr]
            axes.set_xlabel("step")


def short_count(value: float) -> str:
    """Such as `12`, `4.5k`, `2M`."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:g}"
