"""A table that never grows beyond a fixed number of rows, however many steps a run has.

A row is the mean over the steps of one bucket. When the table is full, buckets become twice as wide (or wider, where
steps are far apart) and neighbours are joined, so each step costs the same and the shape of every curve is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ROWS = 1024
MAX_COLUMNS = 2048
"""Names of terms are the user's; a loss that invents new ones at every step must not fill the memory."""

Key = tuple[int, str]
"""A stage, 0 for the run as a whole, and the name of a quantity."""


@dataclass
class _Column:
    sums: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """A copy of the last rows of the table.

    Args:
        stride: steps a bucket.
        start: number of the first of these rows.
        steps: the last step in each row, counted from 0, `[R]`.
        times: when that step was done, in seconds since 1970, `[R]`.
        columns: means over each bucket, `[R]`; NaN where nothing was measured.
    """

    stride: int
    start: int
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    columns: dict[Key, NDArray[np.float64]]


class Downsampler:
    """Means of named quantities over buckets of steps.

    Args:
        limit: the most rows, at least 2.
    """

    def __init__(self, limit: int = MAX_ROWS) -> None:
        self.limit = limit
        self.stride, self.count = 1, 0
        """Steps a bucket, a power of two, and rows that are filled."""
        self._steps = np.zeros(limit, np.int64)
        self._times = np.zeros(limit, np.float64)
        self._columns: dict[Key, _Column] = {}

    def add(self, step: int, time: float, values: Mapping[Key, float]) -> None:
        """Take in finite numbers of one step, which come in the order of steps; names beyond the limit are left out."""
        last = int(self._steps[self.count - 1]) if self.count else -1
        if not self.count or step // self.stride > last // self.stride:
            if self.count == self.limit:
                self._widen()
            if not self.count or step // self.stride > last // self.stride:
                self.count += 1
        row = self.count - 1
        self._steps[row], self._times[row] = max(step, last), time
        for key, value in values.items():
            column = self._columns.get(key)
            if column is None:
                if len(self._columns) >= MAX_COLUMNS:
                    continue
                empty = _Column(np.zeros(self.limit, np.float64), np.zeros(self.limit, np.int64))
                column = self._columns.setdefault(key, empty)
            column.sums[row] += value
            column.counts[row] += 1

    def _widen(self) -> None:
        """Join neighbours until at most half of the rows are left."""
        steps, stride = self._steps[: self.count], self.stride
        while True:
            stride *= 2
            starts = np.flatnonzero(np.diff(steps // stride, prepend=-1))
            if len(starts) <= self.limit // 2:
                break
        ends = np.append(starts[1:], self.count) - 1
        kept = len(starts)
        for values in (self._steps, self._times):
            values[:kept] = values[ends]
            values[kept:] = 0
        for column in self._columns.values():
            for parts in (column.sums, column.counts):
                parts[:kept] = np.add.reduceat(parts[: self.count], starts)
                parts[kept:] = 0
        self.stride, self.count = stride, kept

    def rows(self, start: int = 0) -> Rows:
        """The rows from number `start` on."""
        part = slice(start, self.count)
        columns = {}
        for key, column in self._columns.items():
            counts = column.counts[part]
            means = np.full(len(counts), np.nan)
            np.divide(column.sums[part], counts, out=means, where=counts > 0)
            columns[key] = means
        return Rows(self.stride, start, self._steps[part].copy(), self._times[part].copy(), columns)
