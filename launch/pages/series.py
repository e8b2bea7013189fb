"""The lines of `metrics.jsonl` as columns of numbers, one set per stage; missing values are NaN.

In a very long run, neighbouring steps are joined into one row, so that memory is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.observing.amounts import RUN, STAGE_TOTALS, finite
from workers.observing.downsampler import Downsampler, Key, SampledRows
from workers.observing.line_numbers import STAGE_GROUPS, STAGE_LEVELS, numbers_of
from workers.observing.observer import TIMES

Numbers = NDArray[np.float64]
POINTS = 300
"""Maximum number of points per curve, which bounds the size of the page."""
MOST = 2**18
"""Maximum number of rows. Four stages with a few measures take some 300 MB."""
_LINES, _LOST = "lines", "steps without a finite loss"
_SUMMED = {"images", *STAGE_TOTALS, _LINES, _LOST}
"""What is added up where rows are joined; of anything else the last known value is kept."""


@dataclass(kw_only=True)
class StageSeries:
    """The reports of one stage.

    Args:
        stage: counted from 1.
        step: of every report, `[T]`.
        values: what was measured, and what each step added to a total, by name, `[T]`.
        groups: `terms` and `online`: by name, `[T]`.
        lost: number of steps so far whose loss was not finite, `[T]`.
        loses: whether the last loss is not finite.
    """

    stage: int
    step: Numbers
    values: dict[str, Numbers] = field(default_factory=dict)
    groups: dict[str, dict[str, Numbers]] = field(default_factory=dict)
    lost: Numbers = field(default_factory=lambda: np.array([]))
    loses: bool = False

    def total(self, name: str) -> float:
        """Sum over all steps; NaN where nothing is known."""
        values = self.values[name]
        return float(np.nansum(values)) if np.isfinite(values).any() else math.nan

    def shares(self) -> dict[str, float]:
        """Shares of the whole time that were spent computing, waiting and copying, 0 to 1."""
        sums = {name: float(np.nansum(self.values[name])) for name in TIMES}
        whole = sum(sums.values())
        return {name: value / whole if whole else math.nan for name, value in sums.items()}

    def last(self, name: str) -> float:
        """The last finite number; NaN if there is none."""
        return last_known(self.values[name])


@dataclass(kw_only=True)
class RunSeries:
    """The reports of a run.

    Args:
        count: number of steps.
        every: steps per row, 1 unless there are very many.
        step, epoch, time, images, rate, bound, predicted, eta: of every row, `[T]`; `rate` and what is possible and
            predicted in images a second, `eta` in seconds.
        stages: by number.
    """

    count: int
    every: int
    step: Numbers
    epoch: Numbers
    time: Numbers
    images: Numbers
    rate: Numbers
    bound: Numbers
    predicted: Numbers
    eta: Numbers
    stages: dict[int, StageSeries]


@dataclass(frozen=True)
class Curve:
    """A line to draw: at each `x` the mean of `y` around it, and its minimum and maximum."""

    x: Numbers
    y: Numbers
    low: Numbers
    high: Numbers


def read_series(lines: Iterable[Mapping[str, Any]], most: int = MOST) -> RunSeries:
    """The columns of all lines, which are as `each_step` yields them.

    Where a run resumed from a snapshot, steps of an earlier attempt that were trained again are dropped.

    Args:
        lines: in the order in which they were written.
        most: maximum number of rows.
    """
    gathering = _Gathering(most)
    for line in lines:
        gathering.add(line)
    return gathering.series()


def curve(x: Numbers, y: Numbers, points: int = POINTS) -> Curve:
    """`y` over `x` where it is finite, as at most `points` means."""
    known = np.isfinite(y) & np.isfinite(x)
    x, y = x[known], y[known]
    if x.size <= points:
        return Curve(x, y, y, y)
    edges = np.linspace(0, x.size, points + 1).astype(int)[:-1]
    sizes = np.diff(np.append(edges, x.size))
    low, high = np.minimum.reduceat(y, edges), np.maximum.reduceat(y, edges)
    return Curve(np.add.reduceat(x, edges) / sizes, np.add.reduceat(y, edges) / sizes, low, high)


class _Gathering:
    """Collects lines one by one."""

    def __init__(self, most: int) -> None:
        self._table = Downsampler(most, _SUMMED)
        self._loses: dict[int, bool] = {}

    def add(self, line: Mapping[str, Any]) -> None:
        step: int = line["step"]
        if step <= self._table.step:
            self._table.withdraw(step)
        values = numbers_of(line)
        values[RUN, _LINES] = finite(line.get("steps")) or 1  # a line may be of several (metrics.every)
        for entry in line["stages"]:
            values[entry["stage"], _LINES] = 1
            if isinstance(loss := entry.get("loss"), float):
                self._loses[entry["stage"]] = not math.isfinite(loss)
                values[entry["stage"], _LOST] = not math.isfinite(loss)
        self._table.add(step, line["time"], values)

    def series(self) -> RunSeries:
        rows = self._table.rows()
        names = {"epoch": "epoch", "images": "images", "rate": "images_per_second", "eta": "eta_seconds"}
        names |= {name: f"{name}_images_per_second" for name in ("bound", "predicted")}
        stages = sorted(k for (k, name), counts in rows.counts.items() if k and name == _LINES and counts.any())
        return RunSeries(
            count=int(np.nansum(rows.column((RUN, _LINES), sums=True))),
            every=rows.stride,
            step=rows.steps.astype(float),
            time=rows.times,
            stages={stage: self._of_stage(stage, rows) for stage in stages},
            **{name: rows.column((RUN, key), sums=key in _SUMMED) for name, key in names.items()},
        )

    def _of_stage(self, stage: int, rows: SampledRows) -> StageSeries:
        there = rows.counts[stage, _LINES] > 0

        def column(key: Key) -> Numbers:
            return rows.column(key, sums=key[1] in _SUMMED)[there]

        names = [name for number, name in rows.sums if number == stage]
        groups = {
            group: {name.removeprefix(prefix): column((stage, name)) for name in names if name.startswith(prefix)}
            for group, prefix in STAGE_GROUPS.items()
        }
        values = {name: column((stage, name)) for name in (*STAGE_LEVELS, *STAGE_TOTALS)}
        lost = np.nancumsum(column((stage, _LOST)))
        return StageSeries(
            stage=stage,
            step=rows.steps[there].astype(float),
            values=values,
            groups=groups,
            lost=lost,
            loses=self._loses.get(stage, False),
        )


def last_known(values: Numbers | None) -> float:
    """The last number that there is; NaN if there is none."""
    known = values[np.isfinite(values)] if values is not None else np.array([])
    return float(known[-1]) if known.size else math.nan


def number(value: object) -> float:
    """`value` if it is a finite number, else NaN."""
    return math.nan if (found := finite(value)) is None else found
