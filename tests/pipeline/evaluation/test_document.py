"""`evaluation.json`: it reads back to what was written, and what is damaged is refused with its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.places import Place
from pipeline.errors import UserError
from pipeline.evaluation.document import DataInfo, EvaluationResults, Record

DOCUMENT = EvaluationResults(
    run="runs/one",
    checkpoint=None,
    config={"seed": 0, "knn": {"k": [20]}},
    run_config_digest="ab" * 32,
    seed=0,
    versions={"python": "3.11"},
    data=DataInfo("mnist", 60000, 10000, 10),
    created="2026-01-01T00:00:00+00:00",
    results=[
        Record("mnist", 2, "trunk", "linear/blockwise", "top1", 0.78, 0.79),
        Record("mnist", 1, "projector", "quality", "lidar", 31.5),
    ],
    spectra={"2.trunk": [3.0, 1.5e-7]},
    corruptions={"mce": 0.5},
)


def text(**changes: Any) -> str:
    return json.dumps(DOCUMENT.to_json() | changes)


def test_a_document_reads_back_to_what_was_written(tmp_path: Path) -> None:
    values = json.loads(text())
    assert values["format"] == "onward-evaluation-1"
    assert "best" not in values["results"][1]
    assert values["results"][0]["best"] == 0.79
    (tmp_path / "evaluation.json").write_text(text())
    assert EvaluationResults.read(tmp_path / "evaluation.json") == DOCUMENT
    assert DOCUMENT.results[0].place == Place(2, "trunk")
    assert DOCUMENT.results[0].place.key == "2.trunk"


def record(**changes: Any) -> list[dict[str, Any]]:
    return [{**DOCUMENT.to_json()["results"][0], **changes}]


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "'x' is no evaluation"),
        ("[]", "'format' is not 'onward-evaluation-1'"),
        (text(format="onward-evaluation-2"), "'format' is not 'onward-evaluation-1'"),
        (text(results=record(block=0)), "results.0.block"),
        (text(results=record(feature="stem")), "results.0.feature"),
        (text(results=record(value="high")), "results.0.value"),
        (text(results=record(value=float("nan"))), "results.0.value"),
        (text(results=record(extra=1)), "results.0.extra"),
        (text(run_config_digest="short"), "run_config_digest"),
        (text(spectra={"trunk": [1.0]}), "spectra"),
        (text(checkpoint=0), "checkpoint"),
        (text(more=1), "more"),
    ],
)
def test_what_is_no_evaluation_is_refused(damaged: str, message: str) -> None:
    with pytest.raises(UserError, match=r"^'x' is no evaluation") as refused:
        EvaluationResults.from_json(damaged, "x")
    assert message in str(refused.value)
    assert str(refused.value).endswith("Run 'onward evaluate RUN' again")
    assert "\n" not in str(refused.value)


def test_a_missing_document_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    with pytest.raises(
        UserError, match=r"evaluation\.json' cannot be read \(No such file.*\)\. Run 'onward evaluate RUN' first"
    ):
        EvaluationResults.read(path)


@pytest.mark.parametrize(
    ("value", "best", "finite"),
    [(0.5, None, True), (float("nan"), None, False), (0.5, float("inf"), False), (float("-inf"), 1.0, False)],
)
def test_numbers_that_json_has_not_are_known(value: float, best: float | None, finite: bool) -> None:
    assert Record("mnist", 1, "trunk", "quality", "alpha", value, best).finite == finite
