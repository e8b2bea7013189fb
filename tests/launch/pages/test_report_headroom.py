"""How far a run was from its limit, in its report: of the whole run once it has ended, of its last seconds before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.pages.page import page
from launch.pages.run_record import read_run
from tests.launch.pages.reported import Page, line, write_run
from workers.run.files import RunDir

LAST = {"bound_images_per_second": 900.0, "predicted_images_per_second": 800.0}
ENDED = {
    "images_per_second": 555.5,
    "bound": {
        "images_per_second": 1111.0, "share": 0.5, "stages": [2], "cause": "feed", "reason": "it waits for <images>",
    },
    "predicted": {"images_per_second": 600.0},
}  # fmt: skip

SENTENCE = "measured 556 images/s, predicted 600; stage 2 alone would allow 1,111 (50 %)"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = write_run(tmp_path / "run", steps=0)
    found.metrics.write_text("".join(json.dumps(line(step, **LAST)) + "\n" for step in range(3)))
    return found


def text(run: RunDir, report: dict[str, Any] | None) -> str:
    if report is not None:
        run.report.write_text(json.dumps(report))
    return Page(page(read_run(run.path), [])).text


def test_a_run_that_has_ended_says_what_it_reached_and_why_not_more(run: RunDir) -> None:
    said = text(run, ENDED)
    assert "600 images a second predicted" in said
    assert "1,111 images a second if the slowest process only computed" in said
    assert SENTENCE in said
    assert "it waits for <images>" in said, "as text"


def test_a_run_without_a_report_says_what_its_last_line_has(run: RunDir) -> None:
    said = text(run, None)
    assert "800 images a second predicted" in said
    assert "900 images a second if the slowest process only computed" in said


@pytest.mark.parametrize("report", [{"images": 1}, {"bound": 1, "predicted": []}, {"bound": {}, "predicted": {}}])
def test_a_report_of_an_earlier_version_says_nothing(run: RunDir, report: dict[str, Any]) -> None:
    said = text(run, report)
    assert "slowest process" not in said
    assert "would allow" not in said
