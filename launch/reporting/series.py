"""The lines of `metrics.jsonl` as columns of numbers: one set for each stage, whatever is missing as NaN.

Totals begin at 0 again after a stage was restarted; what a stage spent in a step is the difference of two lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
TOTALS = ("busy", "wait_input", "wait_output")
PLAIN = (
    "loss", "learning_rate", *TOTALS, "queue_depth", "link_bytes", "skipped", "gradient_norm", "update_norm",
    "memory_bytes", "cuda_bytes", "snapshot_seconds",
)  # fmt: skip
"""Of a stage, a number a step."""
GROUPS = ("terms", "online")
"""Of a stage, several numbers a step, by name."""
POINTS = 300
"""Of one curve; more cannot be told apart, and would make a page large."""


@dataclass
class StageSeries:
    """What one stage reported.

    Args:
        stage: counted from 1.
        step: of every report, `[T]`.
        values: by name (`PLAIN`), `[T]`.
        groups: `terms` and `online`: by name, `[T]`.
    """

    stage: int
    step: Numbers
    values: dict[str, Numbers] = field(default_factory=dict)
    groups: dict[str, dict[str, Numbers]] = field(default_factory=dict)

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
        sums = {name: float(np.nansum(self.spent(name))) for name in TOTALS}
        whole = sum(sums.values())
        return {name: value / whole if whole else math.nan for name, value in sums.items()}

    def last(self, name: str) -> float:
        """The last number that there is; NaN if there is none."""
        known = self.values[name][np.isfinite(self.values[name])]
        return float(known[-1]) if known.size else math.nan


@dataclass
class RunSeries:
    """What a run reported.

    Args:
        step, epoch, time, images, rate: of every line, `[T]`; `rate` in images a second.
        stages: by number.
    """

    step: Numbers
    epoch: Numbers
    time: Numbers
    images: Numbers
    rate: Numbers
    stages: dict[int, StageSeries]


@dataclass(frozen=True)
class Curve:
    """A line to draw: at each `x` the mean of `y` about it, and from where to where it went."""

    x: Numbers
    y: Numbers
    low: Numbers
    high: Numbers


def number(value: Any) -> float:
    """`value` if it is a finite number, else NaN: a file may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def read_series(lines: Sequence[Mapping[str, Any]]) -> RunSeries:
    """Columns of all lines; of a step that occurs twice, because a run went on from a snapshot, the later line."""
    latest = {line["step"]: line for line in lines if isinstance(line.get("step"), int)}
    ordered = [latest[step] for step in sorted(latest)]
    found: dict[int, list[tuple[int, Mapping[str, Any]]]] = {}
    for line in ordered:
        entries = line.get("stages")
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("stage"), int) and entry["stage"] > 0:
                found.setdefault(entry["stage"], []).append((line["step"], entry))
    names = {"step": "step", "epoch": "epoch", "time": "time", "images": "images", "rate": "images_per_second"}
    columns = {name: _column(ordered, key) for name, key in names.items()}
    return RunSeries(stages={stage: _stage(stage, found[stage]) for stage in sorted(found)}, **columns)


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


def _stage(stage: int, entries: Sequence[tuple[int, Mapping[str, Any]]]) -> StageSeries:
    reports = [entry for _, entry in entries]
    series = StageSeries(stage, np.array([step for step, _ in entries], dtype=np.float64))
    series.values = {name: _column(reports, name) for name in PLAIN}
    for group in GROUPS:
        parts = [entry.get(group) for entry in reports]
        known = [part if isinstance(part, dict) else {} for part in parts]
        names = dict.fromkeys(str(name) for part in known for name in part)
        series.groups[group] = {name: _column(known, name) for name in names}
    return series


def _column(entries: Iterable[Mapping[str, Any]], name: str) -> Numbers:
    return np.array([number(entry.get(name)) for entry in entries], dtype=np.float64)
