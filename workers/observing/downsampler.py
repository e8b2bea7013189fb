"""A table that never grows beyond a fixed number of rows, however many steps a run has.

A row stands for one bucket of steps. When the table is full, buckets become twice as wide (or wider, where steps are
far apart) and neighbours are joined, so each step costs the same and the shape of every curve is kept:

    limit 4:   steps 0 | 1 | 2 | 3          step 4 comes:   steps 0-1 | 2-3 | 4
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MAX_ROWS = 1024
MAX_COLUMNS = 2048
"""Terms are named by user code; a loss that makes up new names at every step must not fill the memory."""

Key = tuple[int, str]
"""Stage (0: the whole run) and name of a quantity."""


class _Column:
    """Sums and counts of a quantity up to its last row; or its last values, each with count 1."""

    def __init__(self, last: bool) -> None:
        self.last, self.sums, self.counts = last, array("d"), array("I")

    def fill(self, rows: int) -> None:
        """Append zeros up to `rows` rows."""
        if missing := rows - len(self.sums):
            self.sums.extend([0.0] * missing)
            self.counts.extend([0] * missing)

    def cut(self, rows: int) -> None:
        del self.sums[rows:], self.counts[rows:]


@dataclass(frozen=True)
class SampledRows:
    """A copy of the last rows of the table.

    Args:
        stride: steps per bucket.
        start: index of the first of these rows.
        steps: the last step in each row, counted from 0, `[R]`.
        times: when that step was done, in seconds since 1970, `[R]`.
        sums, counts: of the values in each bucket, `[R]`.
    """

    stride: int
    start: int
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    _: KW_ONLY
    sums: dict[Key, NDArray[np.float64]]
    counts: dict[Key, NDArray[np.uint32]]

    def column(self, key: Key, sums: bool = False) -> NDArray[np.float64]:
        """Means over each bucket, or sums, `[R]`; NaN where nothing was measured."""
        found = np.full(len(self.steps), np.nan)
        if key in self.sums:
            counts = self.counts[key]
            np.divide(self.sums[key], 1 if sums else counts, out=found, where=counts > 0)
        return found

    @cached_property
    def columns(self) -> dict[Key, NDArray[np.float64]]:
        """All means."""
        return {key: self.column(key) for key in self.sums}


class Downsampler:
    """Aggregates of named quantities over buckets of steps.

    Args:
        limit: maximum number of rows, at least 2.
        added_up: names of quantities that a bucket adds up; of others it keeps the last value. None: all are added up.
    """

    def __init__(self, limit: int = MAX_ROWS, added_up: Container[str] | None = None) -> None:
        self.limit, self._added_up = limit, added_up
        self.stride = 1
        """Steps per bucket, a power of two."""
        self._steps, self._times = array("q"), array("d")
        self._columns: dict[Key, _Column] = {}

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self._steps)

    @property
    def step(self) -> int:
        """The last step; -1 before the first."""
        return self._steps[-1] if self._steps else -1

    def add(self, step: int, time: float, values: Mapping[Key, float]) -> None:
        """Add the finite numbers of one step, in the order of steps; names beyond `MAX_COLUMNS` are dropped."""
        if step // self.stride > self.step // self.stride and self.count == self.limit:
            self._widen()
        if step // self.stride > self.step // self.stride:
            self._steps.append(step)
            self._times.append(time)
        self._steps[-1], self._times[-1] = max(step, self.step), time
        rows, columns = len(self._steps), self._columns
        for key, value in values.items():
            column = columns.get(key)
            if column is None:
                if len(columns) >= MAX_COLUMNS:
                    continue
                column = columns[key] = _Column(self._added_up is not None and key[1] not in self._added_up)
            missing = rows - len(column.sums)
            if missing > 1:
                column.fill(rows - 1)
            if missing:
                column.sums.append(value)
                column.counts.append(1)
            elif column.last:
                column.sums[-1], column.counts[-1] = value, 1
            else:
                column.sums[-1] += value
                column.counts[-1] += 1

    def withdraw(self, step: int) -> None:
        """Remove the rows that contain `step` or later ones, because these are trained again."""
        rows = int(np.searchsorted(self._steps, step))
        del self._steps[rows:], self._times[rows:]
        for column in self._columns.values():
            column.cut(rows)

    def _widen(self) -> None:
        """Join neighbours until at most half of the rows are left."""
        steps, times = np.array(self._steps), np.array(self._times)
        while True:
            self.stride *= 2
            starts = np.flatnonzero(np.diff(steps // self.stride, prepend=-1))
            if len(starts) <= self.limit // 2:
                break
        ends = np.append(starts[1:], len(steps)) - 1
        self._steps, self._times = array("q", steps[ends].tobytes()), array("d", times[ends].tobytes())
        for column in self._columns.values():
            column.fill(len(steps))
            sums, counts = np.array(column.sums), np.array(column.counts)
            if column.last:
                known = np.maximum.reduceat(np.where(counts > 0, np.arange(len(steps)), -1), starts)
                sums, counts = np.where(known < 0, 0.0, sums[known]), (known >= 0).astype(counts.dtype)
            else:
                sums, counts = np.add.reduceat(sums, starts), np.add.reduceat(counts, starts, dtype=counts.dtype)
            column.sums, column.counts = array("d", sums.tobytes()), array("I", counts.tobytes())

    def rows(self, start: int = 0) -> SampledRows:
        """The rows from index `start` on."""
        sums, counts = dict[Key, NDArray[np.float64]](), dict[Key, NDArray[np.uint32]]()
        for key, column in self._columns.items():
            sums[key], counts[key] = np.zeros(self.count - start), np.zeros(self.count - start, np.uint32)
            sums[key][: max(len(column.sums) - start, 0)] = column.sums[start:]
            counts[key][: max(len(column.counts) - start, 0)] = column.counts[start:]
        return SampledRows(
            self.stride, start, np.array(self._steps[start:]), np.array(self._times[start:]), sums=sums, counts=counts
        )
