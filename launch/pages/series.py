"""The lines of `metrics.jsonl` as columns of numbers: one set for each stage, whatever is missing as NaN.

Totals begin at 0 again after a stage was restarted; what a stage spent in a step is the difference of two lines. Of a
run of very many steps, steps next to each other are joined to one row, so that memory has a bound.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from launch.pages.columns import SUMMED, Columns, Numbers, number
from workers.observing.observer import TIMES

PLAIN = (
    "loss", "learning_rate", *TIMES, "queue_depth", "link_bytes", "skipped", "gradient_norm", "update_norm",
    "memory_bytes", "cuda_bytes", "snapshot_seconds",
)  # fmt: skip
"""Of a stage, a number a step."""
GROUPS = ("terms", "online")
"""Of a stage, several numbers a step, by name."""
OF_RUN = {"step": "step", "epoch": "epoch", "time": "time", "rate": "images_per_second", "eta": "eta_seconds"}
"""Of a step, beside its images: the name of the column, and that in the file."""
POINTS = 300
"""Of one curve; more cannot be told apart, and would make a page large."""
MOST = 2**18
"""Rows that are kept; even. Four stages with a few measures take some 200 MB."""
_LOST, _LOSES, _LINES = "steps without a finite loss", "whether the last one is", "lines"


@dataclass(kw_only=True)
class StageSeries:
    """What one stage reported.

    Args:
        stage: counted from 1.
        step: of every report, `[T]`.
        values: by name (`PLAIN`), `[T]`.
        groups: `terms` and `online`: by name, `[T]`.
        lost: steps whose loss was not finite so far, `[T]`.
        loses: whether the last loss of all is not finite.
    """

    stage: int
    step: Numbers
    values: dict[str, Numbers] = field(default_factory=dict)
    groups: dict[str, dict[str, Numbers]] = field(default_factory=dict)
    lost: Numbers = field(default_factory=lambda: np.array([]))
    loses: bool = False

    def spent(self, name: str) -> Numbers:
        """What every step added to a total, `[T]`; after a restart the total is what was spent since."""
        total = self.values[name]
        before = np.concatenate([[0.0], total[:-1]]) if total.size else total
        return np.where(total >= before, total - before, total)

    def total(self, name: str) -> float:
        """Of the whole run; NaN where nothing is known."""
        return float(np.nansum(self.spent(name))) if np.isfinite(self.values[name]).any() else math.nan

    def shares(self) -> dict[str, float]:
        """Of the whole time, the share that was spent computing and waiting, 0 to 1."""
        sums = {name: float(np.nansum(self.spent(name))) for name in TIMES}
        whole = sum(sums.values())
        return {name: value / whole if whole else math.nan for name, value in sums.items()}

    def last(self, name: str) -> float:
        """The last number that there is; NaN if there is none."""
        known = self.values[name][np.isfinite(self.values[name])]
        return float(known[-1]) if known.size else math.nan


@dataclass(kw_only=True)
class RunSeries:
    """What a run reported.

    Args:
        count: of its steps.
        every: steps that make a row, 1 unless there are very many.
        step, epoch, time, images, rate, eta: of every row, `[T]`; `rate` in images a second, `eta` in seconds.
        stages: by number.
    """

    count: int
    every: int
    step: Numbers
    epoch: Numbers
    time: Numbers
    images: Numbers
    rate: Numbers
    eta: Numbers
    stages: dict[int, StageSeries]


@dataclass(frozen=True)
class Curve:
    """A line to draw: at each `x` the mean of `y` about it, and from where to where it went."""

    x: Numbers
    y: Numbers
    low: Numbers
    high: Numbers


def read_series(lines: Iterable[Mapping[str, Any]], most: int = MOST) -> RunSeries:
    """Columns of all lines, each with a whole number `step`, and a list `stages` of dictionaries with a number `stage`.

    Where a run went on from a snapshot, what an earlier attempt did of its steps and later ones is withdrawn.

    Args:
        lines: in the order in which they were written.
        most: rows to keep, an even number.
    """
    gathering = _Gathering(most)
    for line in lines:
        gathering.add(line)
    return gathering.series()


def curve(x: Numbers, y: Numbers, points: int = POINTS) -> Curve:
    """`y` over `x` where it is known, in `points` means at most."""
    known = np.isfinite(y) & np.isfinite(x)
    x, y = x[known], y[known]
    if x.size <= points:
        return Curve(x, y, y, y)
    edges = np.linspace(0, x.size, points + 1).astype(int)[:-1]
    sizes = np.diff(np.append(edges, x.size))
    low, high = np.minimum.reduceat(y, edges), np.maximum.reduceat(y, edges)
    return Curve(np.add.reduceat(x, edges) / sizes, np.add.reduceat(y, edges) / sizes, low, high)


class _StageRows:
    """What one stage reported, and in which row of the run each row lies."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.columns = Columns()
        self.lost = 0

    def add(self, row: int, entry: Mapping[str, Any], step: int) -> None:
        columns = self.columns
        if not self.rows or self.rows[-1] != row:
            columns.begin()
            self.rows.append(row)
        columns.put("step", step)
        for name in PLAIN:
            columns.put(name, entry.get(name))
        for group in GROUPS:
            members = entry.get(group)
            for name, value in members.items() if isinstance(members, dict) else ():
                columns.put((group, name), value)
        if isinstance(loss := entry.get("loss"), float):
            loses = not math.isfinite(loss)
            self.lost += loses
            columns.put(_LOST, self.lost)
            columns.put(_LOSES, float(loses))

    def cut(self, row: int) -> None:
        size = bisect_left(self.rows, row)
        del self.rows[size:]
        self.columns.cut(size)
        lost = self.columns.numbers(_LOST)
        self.lost = int(np.nanmax(lost, initial=0.0))

    def halve(self) -> None:
        groups = np.array(self.rows, dtype=np.int64) // 2
        self.columns.join(groups)
        self.rows = np.unique(groups).tolist()

    def series(self, stage: int) -> StageSeries:
        columns, groups = self.columns, dict[str, dict[str, Numbers]]()
        for group in GROUPS:
            keys = [key for key in columns.keys if isinstance(key, tuple) and key[0] == group]
            groups[group] = {key[1]: columns.numbers(key) for key in keys}
        values = {name: columns.numbers(name) for name in PLAIN}
        loses = columns.numbers(_LOSES)
        known = loses[np.isfinite(loses)]
        return StageSeries(
            stage=stage,
            step=columns.numbers("step"),
            values=values,
            groups=groups,
            lost=columns.numbers(_LOST),
            loses=bool(known.size and known[-1]),
        )


class _Gathering:
    """Takes lines one by one. Of `every` steps in a row there is one row: the sum of their images, else the last."""

    def __init__(self, most: int) -> None:
        self._most, self._every, self._room = most, 1, 0
        self._lines, self._stages = Columns(), dict[int, _StageRows]()
        self._count, self._last = 0, -1
        self._images = math.nan

    def add(self, line: Mapping[str, Any]) -> None:
        step: int = line["step"]
        if step <= self._last:
            self._withdraw(step)
        if not self._room:
            self._begin()
        self._room -= 1
        self._count += 1
        self._last = step
        for name, key in OF_RUN.items():
            self._lines.put(name, line.get(key))
        if math.isfinite(images := number(line.get("images"))):
            self._images = images + (self._images if math.isfinite(self._images) else 0)
        self._lines.put(SUMMED, self._images)
        self._lines.put(_LINES, self._count)
        for entry in line.get("stages", ()):
            if entry["stage"] > 0:
                rows = self._stages.setdefault(entry["stage"], _StageRows())
                rows.add(self._lines.size - 1, entry, step)

    def series(self) -> RunSeries:
        columns = {name: self._lines.numbers(name) for name in (*OF_RUN, SUMMED)}
        stages = {stage: self._stages[stage].series(stage) for stage in sorted(self._stages)}
        return RunSeries(
            count=self._count,
            every=self._every,
            stages={k: each for k, each in stages.items() if each.step.size},
            **columns,
        )

    def _begin(self) -> None:
        if self._lines.size == self._most:
            self._every *= 2
            self._lines.join(np.arange(self._most) // 2)
            for stage in self._stages.values():
                stage.halve()
        self._lines.begin()
        self._room, self._images = self._every, math.nan

    def _withdraw(self, step: int) -> None:
        """Forget the rows that reach `step`."""
        size = int(np.searchsorted(self._lines.numbers("step"), step))
        self._lines.cut(size)
        for stage in self._stages.values():
            stage.cut(size)
        self._count = int(np.nanmax(self._lines.numbers(_LINES), initial=0.0))
        self._room = 0
