"""The numbers behind a report: totals that begin again, steps that occur twice, curves that are thinned out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from launch.reporting.colours import Pair, stage_colour
from launch.reporting.series import curve, number, read_series
from launch.reporting.words import date_of, duration, percent, plain, size_of
from tests.launch.reported import line


def test_what_was_spent_after_a_restart_is_what_the_new_total_says() -> None:
    series = read_series([line(step) for step in range(40)])
    np.testing.assert_allclose(series.stages[2].spent("busy"), 0.3)
    assert series.stages[2].total("link_bytes") == 40_000
    assert series.stages[2].shares() == pytest.approx({"busy": 0.6, "wait_input": 0.2, "wait_output": 0.2})


def test_of_a_step_that_occurs_twice_the_later_line_counts() -> None:
    series = read_series([line(0), line(1), line(2), line(1, images=7)])
    assert series.step.tolist() == [0, 1, 2]
    assert series.images.tolist() == [256, 7, 256]


def test_what_is_missing_is_not_a_number() -> None:
    series = read_series([{"step": 0, "time": 1.0, "stages": [{"stage": 1}]}])
    assert math.isnan(series.rate[0])
    assert math.isnan(series.stages[1].last("loss"))
    assert math.isnan(series.stages[1].total("link_bytes"))
    assert math.isnan(series.stages[1].shares()["busy"])
    assert series.stages[1].groups == {"terms": {}, "online": {}}


@pytest.mark.parametrize("value", [None, "1", True, math.nan, math.inf, 10**400, [1], {}])
def test_only_finite_numbers_are_numbers(value: object) -> None:
    assert math.isnan(number(value))


def test_a_curve_keeps_its_mean_and_its_extremes() -> None:
    y = np.sin(np.arange(10_000) / 100)
    y[5000], y[7000] = 9.0, math.nan
    thin = curve(np.arange(10_000.0), y, points=100)
    assert thin.x.size == 100
    assert thin.high.max() == 9.0
    assert thin.low.min() == np.nanmin(y)
    assert np.all((thin.low <= thin.y) & (thin.y <= thin.high))
    assert np.mean(thin.y) == pytest.approx(np.nanmean(y), abs=1e-3)
    short = curve(np.arange(3.0), np.array([1.0, math.nan, 2.0]))
    assert (short.x.tolist(), short.y.tolist()) == ([0.0, 2.0], [1.0, 2.0])


def test_stages_have_colours_of_their_own_and_an_order() -> None:
    assert stage_colour(1, 4) == Pair("#27348b", "#8c9bff")
    for count in (1, 2, 4, 7, 16):
        colours = [stage_colour(stage, count) for stage in range(1, count + 1)]
        assert len({pair.light for pair in colours}) == len({pair.dark for pair in colours}) == count
    assert stage_colour(16, 16) == Pair("#8a2f5c", "#e77fb3")


def test_numbers_as_a_person_reads_them() -> None:
    assert [duration(s) for s in (4.21, 200, 7500, 273600)] == ["4.2 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"]
    assert [size_of(b) for b in (12, 2048, 5.1e8, 3.2e10)] == ["12 B", "2 KiB", "486 MiB", "29.8 GiB"]
    assert [plain(v) for v in (0.12345, 12345.6, math.nan)] == ["0.1235", "12,346", "–"]
    assert [percent(v) for v in (0.1234, math.nan)] == ["12.3", "–"]
    assert [date_of(math.nan), date_of(1e30), duration(-1), size_of(math.nan)] == ["–"] * 4
