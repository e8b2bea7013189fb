"""The files of an evaluation: CSV that any program reads back exactly, and Markdown with every table."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from launch.results.evaluation_plots import write_plots
from launch.results.result_files import COLUMNS, write_csv, write_markdown
from pipeline.errors import UserError
from pipeline.evaluation.document import Record
from tests.launch.commands.evaluations import DATA, document, full


def test_the_csv_gives_back_every_record_exactly(tmp_path: Path) -> None:
    evil = 'a,"b"\nc'
    results = [
        Record(DATA, 1, "trunk", "linear/quick", "top1", value=1 / 3, best=0.1 + 0.2),
        Record(evil, 2, "projector", "quality", "lidar", value=1e-300),
    ]
    write_csv(document(results, checkpoint=30), tmp_path / "new" / "x.csv")
    data = (tmp_path / "new" / "x.csv").read_bytes()
    assert data.startswith(b"run,checkpoint,data,block,feature,measure,metric,value,best,standard_error\r\n")
    with (tmp_path / "new" / "x.csv").open(newline="", encoding="utf-8") as file:
        head, *lines = list(csv.reader(file))
    assert tuple(head) == COLUMNS
    read = [
        Record(d, int(block), feature, measure, metric, value=float(value), best=float(best) if best else None)  # type: ignore[arg-type]
        for _, _, d, block, feature, measure, metric, value, best, _ in lines
    ]
    assert read == results
    assert [line[-1] for line in lines] == [str(math.sqrt(1 / 3 * (1 - 1 / 3) / 2000)), ""]
    assert [line[:2] for line in lines] == [["runs/a", "30"]] * 2


def test_the_csv_of_the_trained_network_has_no_checkpoint(tmp_path: Path) -> None:
    write_csv(full(), tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_bytes().split(b"\r\n")
    assert lines[1].startswith(b"runs/a,,fashion_mnist_10k,1,trunk,linear/quick,top1,")
    assert len(lines) == len(full().results) + 2


def test_the_markdown_has_every_table_and_every_corruption(tmp_path: Path) -> None:
    write_markdown(full(), tmp_path / "x.md")
    text = (tmp_path / "x.md").read_text(encoding="utf-8")
    assert text.startswith("# Evaluation of `a`\n")
    assert text.count("\n|---") == 8
    assert "| jpeg compression |" in text
    assert "LiDAR, RankMe: effective dimensions" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} == {3 + 13, 3 + 5, 3 + 3}


@pytest.mark.parametrize("write", [write_csv, write_markdown])
@pytest.mark.parametrize("place", ["file/x", "\0", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, write: object, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot be written \(.+\)\. Give a place in which you may write$"):
        write(full(), tmp_path / place)  # type: ignore[operator]


def test_a_folder_for_figures_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"accuracy-fashion_mnist_10k\.png' cannot be written"):
        write_plots(full(1), tmp_path / "file")


def test_an_earlier_file_is_replaced_and_no_other_is_left(tmp_path: Path) -> None:
    for evaluation in (full(4), full(1)):
        write_markdown(evaluation, tmp_path / "x.md")
        write_csv(evaluation, tmp_path / "x.csv")
    assert "| 2 |" not in (tmp_path / "x.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.md"]
