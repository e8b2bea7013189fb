"""Columns of numbers that grow row by row, eight bytes a number: a run of a million steps fits in memory."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Key = str | tuple[str, str]
"""Of a column; of a term or a measure its group and its name."""
SUMMED = "images"
"""The column whose numbers are added where rows are joined; of others the last that is known stays."""


def number(value: Any) -> float:
    """`value` if it is a finite number, else NaN: a file may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


class Columns:
    """Columns of one length; what a row does not name is NaN."""

    def __init__(self) -> None:
        self.size = 0
        self._columns: dict[Key, array[float]] = {}

    @property
    def keys(self) -> list[Key]:
        """Of all columns, in the order in which they came up."""
        return list(self._columns)

    def begin(self) -> None:
        """Begin a row."""
        self.size += 1

    def put(self, key: Key, value: Any) -> None:
        """In the last row; what is no finite number leaves what was put there before."""
        if type(value) is not float:
            value = number(value)
        if value - value != 0.0:  # infinite, or NaN
            return
        column = self._columns.get(key)
        if column is None:
            column = self._columns[key] = array("d")
        missing = self.size - len(column)
        if not missing:
            column[-1] = value
            return
        if missing > 1:
            column.extend([math.nan] * (missing - 1))
        column.append(value)

    def numbers(self, key: Key) -> Numbers:
        """One column, `[size]`, all NaN where there is none."""
        found = np.full(self.size, np.nan)
        column = self._columns.get(key, ())
        found[: len(column)] = column
        return found

    def cut(self, size: int) -> None:
        """Keep the first `size` rows."""
        self.size = size
        for column in self._columns.values():
            del column[size:]

    def join(self, groups: NDArray[np.int64]) -> None:
        """Make one row of rows that stand next to each other, two at most.

        Args:
            groups: a number for each row, `[size]`, ascending; equal for rows that become one.
        """
        first = np.flatnonzero(np.diff(groups, prepend=-1))
        last = np.append(first[1:], groups.size)[: first.size] - 1
        for key in self.keys:
            values = self.numbers(key)
            if key == SUMMED:
                joined = np.add.reduceat(np.nan_to_num(values), first)
            else:
                joined = np.where(np.isfinite(values[last]), values[last], values[first])
            self._columns[key] = array("d", joined.tobytes())
        self.size = first.size
