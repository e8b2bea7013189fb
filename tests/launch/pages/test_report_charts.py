"""What the figures of a report draw: numbers of the run, in the places where they belong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt

from launch.pages.charts import Picture, charts, short_count
from launch.pages.series import POINTS
from launch.results.figure_style import styled
from tests.launch.pages.reported import line
from tests.launch.pages.test_report_series import read_series


def pictures(steps: int) -> dict[str, Picture]:
    with styled():
        return {picture.key: picture for picture in charts(read_series(line(step) for step in range(steps)), 4, 2)}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_the_shares_of_a_stage_lie_side_by_side_and_fill_its_bar() -> None:
    (axes,) = pictures(40)["time"].figure.axes
    kinds = [container.patches for container in axes.containers]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stage 1", "stage 2", "stage 3", "stage 4"]
    for stage in range(4):
        parts = [kind[stage] for kind in kinds]
        spent = (0.3, 0.05 * (stage + 1), 0.1, 0.05)
        expected = [100 * seconds / sum(spent) for seconds in spent]
        assert [part.get_width() for part in parts] == pytest.approx(expected)
        ends = np.cumsum([0.0, *expected])
        assert [part.get_x() for part in parts] == pytest.approx(ends[:4].tolist(), abs=1e-9)
        assert ends[4] == pytest.approx(100.0)


def test_the_bound_and_the_prediction_are_drawn_where_they_are_known() -> None:
    limits = {"bound_images_per_second": 900.0, "predicted_images_per_second": 800.0}
    with styled():
        found = charts(read_series(line(step, **(limits if step > 4 else {})) for step in range(12)), 4, 2)
        (axes,) = next(picture for picture in found if picture.key == "throughput").figure.axes
    measured, predicted, bound = axes.lines
    assert measured.get_ydata()[-1] == 511.0  # type: ignore[index]
    assert [[*curve.get_xdata()] for curve in (predicted, bound)] == [list(range(5, 12))] * 2  # type: ignore[misc]
    assert [{*curve.get_ydata()} for curve in (predicted, bound)] == [{800.0}, {900.0}]  # type: ignore[misc]
    assert axes.get_ylim()[1] > 900.0
    (alone,) = pictures(12)["throughput"].figure.axes
    assert len(alone.lines) == 1


def test_the_share_of_a_step_is_that_of_computing() -> None:
    (axes,) = pictures(12)["busy"].figure.axes
    for stage, drawn in enumerate(axes.lines[:4], 1):
        np.testing.assert_allclose(drawn.get_ydata(), 100 * 0.3 / (0.45 + 0.05 * stage))


@pytest.mark.parametrize(("steps", "apart"), [(1, 1), (6, 1), (12, 1), (24, 2), (60, 5)])
def test_marks_of_long_curves_stand_where_those_of_the_others_do_not(steps: int, apart: int) -> None:
    """Of four curves with a mark every five points those of two never lie on one point; of short ones each is shown."""
    axes = pictures(steps)["loss"].figure.axes[0]
    marks = [drawn.get_markevery() for drawn in axes.lines[:4]]
    assert marks == [(stage * apart // 4, apart) for stage in range(4)]
    assert apart < 4 or len(set(marks)) == 4


def test_a_curve_of_joined_steps_shows_their_extremes_unless_they_would_cover_it() -> None:
    """A queue goes up and down with every step; a loss falls."""
    short, long = pictures(60), pictures(2 * POINTS)
    assert len(long["loss"].figure.axes[0].collections) == 4
    assert len(short["loss"].figure.axes[0].collections) == 0
    assert len(short["queues"].figure.axes[0].collections) == len(long["queues"].figure.axes[0].collections) == 0


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12"), (999, "999"), (1000, "1k"), (4500, "4.5k"), (-4500, "-4.5k"), (1e6, "1M"), (0, "0")]
)
def test_numbers_of_steps_are_short(value: float, text: str) -> None:
    assert short_count(value) == text
