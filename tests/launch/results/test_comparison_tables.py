"""Tables of a comparison where a group lacks a number, or has it of some of its runs only."""

from __future__ import annotations

from launch.results.comparison_tables import Estimate, Row, csv_rows, difference, estimate, grids
from launch.results.measure_names import Quantity

TOP1 = Quantity("linear/quick", "top1")


def row(*estimates: Estimate | None) -> Row:
    return Row("fashion_mnist_10k", 4, "trunk", TOP1, estimates)


def test_what_a_group_has_not_measured_is_a_dash_and_so_is_its_difference() -> None:
    several, single = Estimate(0.5, 0.1, 2), Estimate(0.75, None, 1)
    (grid,) = grids([row(several, None, single), row(None, several, single)], [("A",), ("B",), ("C",)], [3, 2, 1])
    assert [cells[2:] for cells in grid.rows] == [
        (f"{TOP1.show(0.5)} ± {TOP1.show(0.1)} (n=2)", "-", "-", TOP1.show(0.75), TOP1.show(0.25, sign=True)),
        ("-", f"{TOP1.show(0.5)} ± {TOP1.show(0.1)}", "-", TOP1.show(0.75), "-"),
    ]


def test_what_a_group_has_not_measured_has_no_line_in_a_csv() -> None:
    several, single = Estimate(0.5, 0.1, 2), Estimate(0.75, None, 1)
    rows = [row(several, None, single), row(None, several, None)]
    lines = csv_rows(rows, ["A", "B", "C"], ["a", "b", "c"], [[0.1], [0.2], [None]])
    what = ("fashion_mnist_10k", 4, "trunk", "linear/quick", "top1")
    assert lines == [
        (*what, "A", "a", 2, 0.5, 0.1, None, None, 0.1),
        (*what, "C", "c", 1, 0.75, None, 0.25, None, None),
        (*what, "B", "b", 2, 0.5, 0.1, None, None, 0.2),
    ]


def test_an_estimate_needs_a_run_and_its_spread_needs_two() -> None:
    assert estimate([]) is None
    assert estimate([2.0]) == Estimate(2.0, None, 1)
    assert estimate([1.0, 3.0]) == Estimate(2.0, 2.0**0.5, 2)
    assert difference(None, estimate([1.0])) is None
    assert difference(estimate([1.0, 3.0]), estimate([2.0, 4.0])) == (1.0, 2.0**0.5)
