"""`onward compare` of runs that were not evaluated, by the probes at their end; what the columns are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation.document import EvaluationResults, Record
from tests.launch.commands.evaluations import DATA, document, write_run
from workers.run.files import write_json

Onward = Callable[..., Any]


def one(value: float, measure: str = "linear/quick", **changes: Any) -> EvaluationResults:
    return document([Record(DATA, 1, "trunk", measure, "top1", value=value)], **changes)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: two seeds of `a`, evaluated."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for seed, value in enumerate((0.50, 0.56), 1):
        write_run(tmp_path / f"a{seed}", one(value), f"seed={seed}", "optimizer.lr=0.2")
    return tmp_path


def test_the_probes_that_a_run_ended_with_are_compared_where_it_was_not_evaluated(runs: Path, onward: Onward) -> None:
    for seed, value in enumerate((0.70, 0.76), 1):
        run = write_run(runs / f"c{seed}", None, f"seed={seed}", "optimizer.lr=0.4")
        row = {"block": 1, "trunk": value, "expansion": None}
        report = {"trained": [row, {"damaged": 3}], "probe_images": {"train": 8000, "test": 2000}}
        write_json(run / "report.json", report)
    outcome = onward("compare", "a1", "a2", "c1", "c2", "--csv", "x.csv")
    assert (outcome.code, outcome.err) == (0, "")
    assert "warning" not in outcome.out, "what the report does not say is no difference"
    row = next(line for line in outcome.out.splitlines() if "trunk" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][2:] == ["53.0 ± 4.2", "73.0 ± 4.2", "+20.0 ± 4.2"]
    alone = onward("compare", "c1", "a1").out
    assert "no spread over seeds is known  ·  one standard error on 2000 test images is 1.0 to 1.1" in alone
    write_json(runs / "c1" / "evaluation.json", one(0.1, "knn/5").to_json())
    both = onward("compare", "c1", "a1").out
    assert "70.0" in both, "an evaluation without the quick probe does not hide that of the run's end"
    write_json(runs / "c1" / "evaluation.json", one(0.4, checkpoint=30).to_json())
    assert "70.0" in onward("compare", "c1", "a1").out, "nor does that of a snapshot"


def test_columns_are_named_by_what_differs_and_else_by_the_run(runs: Path, onward: Onward) -> None:
    for number, kind in enumerate(("vicreg", "simclr")):
        write_run(runs / kind, one(0.5 + number / 10), f"objective.kind={kind}", "noise.kind=all", f"seed={number}")
    write_run(runs / "again", one(0.5), "objective.kind=vicreg", "noise.kind=all", "seed=0")
    outcome = onward("compare", "vicreg", "simclr", "again", "a1", "--markdown", "x.md")
    assert "B differs from A: objective.kind is 'vicreg' there, 'simclr' here\n" in outcome.out, outcome.err
    tables = [line for line in (runs / "x.md").read_text().splitlines() if line.startswith("| feature")]
    assert [cell.strip() for cell in tables[0].strip("|").split("|")][2:] == [
        "A objective.kind=vicreg vicreg", "B objective.kind=simclr", "B − A",
        "C objective.kind=vicreg again", "C objective.kind=vicreg − A", "D objective.kind=barlow_twins", "D − A",
    ]  # fmt: skip
