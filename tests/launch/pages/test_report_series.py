"""The numbers behind a report: totals that begin again, steps that occur twice, curves that are thinned out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch.pages import series as series_module
from launch.pages.colours import BLOCKED, BUSY, CARD, COPYING, INK, STARVED, ColourPair, stage_colour
from launch.pages.number_format import date_of, duration, percent, plain, size_of
from launch.pages.run_record import _about
from launch.pages.series import RunSeries, curve, number
from launch.pages.tables import _utilisation, probe_table
from tests.launch.pages.reported import line
from workers.observing import live
from workers.observing.amounts import MissingAmounts


def read_series(lines: Iterable[dict[str, Any]], most: int = 2**18) -> RunSeries:
    """Of lines as the reader of the file has them."""
    missing = MissingAmounts()
    return series_module.read_series((missing.fill({"time": 1.0, **line}) for line in lines), most)


def test_what_was_spent_after_a_restart_is_what_the_new_total_says() -> None:
    series = read_series([line(step) for step in range(40)])
    np.testing.assert_allclose(series.stages[2].values["busy"], 0.3)
    assert series.stages[2].total("link_bytes") == 40_000
    shares = {"busy": 0.3 / 0.55, "wait_input": 0.1 / 0.55, "wait_output": 0.1 / 0.55, "copying": 0.05 / 0.55}
    assert series.stages[2].shares() == pytest.approx(shares)


def test_what_an_earlier_attempt_did_after_the_snapshot_is_withdrawn() -> None:
    spoilt = {**line(2), "stages": [{"stage": 1, "loss": math.nan}, {"stage": 7, "loss": 1.0}]}
    series = read_series([line(0), line(1), spoilt, line(1, images=7)])
    assert (series.count, series.step.tolist()) == (2, [0, 1])
    assert series.images.tolist() == [256, 7]
    assert (list(series.stages), series.stages[1].step.tolist()) == ([1, 2, 3, 4], [0, 1])
    assert (series.stages[1].lost.max(), series.stages[1].loses) == (0, False)


@pytest.mark.parametrize("steps", [8, 9, 40, 61])
def test_of_very_many_steps_rows_are_joined_and_no_number_is_lost(steps: int) -> None:
    whole, thin = (read_series((line(step) for step in range(steps)), most=most) for most in (1000, 8))
    assert whole.every == 1
    assert thin.every == {8: 1, 9: 2, 40: 8, 61: 8}[steps]
    assert thin.step.size <= 8
    assert (thin.count, thin.images.sum(), thin.step[-1]) == (steps, 256 * steps, steps - 1)
    for stage, found in thin.stages.items():
        full = whole.stages[stage]
        np.testing.assert_array_equal(found.step, thin.step)
        assert found.last("loss") == full.last("loss")
        assert found.last("gradient_norm") == full.last("gradient_norm"), "measured every ten steps"
        rank, of_all = (each.groups["online"]["rankme"] for each in (found, full))
        assert rank[np.isfinite(rank)][-1] == of_all[np.isfinite(of_all)][-1], "measured every five"
        if stage != 2 or steps < 30:
            assert found.total("busy") == pytest.approx(full.total("busy"))


def test_a_loss_that_is_not_finite_is_counted_and_is_not_the_last_one() -> None:
    def lines(losses: Sequence[float | None]) -> list[dict[str, object]]:
        return [{"step": step, "stages": [{"stage": 1, "loss": loss}]} for step, loss in enumerate(losses)]

    stage = read_series(lines([1.0, math.nan, math.inf, 2.0])).stages[1]
    assert (stage.lost.tolist(), stage.loses, stage.last("loss")) == ([0, 1, 2, 2], False, 2.0)
    assert read_series(lines([1.0, math.nan, None])).stages[1].loses, "a step in which it did not learn"
    assert read_series(lines([1.0] * 8 + [math.nan]), most=4).stages[1].loses


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
    assert stage_colour(1, 4) == ColourPair("#27348b", "#8c9bff")
    for count in (1, 2, 4, 7, 16):
        colours = [stage_colour(stage, count) for stage in range(1, count + 1)]
        assert len({pair.light for pair in colours}) == len({pair.dark for pair in colours}) == count
    assert stage_colour(16, 16) == ColourPair("#8a2f5c", "#e77fb3")


def test_the_live_page_has_the_same_colours() -> None:
    static = Path(live.__file__).parent / "static"
    ramps = re.findall(r'(light|dark): \[((?:"#[0-9a-f]{6}",? ?)+)\]', (static / "theme.js").read_text())
    found = {name: re.findall(r"#[0-9a-f]{6}", ramp) for name, ramp in ramps}
    assert found == {
        name: [getattr(stage_colour(stage, 7), name) for stage in range(1, 8)] for name in ("light", "dark")
    }
    sheet = (static / "base.css").read_text()
    for name, pair in {
        "busy": BUSY,
        "input": STARVED,
        "output": BLOCKED,
        "copy": COPYING,
        "card": CARD,
        "text": INK,
    }.items():
        assert f"--{name}: light-dark({pair.light}, {pair.dark});" in sheet


def test_numbers_as_a_person_reads_them() -> None:
    assert [duration(s) for s in (4.21, 200, 7500, 273600)] == ["4.2 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"]
    assert [size_of(b) for b in (12, 2048, 5.1e8, 3.2e10)] == ["12 B", "2 KiB", "486 MiB", "29.8 GiB"]
    assert [plain(v) for v in (0.12345, 12345.6, math.nan)] == ["0.1235", "12,346", "–"]
    assert [plain(v) for v in (5.32, 0.0, 1234.5, -1e30, 7.0)] == ["5.320", "0", "1234", "-1.000e+30", "7"]
    assert [percent(v) for v in (0.1234, math.nan)] == ["12.3", "–"]
    assert [date_of(math.nan), date_of(1e30), duration(-1), size_of(math.nan)] == ["–"] * 4


def test_a_report_says_how_many_steps_its_figures_leave_out() -> None:
    whole, thin = (read_series((line(step) for step in range(40)), most=most) for most in (1000, 8))
    assert not any("each figure shows" in note for note in _about(whole))
    notes = _about(thin)
    assert "of 40 steps, each figure shows one of 8; images and times are those of all" in notes


@pytest.mark.parametrize("stages", [None, 7, [{}], [None], [{"stage": "x", "flops_per_second": 1.0}]])
def test_utilisation_is_in_the_table_where_a_run_has_measured_it(stages: Any) -> None:
    assert _utilisation({"stages": stages}) == {}
    known = {"stage": 1, "flops_per_second": 2.5e12, "mfu": 0.25}
    assert _utilisation({"stages": [known, {"stage": 2}]}) == {1: (2.5, 0.25)}


@pytest.mark.parametrize(
    ("before", "after"), [(None, [{}]), ([{}], None), ([{}], [{}, {}]), ([], []), ([1], [{}]), ([{}], ["x"])]
)
def test_a_report_without_scores_of_every_block_has_no_table_of_them(before: object, after: object) -> None:
    assert probe_table({"untrained": before, "trained": after}) is None
