"""Tables of an evaluation: every number in its cell, readable in 80 columns and in a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as RichConsole

from launch.results.evaluation_tables import describe, grids_of, print_document
from launch.results.grid import Grid, markdown_of, without_repeats
from launch.results.measure_names import Quantity, clean, in_order, measure_words, quantity
from launch.results.printing import print_grid
from pipeline.evaluation.document import EvaluationResults, Record
from tests.launch.commands.evaluations import DATA, document, full
from workers.observing.terminal.console import Console


def printed(evaluation: EvaluationResults, width: int) -> str:
    file = io.StringIO()
    print_document(Console(RichConsole(file=file, width=width)), evaluation)
    return file.getvalue()


def test_every_number_is_in_its_cell() -> None:
    found = grids_of(
        document(
            [
                Record(DATA, 2, "trunk", "linear/blockwise", "top1", value=0.5, best=0.625),
                Record(DATA, 1, "trunk", "linear/blockwise", "top1", value=0.25, best=0.2502),
                Record(DATA, 1, "expansion", "linear/blockwise", "top1", value=0.75),
                Record(DATA, 1, "trunk", "knn/20", "top1", value=0.125),
                Record(DATA, 1, "trunk", "knn/20", "top5", value=1.0),
            ]
        )
    )
    best = "(best epoch on the test set in brackets)"
    assert found == [
        Grid(
            f"{DATA}: top-1 accuracy, % ± 0.7 to 1.1 {best}",
            (("block",), ("linear", "blockwise", "trunk"), ("linear", "blockwise", "expansion"),
             ("k-NN,", "k = 20", "trunk")),
            (("1", "25.0", "75.0", "12.5"), ("2", "50.0 (62.5)", "-", "-")),
        ),
        Grid(f"{DATA}: top-5 accuracy, % ± 0.0", (("block",), ("k-NN,", "k = 20", "trunk")), (("1", "100.0"),)),
    ]  # fmt: skip


def test_quality_has_a_row_a_feature_and_block_with_the_digits_that_mean_something() -> None:
    values = {"lidar": 123.456, "rankme": 98.76, "collapse": 0.022097, "alpha": 1.2345, "alpha_r2": 0.98765}
    records = [
        Record(DATA, block, feature, "quality", metric, value=value)
        for feature in ("projector", "trunk")
        for block in (2, 1)
        for metric, value in values.items()
    ]
    (grid,) = grids_of(document(records))
    assert [" ".join(words) for words in grid.head] == [
        "feature", "block", "LiDAR", "RankMe", "α", "R² of α", "collapse level",
    ]  # fmt: skip
    numbers = ("123.5", "98.8", "1.23", "0.988", "0.0221")
    assert grid.rows == (
        ("trunk", "1", *numbers), ("", "2", *numbers), ("projector", "1", *numbers), ("", "2", *numbers),
    )  # fmt: skip


def test_single_corruptions_are_a_detail() -> None:
    records = [
        Record(DATA, 1, "trunk", "corruption/shot_noise/3", "error", value=0.9),
        Record(DATA, 1, "trunk", "corruption/shot_noise", "error", value=0.5),
        Record(DATA, 1, "trunk", "corruption/shot_noise", "ce", value=0.8),
        Record(DATA, 1, "trunk", "corruption/clean", "error", value=0.25),
        Record(DATA, 1, "trunk", "corruption/mean", "error", value=0.4),
        Record(DATA, 1, "trunk", "corruption/mean", "mce", value=0.7),
        Record(DATA, 1, "trunk", "corruption/mean", "relative_mce", value=1.2),
    ]
    (short,) = grids_of(document(records))
    assert [" ".join(words) for words in short.head] == [
        "feature", "block", "clean error", "mean error", "mCE", "relative mCE",
    ]  # fmt: skip
    assert short.rows == (("trunk", "1", "25.0", "40.0", "70.0", "120.0"),)
    _, detailed = grids_of(document(records), details=True)
    assert detailed.rows == (("shot noise", "50.0"),)
    assert "mean over severities, %" in detailed.title


def test_each_data_set_has_its_own_tables() -> None:
    titles = [grid.title for grid in grids_of(full())]
    assert [title.split(":")[0] for title in titles] == [DATA] * 4 + ["cifar10"] * 2
    assert not any("cifar10" in title for title in [grid.title for grid in grids_of(full())][:4])


@pytest.mark.parametrize("width", [80, 100, 200])
def test_it_fits_the_terminal_and_loses_nothing(width: int) -> None:
    text = printed(full(), width)
    tables = [line for line in text.splitlines() if line[:1] in "┃│┏┡└├"]
    assert max(map(len, tables)) <= width
    assert "…" not in text
    for record in full().results:
        found = quantity(record)
        assert found.is_detail or found.show(record.value) in text, record
    assert text.count("73.6 (74.0)") == 1


def test_what_belongs_together_is_not_cut_apart() -> None:
    columns = tuple(("measure", name, feature) for name in "ab" for feature in ("trunk", "expansion"))
    grid = Grid("title", (("block",), *columns), (("1", "1.0", "2.0", "3.0", "4.0"),))
    file = io.StringIO()
    print_grid(Console(RichConsole(file=file, width=48)), grid)  # room for three of the four columns
    heads = [line for line in file.getvalue().splitlines() if "trunk" in line]
    assert len(heads) == 2
    assert all("expansion" in line for line in heads)
    assert "continued" not in file.getvalue()


def test_a_file_has_no_control_codes_and_no_markup_is_obeyed() -> None:
    evil = "[red]\x1b[2J\u202eset[/red]"
    text = printed(
        document([Record(evil, 1, "trunk", f"linear/{evil}", evil, value=1.0)], run=evil, versions={evil: evil}), 80
    )
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "[red]?[2J?set[/red]" in text


def test_nothing_measured_is_said() -> None:
    text = printed(document([]), 80)
    assert text.startswith("nothing was measured  ·  runs/a, the trained network")
    assert "the snapshot after 30 steps" in describe(document([], checkpoint=30))


def test_names_that_nobody_foresaw_are_shown_as_they_are() -> None:
    assert measure_words("few_labels/0.015/unfrozen") == ("1.5 % of", "labels", "unfrozen")
    assert measure_words("few_labels/many") == ("many % of", "labels")
    assert measure_words("new/thing") == ("new", "thing")
    assert measure_words("corruption/jpeg_compression/3") == ("jpeg compression", "severity 3")
    assert str(Quantity("new/thing", "width")) == "new thing width"
    assert Quantity("new/thing", "width").show(1.23456) == "1.235"
    assert Quantity("linear/quick", "top1").show(0.0123, sign=True) == "+1.2"
    assert clean("a\x07b\n") == "a?b?"
    order = in_order(
        [Quantity(name, "x") for name in ("new", "corruption/mean", "knn/5", "linear/b", "linear/a", "new")]
    )
    assert [found.measure for found in order] == ["linear/b", "linear/a", "knn/5", "corruption/mean", "new"]


def test_repeated_keys_are_blank_only_below_themselves() -> None:
    rows = [("a", "1", "x"), ("a", "1", "y"), ("b", "1", "y"), ("b", "2", "y")]
    assert without_repeats(rows, 2) == (("a", "1", "x"), ("", "", "y"), ("b", "1", "y"), ("", "2", "y"))


def test_markdown_survives_what_it_would_act_on() -> None:
    text = markdown_of(Grid("a|b *c* d_e", (("x|y",), ("two", "lines")), (("`1`", "[2]"),)))
    assert text.splitlines() == [
        "**a\\|b \\*c\\* d_e**", "", "| x\\|y | two lines |", "|---|---:|", "| \\`1\\` | \\[2] |",
    ]  # fmt: skip
