"""Reading `metrics.jsonl`: half a last line is left out, and any other damage is named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from tests.observing.recorders import read_steps
from workers.observing.history_file import read_events

GOOD = {"step": 0, "time": 1.5, "stages": [{"stage": 1}]}
READ = {**GOOD, "added": {}, "stages": [{"stage": 1, "added": {}}]}
"""The same line as a reader has it."""


def of(folder: Path, *lines: str) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"step": -1}, "no valid 'step'"),
        ({"step": 1.0}, "no valid 'step'"),
        ({"step": True}, "no valid 'step'"),
        ({"time": True}, "no valid 'time'"),
        ({"time": "now"}, "no valid 'time'"),
        ({"time": float("inf")}, "no valid 'time'"),
        ({"stages": {}}, "no valid 'stages'"),
        ({"stages": [1]}, "no valid 'stages'"),
        ({"stages": [{"stage": "1"}]}, "no valid 'stages'"),
        ({"stages": [{}]}, "no valid 'stages'"),
    ],
)
def test_a_line_that_no_run_writes_is_named(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = of(tmp_path, json.dumps(GOOD) + "\n", json.dumps(GOOD | changes) + "\n", json.dumps(GOOD) + "\n")
    with pytest.raises(UserError, match=rf"line 2: not what a run writes \({why}\)\. Remove the line"):
        read_steps(path)


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1: not what a run writes \(not a JSON object\)"):
        read_steps(of(tmp_path, "[1, 2]\n"))


def test_a_last_line_that_is_still_being_written_is_left_out_and_said(tmp_path: Path) -> None:
    path = of(tmp_path, json.dumps(GOOD) + "\n", '{"step": 1, "ti')
    assert read_steps(path) == ([READ], ["the last line of metrics.jsonl, number 2, is cut short and left out"])


def test_a_run_without_steps_and_one_without_events(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist\. Give the folder of a run that has trained a step"):
        read_steps(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"cannot be read \(it is no ordinary file\)\. Give the folder of a run"):
        read_steps(tmp_path)
    assert read_events(tmp_path / "events.jsonl") == ([], [])
