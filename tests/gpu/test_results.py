"""Rows are kept, taken up again and judged; one that fails stops no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.command import measure, print_table
from tests.gpu.peaks import peak_tflops
from tests.gpu.results import Results, Row, UnreadableFile, commit, judged
from tests.gpu.rows import all_rows
from tests.gpu.running import RowFailed
from tests.gpu.setting import Setting

SETTING = Setting("cpu", small=True)


def row(name: str, answer: Callable[[], dict[str, Any]], group: str | None = None, part: int = 1) -> Row:
    """One that is measured by calling `answer`."""
    return Row(name, part, "a test", lambda setting: answer(), lambda found, rows, setting: str(found["value"]), group)


class Clock:
    """Moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "folder" / "rows.json", "this machine")


def test_what_is_there_is_not_measured_again(results: Results) -> None:
    calls: list[str] = []

    def answer() -> dict[str, Any]:
        calls.append("a")
        return {"value": 1}

    for _ in range(2):
        measure(Results(results.path, "this machine"), [row("a", answer)], SETTING, 9.0, Clock())
    assert calls == ["a"]
    measure(Results(results.path, "another commit"), [row("a", answer)], SETTING, 9.0, Clock())
    assert calls == ["a", "a"]
    kept = json.loads(results.path.read_text())["measured"]
    assert kept["this machine"]["a"]["value"] == kept["another commit"]["a"]["value"] == 1


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RowFailed("no room"), "no room"),
        (ValueError("first line\nsecond"), "ValueError: first line"),
        (TimeoutError(), "TimeoutError: TimeoutError"),
    ],
)
def test_a_row_that_fails_says_why_stops_no_other_and_is_tried_again(
    results: Results, error: Exception, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [True]

    def answer() -> dict[str, Any]:
        if broken:
            raise error
        return {"value": 2}

    rows = [row("bad", answer), row("good", lambda: {"value": 1})]
    measure(results, rows, SETTING, 9.0, Clock())
    assert results.rows["bad"]["error"] == cause
    assert results.rows["good"]["value"] == 1
    assert judged(rows, results.rows) == [f"bad: {cause}"]
    print_table(rows, results, SETTING)
    assert f"FAILED: {cause}" in capsys.readouterr().out
    broken.clear()
    measure(results, rows, SETTING, 9.0, Clock())
    assert judged(rows, results.rows) == []


def test_no_row_is_begun_when_the_time_is_over(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()

    def slow() -> dict[str, Any]:
        clock.now += 6.0
        return {"value": 1}

    rows = [row(name, slow, part=part) for name, part in (("a", 1), ("b", 1), ("c", 2))]
    assert measure(results, rows, SETTING, 9.0, clock) == 1
    assert judged(rows, results.rows) == ["c: not measured"]
    print_table(rows, results, SETTING)
    assert "not measured yet (part 2/4)" in capsys.readouterr().out
    assert measure(results, rows, SETTING, 9.0, clock) == 0
    assert judged(rows, results.rows) == []


def test_digests_of_a_group_must_agree(results: Results) -> None:
    rows = [row(name, dict, group) for name, group in (("a", "bits"), ("b", "bits"), ("c", "others"))]
    measured = {"a": {"digests": ["1" * 64] * 2}, "b": {"digests": ["1" * 64]}, "c": {"digests": ["2" * 64]}}
    assert judged(rows, measured) == []
    measured["b"] = {"digests": ["3" * 64]}
    (wrong,) = judged(rows, measured)
    assert wrong == f"the digests of bits differ: {'1' * 12}: a, a; {'3' * 12}: b"


@pytest.mark.parametrize("content", ["", "[]", '{"measured": 3}', '{"rows": {}}', '{"measured": {"x": 3}}'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(UnreadableFile, match="not a file of results"):
        Results(path, "this machine")
    assert path.read_text() == content


def test_rows_have_names_of_their_own_and_four_parts() -> None:
    rows = all_rows()
    assert len({row.name for row in rows}) == len(rows)
    assert {row.part for row in rows} == {1, 2, 3, 4}


def test_the_peak_is_that_of_the_card_and_of_no_similar_one() -> None:
    known = {"NVIDIA H200": 989.5, "NVIDIA H100 PCIe": 756.5, "NVIDIA H100 80GB HBM3": 989.5, "NVIDIA L4": 121.0}
    known |= {"NVIDIA A100-SXM4-80GB": 312.0, "NVIDIA L40S": 362.0, "NVIDIA GeForce RTX 4090": 165.2}
    assert {name: peak_tflops(name) for name in known} == known
    assert peak_tflops("NVIDIA L40") is None
    assert peak_tflops("NVIDIA A1000") is None


@pytest.mark.processes
def test_without_git_the_files_stand_for_the_commit(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "a.py").write_text("1")
    before = commit(tmp_path)
    assert before.startswith("no commit with files ")
    assert commit(tmp_path) == before
    (tmp_path / "workers" / "a.py").write_text("2")
    assert commit(tmp_path) != before


def test_speed_is_shown_with_what_it_is_compared_with() -> None:
    h200 = Setting("cuda", small=False, gpus=("NVIDIA H200",) * 2, memory=140 * 2**30)
    rows = {
        "ResNet-50: FLOPs": {"blocks": [1e10] * 4, "blockwise": 4e10, "end_to_end": 2e10},
        "ResNet-50: plain loop": {"images_per_second": 1000.0, "batch": 256},
        "ResNet-50: serial": {"images_per_second": 900.0, "batch": 256, "processes": 1, "feed_wait_share": 0.25},
        "ResNet-50: four processes": {
            "images_per_second": 4000.0, "batch": 256, "processes": 4, "feed_wait_share": 0.0,
        },
    }  # fmt: skip
    shown = {row.name: row.show(rows[row.name], rows, h200) for row in all_rows() if row.name in rows}
    assert "0.90 of the plain loop, 36 TFLOP/s, MFU 3.6 %, waited 25 % for images" in shown["ResNet-50: serial"]
    assert "4.00 of the plain loop, 160 TFLOP/s, MFU 8.1 %" in shown["ResNet-50: four processes"]
    assert "blocks 10, 10, 10, 10, all 40; end to end 20" in shown["ResNet-50: FLOPs"]
    unknown = Setting("cuda", small=False, gpus=("Some GPU",), memory=140 * 2**30)
    (serial,) = (row for row in all_rows() if row.name == "ResNet-50: serial")
    assert "MFU unknown" in serial.show(rows[serial.name], rows, unknown)


def test_runs_share_the_only_gpu_and_take_more_where_there_are() -> None:
    one, two = (Setting("cuda", small=False, gpus=("NVIDIA L4",) * count, memory=22 * 2**30) for count in (1, 2))
    assert (one.of_runs, two.of_runs, SETTING.of_runs) == ("cuda:0", "auto", "cpu")
    assert (one.machine, two.machine) == ("1 x NVIDIA L4", "2 x NVIDIA L4")
    assert (one.batch, SETTING.batch) == (32, 8)
    assert Setting.from_message(two.to_message()) == two
