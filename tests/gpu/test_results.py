"""Rows are kept, taken up again and judged; one that fails stops no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.command import measure, print_table
from tests.gpu.results import Results, Row, UnreadableFile, judged
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
