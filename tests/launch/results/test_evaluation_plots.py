"""Figures of an evaluation: the numbers they draw, that nothing covers anything, and the same bytes each time."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import launch.results.comparison_plots
import launch.results.evaluation_plots
from launch.results.comparison_plots import write_comparison
from launch.results.comparison_tables import compare_documents
from launch.results.evaluation_plots import write_plots
from launch.results.figure_style import PALETTE, block_colours, named_blocks, series_style
from pipeline.config.evaluation import EvaluationConfig
from pipeline.evaluation.document import EvaluationResults, Record
from tests.launch.commands.evaluations import DATA, document, full

pytestmark = pytest.mark.long


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Every figure that is written while the test runs, by its name; none of them reaches the disk."""
    found: dict[str, Figure] = {}

    def save(figure: Figure, _folder: Path, *parts: str) -> list[Path]:
        figure.draw_without_rendering()  # makes the layout
        found["-".join(parts)] = figure
        return []

    monkeypatch.setattr(launch.results.evaluation_plots, "save", save)
    monkeypatch.setattr(launch.results.comparison_plots, "save", save)
    return found


def lines(figure: Figure, axes: int) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[axes].get_lines()]


def spectra_of(spectra: dict[str, list[float]], *records: Record) -> EvaluationResults:
    return document(records, spectra=spectra)


def test_accuracy_is_drawn_by_block_for_every_measure_and_feature(figures: dict[str, Figure]) -> None:
    records = [
        Record(DATA, 2, "trunk", "linear/quick", "top1", value=0.5, best=0.9),
        Record(DATA, 1, "trunk", "linear/quick", "top1", value=0.25),
        Record(DATA, 1, "trunk", "linear/quick", "top5", value=1.0),
        Record(DATA, 1, "expansion", "linear/quick", "top1", value=0.75),
        Record(DATA, 1, "trunk", "knn/20", "top1", value=0.125),
    ]
    write_plots(document(records), Path())
    assert list(figures) == [f"accuracy-{DATA}"]
    figure = figures[f"accuracy-{DATA}"]
    assert [axes.get_title() for axes in figure.axes] == ["trunk", "expansion"]
    assert lines(figure, 0) == [([1, 2], [25.0, 50.0]), ([1], [12.5])]
    assert lines(figure, 1)[0] == ([1], [75.0])
    assert figure.axes[0].get_ylabel() == "top-1 accuracy, %"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["linear quick", "k-NN, k = 20"]


def test_spectra_are_shares_of_the_largest_with_the_power_law_that_was_fitted(figures: dict[str, Figure]) -> None:
    spectrum = [8.0 * j**-1.5 for j in range(1, 201)]
    write_plots(spectra_of({"3.trunk": spectrum}, Record(DATA, 3, "trunk", "quality", "alpha", value=1.5)), Path())
    (axes,) = figures["spectra"].axes
    (curve, fit) = lines(figures["spectra"], 0)
    assert curve[0] == list(range(1, 201))
    np.testing.assert_allclose(curve[1], np.asarray(spectrum) / 8.0)
    assert (fit[0][0], fit[0][-1]) == (6, 100)  # the default of evaluation.quality.ranks
    np.testing.assert_allclose(fit[1], [j**-1.5 for j in range(6, 101)])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    span = axes.patches[0].get_window_extent()
    assert axes.transData.inverted().transform([[span.x0, 1], [span.x1, 1]])[:, 0] == pytest.approx([6, 100], rel=0.01)


@pytest.mark.parametrize(
    ("spectrum", "drawn"),
    [([], 0), ([0.0, 0.0], 0), ([2.0], 1), ([1.0, 0.5, 1e-30, 0.0], 2), ([1.0, 0.5, -1e-12], 2), ([1e-320, 1e-320], 2)],
)
def test_what_rounding_left_of_nothing_is_not_drawn(
    spectrum: list[float], drawn: int, figures: dict[str, Figure]
) -> None:
    write_plots(spectra_of({"1.trunk": spectrum}, Record(DATA, 1, "trunk", "quality", "alpha", value=1.0)), Path())
    assert (len(lines(figures["spectra"], 0)[0][0]) if figures else 0) == drawn


@pytest.mark.parametrize("ranks", [None, [6], "x", [0, 5], [300, 400]])
def test_spectra_without_usable_ranks_are_drawn_without_a_fit(ranks: Any, figures: dict[str, Figure]) -> None:
    config = EvaluationConfig().model_dump(mode="json") | {"quality": {"ranks": ranks}}
    record = Record(DATA, 1, "trunk", "quality", "alpha", value=1.0)
    write_plots(document([record], spectra={"1.trunk": [1.0, 0.5]}, config=config), Path())
    assert len(lines(figures["spectra"], 0)) == 1


def test_corruptions_are_means_over_a_family(figures: dict[str, Figure]) -> None:
    records = [
        Record(DATA, block, "trunk", f"corruption/{name}/{severity}", "error", value=value + block / 8)
        for block in (1, 2)
        for name, value in (("shot_noise", 0.25), ("speckle_noise", 0.5), ("fog", 0.125), ("unheard_of", 0.0))
        for severity in (1, 5)
    ]
    records.append(Record(DATA, 1, "trunk", "corruption/shot_noise", "error", value=0.9))
    records.append(Record(DATA, 2, "trunk", "corruption/clean", "error", value=0.125))
    write_plots(document(records), Path())
    figure = figures[f"corruptions-{DATA}-trunk"]
    assert [a.get_title() for a in figure.axes[:3]] == ["noise, mean of 2", "weather, mean of 1", "other, mean of 1"]
    assert lines(figure, 0) == [([1, 5], [50.0, 50.0]), ([0, 1, 5], [12.5, 62.5, 62.5])]
    assert lines(figure, 1) == [([1, 5], [25.0, 25.0]), ([0, 1, 5], [12.5, 37.5, 37.5])]
    assert (figure.axes[0].get_ylabel(), figure.axes[1].get_ylabel(), figure.axes[2].get_xlabel()) == (
        "error, %", "", "severity (0: clean)",
    )  # fmt: skip


def test_a_comparison_draws_the_mean_and_the_spread_of_every_group(figures: dict[str, Figure]) -> None:
    def one(value: float) -> EvaluationResults:
        return document([Record(DATA, 1, "trunk", "linear/quick", "top1", value=value)])

    rows = compare_documents([[one(0.25), one(0.75)], [one(0.5)]])
    write_comparison(rows, ["A: a", "B: b"], Path())
    figure = figures[f"compare-{DATA}-accuracy-trunk"]
    first, second = figure.axes[0].containers
    (segment,) = first.lines[2][0].get_segments()
    assert segment[:, 1] == pytest.approx([50 - 35.35533906, 50 + 35.35533906])
    assert first.lines[0].get_ydata() == [50.0]
    assert second.lines[0].get_ydata() == [50.0]
    assert second.lines[2] == ()
    assert first.lines[0].get_xdata() != second.lines[0].get_xdata()


def assert_readable(figure: Figure) -> None:
    """Axes with their titles and labels, legends and headings lie on the page, and apart; so do numbers on an axis."""
    page = figure.bbox
    parts = [axes.get_tightbbox() for axes in figure.axes if axes.axison]
    parts += [each.get_window_extent() for each in (*figure.legends, *figure.texts)]
    for part in parts:
        assert part.x0 >= page.x0 - 1
        assert part.y0 >= page.y0 - 1
        assert part.x1 <= page.x1 + 1
        assert part.y1 <= page.y1 + 1
    assert not any(one.shrunk(0.999, 0.999).overlaps(other) for one, other in combinations(parts, 2))
    assert min(axes.get_window_extent().height for axes in figure.axes) > 150
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        inside = [box for box in boxes if axes.bbox.x0 - 20 < box.x0 < axes.bbox.x1]
        assert not any(one.overlaps(other) for one, other in combinations(inside, 2))


@pytest.mark.parametrize("blocks", [4, *(pytest.param(blocks, marks=pytest.mark.slow) for blocks in (1, 17))])
def test_nothing_covers_anything_and_nothing_is_cut_off(blocks: int, figures: dict[str, Figure]) -> None:
    evaluation = full(blocks)
    write_plots(replace(evaluation, results=[r for r in evaluation.results if r.data == DATA]), Path())
    assert len(figures) == 4
    for figure in figures.values():
        assert_readable(figure)


def test_a_comparison_with_long_names_is_as_readable(figures: dict[str, Figure]) -> None:
    names = ["linear/quick", "corruption/gaussian_noise/5", "corruption/jpeg_compression/5", f"new/{'x' * 190}"]
    records = [Record("d" * 200, b, "trunk", name, "error", value=0.1 * b) for b in range(1, 18) for name in names]
    groups = [[document(records)] for _ in range(9)]
    write_comparison(compare_documents(groups), [f"{letter}: {'a run ' * 6}" for letter in "ABCDEFGHI"], Path())
    (figure,) = figures.values()
    assert_readable(figure)


def test_files_are_the_same_bytes_each_time_whatever_the_users_settings_are(tmp_path: Path) -> None:
    record = Record(DATA, 1, "trunk", "linear/quick", "top1", value=0.5)
    evaluation = document([record], spectra={"1.trunk": [1.0, 0.5, 0.25]})
    first = write_plots(evaluation, tmp_path / "first")
    with mpl.rc_context({"font.size": 30.0, "svg.hashsalt": "mine", "lines.linewidth": 9.0}):
        second = write_plots(evaluation, tmp_path / "second")
        assert mpl.rcParams["font.size"] == 30.0
    assert [path.name for path in first] == [path.name for path in second]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(first, second, strict=True))
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(path.name for path in first)
    assert [path.name for path in first] == [
        f"accuracy-{DATA}.png", f"accuracy-{DATA}.svg", "spectra.png", "spectra.svg",
    ]  # fmt: skip
    with Image.open(first[0]) as image:
        assert image.size[0] == 7 * 150
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    assert b"<dc:date>" not in first[1].read_bytes()


def test_no_name_leads_out_of_the_folder_or_is_a_formula_or_hides_another(tmp_path: Path) -> None:
    record = Record("x" * 200, 1, "trunk", "linear/quick", "top1", value=0.5)
    rows = compare_documents([[document([record, replace(record, feature="projector")])]])
    assert len(set(write_comparison(rows, ["A"], tmp_path / "long"))) == 4
    record = Record(r"../../$\bad{$ y", 1, "trunk", r"new/$\frac{$", "top1", value=0.5)
    written = write_plots(document([record]), tmp_path / "plots")
    assert [path.name for path in written] == ["accuracy-bad-y.png", "accuracy-bad-y.svg"]
    assert all(path.resolve().parent == tmp_path / "plots" for path in written)


def test_figures_of_an_earlier_evaluation_do_not_stay(tmp_path: Path) -> None:
    for name in ("corruptions-x-trunk.svg", "spectra.png", "spectra.csv", "results.md", "my-accuracy-x.png"):
        (tmp_path / name).write_text("")
    record = Record("x", 1, "trunk", "linear/quick", "top1", value=0.5)
    write_plots(document([record]), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "accuracy-x.png", "accuracy-x.svg", "my-accuracy-x.png", "results.md", "spectra.csv",
    ]  # fmt: skip


def test_nothing_measured_draws_nothing(tmp_path: Path) -> None:
    assert write_plots(document([]), tmp_path / "plots") == []
    assert not (tmp_path / "plots").exists()


def test_styles_tell_lines_apart() -> None:
    styles = [(series_style(index)["color"], series_style(index)["marker"]) for index in range(49)]
    assert len(set(styles)) == 49
    assert {colour for colour, _ in styles[:7]} == set(PALETTE)
    light = [np.dot(colour[:3], (0.299, 0.587, 0.114)) for colour in block_colours(range(1, 18)).values()]
    assert light == sorted(light)
    assert len({to_hex(colour) for colour in block_colours([1, 2, 3, 4]).values()}) == 4
    assert named_blocks(block_colours(range(1, 18))) == [1, 3, 6, 8, 10, 12, 15, 17]
    assert named_blocks(block_colours([3, 1])) == [1, 3]
