"""Evaluations side by side: means and spreads over seeds, and differences with their standard errors.

Nothing here reads a file: the caller decides what the groups are, and whether they may be compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from launch.results.grid import Grid, without_repeats
from launch.results.measure_names import Quantity, clean, features_of, in_order, quantity
from pipeline.config.places import Feature
from pipeline.evaluation.document import EvaluationResults, Record


@dataclass(frozen=True)
class Estimate:
    """A number over the runs of a group.

    Args:
        mean: of the runs that have it.
        spread: sample standard deviation; None for one run, of which it is not known.
        n: how many runs have it, 1 or more.
    """

    mean: float
    spread: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """One number of every group.

    Args:
        data, block, feature, quantity: what of, as in a record.
        estimates: of each group; None where no run of it has the number.
    """

    data: str
    block: int
    feature: Feature
    quantity: Quantity
    estimates: tuple[Estimate | None, ...]


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and sample standard deviation (n - 1 in the denominator) of the runs; None if there are none."""
    if not values:
        return None
    return Estimate(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def difference(first: Estimate | None, other: Estimate | None) -> tuple[float, float | None] | None:
    """`other` minus `first`, and the standard error of that difference.

    The error is that of two independent means, sqrt(s1²/n1 + s2²/n2) (Welch, Biometrika 34, 1947), and not known (None)
    where one of the groups has a single run. Runs of the same seed are not paired.
    """
    if first is None or other is None:
        return None
    change = other.mean - first.mean
    if first.spread is None or other.spread is None:
        return change, None
    return change, math.sqrt(first.spread**2 / first.n + other.spread**2 / other.n)


def compare_documents(groups: Sequence[Sequence[EvaluationResults]], wanted: Sequence[str] = ()) -> list[Row]:
    """Every number of any of the evaluations, in the order of all tables.

    Args:
        groups: the evaluations of the runs that differ only in their seed.
        wanted: beginnings of `MEASURE/METRIC`, in whole words: `linear`, `linear/quick`, `quality/lidar`; empty: all.
    """
    values_of: dict[tuple[str, int, Feature, Quantity], list[list[float]]] = {}
    for index, documents in enumerate(groups):
        for document in documents:
            values = {_key(record): record.value for record in document.results if is_wanted(record, wanted)}
            for key, value in values.items():
                values_of.setdefault(key, [[] for _ in groups])[index].append(value)
    records = [record for group in groups for document in group for record in document.results]
    rank = (
        {data: index for index, data in enumerate(dict.fromkeys(record.data for record in records))},
        {kind: index for index, kind in enumerate(in_order(map(quantity, records)))},
        {feature: index for index, feature in enumerate(features_of(records))},
    )
    order = sorted(values_of, key=lambda key: (rank[0][key[0]], rank[1][key[3]], rank[2][key[2]], key[1]))
    return [Row(*key, tuple(map(estimate, values_of[key]))) for key in order]


def is_wanted(record: Record, wanted: Sequence[str]) -> bool:
    """Whether a record is among those that were asked for; see `compare_documents`."""
    name = f"{record.measure}/{record.metric}/"
    return not wanted or any(name.startswith(f"{beginning.strip('/')}/") for beginning in wanted)


def grids(rows: Sequence[Row], headings: Sequence[tuple[str, ...]], sizes: Sequence[int]) -> list[Grid]:
    """One table per data set and quantity: rows are feature and block, columns each group and its difference.

    Args:
        rows: of `compare_documents`.
        headings: of the groups: a short name, then what tells it from the others, a line each.
        sizes: runs in each.
    """
    head = [("feature",), ("block",), headings[0]]
    for heading in headings[1:]:  # the beginning is the same, so that both stay together
        head += [heading, (*(heading[:-1] or heading), f"− {headings[0][0]}")]
    result = []
    for data, kind in dict.fromkeys((row.data, row.quantity) for row in rows):
        cells = [_cells(row, sizes) for row in rows if (row.data, row.quantity) == (data, kind)]
        result.append(Grid(f"{clean(data)}: {kind}", tuple(head), without_repeats(cells, 1), keys=2))
    return result


CSV_COLUMNS = (
    "data", "block", "feature", "measure", "metric", "group", "runs", "n", "mean", "sd", "difference", "standard_error",
)  # fmt: skip
"""First columns of the CSV; programs rely on their order. One follows for each key in which the groups differ."""


def csv_rows(
    rows: Sequence[Row], labels: Sequence[str], runs: Sequence[str], settings: Sequence[Sequence[object]]
) -> list[tuple[object, ...]]:
    """One line per number and group, with every digit; see `CSV_COLUMNS`. Differences are to the first group.

    Args:
        rows: of `compare_documents`.
        labels, runs, settings: of each group: its letter, its runs, and its value of each key that differs.
    """
    lines: list[tuple[object, ...]] = []
    for row in rows:
        names = (row.data, row.block, row.feature, row.quantity.measure, row.quantity.metric)
        for index, value in enumerate(row.estimates):
            if value is not None:
                change = difference(row.estimates[0], value) if index else None
                numbers = (value.n, value.mean, value.spread, *(change or (None, None)))
                lines.append((*names, labels[index], runs[index], *numbers, *settings[index]))
    return lines


def _key(record: Record) -> tuple[str, int, Feature, Quantity]:
    return record.data, record.block, record.feature, quantity(record)


def _cells(row: Row, sizes: Sequence[int]) -> tuple[str, ...]:
    cells = [row.feature, str(row.block)]
    for index, value in enumerate(row.estimates):
        cells.append(_mean(row.quantity, value, sizes[index]))
        if index:
            cells.append(_change(row.quantity, difference(row.estimates[0], value)))
    return tuple(cells)


def _mean(kind: Quantity, value: Estimate | None, size: int) -> str:
    if value is None:
        return "-"
    spread = "" if value.spread is None else f" ± {kind.show(value.spread)}"
    return kind.show(value.mean) + spread + ("" if value.n == size else f" (n={value.n})")


def _change(kind: Quantity, change: tuple[float, float | None] | None) -> str:
    if change is None:
        return "-"
    return kind.show(change[0], sign=True) + ("" if change[1] is None else f" ± {kind.show(change[1])}")
