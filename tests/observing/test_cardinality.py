"""How many time series a run exports: as many as the page about metrics says, whatever its processes send."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.measures.online import Measure
from tests.observing.recorders import facts, report
from tests.runs import ROOT
from workers.control.feed_report import PARTS, FeedMeasures
from workers.control.step_report import ThrottleReason
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.catalogue import MAX_TERMS, SIZES, series
from workers.observing.metrics import RunMetrics
from workers.observing.observer import RunFacts

QUICKSTART = {
    "terms": {"on_diagonal": 1.0, "off_diagonal": 1.0},
    "memory_bytes": 1,
    "gradient_norm": 1.0,
    "update_norm": 1.0,
}
MOST: dict[str, Any] = {
    **QUICKSTART, "terms": {f"term {number}": 1.0 for number in range(100)}, "cuda_bytes": 1, "cuda_peak_bytes": 1,
    "peak_flops": 1.0, "throttled": [*get_args(ThrottleReason)], "online": dict.fromkeys(get_args(Measure), 1.0),
}  # fmt: skip


def of_stages(path: Path, stages: int) -> RunFacts:
    """Of a Vision Transformer with a stage for each layer."""
    cuts = [f"encoder.layers.encoder_layer_{layer}" for layer in range(stages - 1)]
    size = {"num_layers": stages, "hidden_dim": 8, "num_heads": 1, "mlp_dim": 8, "patch_size": 8}
    made = facts(path, 6, model={"backbone": "vit_b_16", **size, "cuts": cuts})
    return RunFacts(**{**vars(made), "stages": stages})


def exported(path: Path, stages: int, most: bool, steps: int = 3) -> int:
    """Samples of a registry that is filled as by a run of so many stages."""
    metrics = RunMetrics(ActiveAlarms())
    metrics.run_started(of_stages(path, stages))
    for step in range(steps):
        for stage in range(1, stages + 1):
            made = report(stage, step, **(MOST if most else QUICKSTART))
            metrics.stage_report(made, 1000.0 + step)
            metrics.add(stage, dict.fromkeys(vars(made), 0.0))
            if most:
                metrics.snapshot_written(stage, 0.5)
        feed = dict.fromkeys(("wait_seconds", "images", "restarts", "skipped", *PARTS), 1.0)
        metrics.feed_measured(FeedMeasures(), feed)
        line = {"step": step, "epoch": 0, "images": 64, "images_per_second": 1.0, "eta_seconds": 1.0, "stages": []}
        metrics.step_done(line)
    return sum(len(family.samples) for family in metrics.registry.collect())


@pytest.mark.parametrize("most", [False, True], ids=["like quickstart", "with everything"])
@pytest.mark.parametrize("stages", [2, *(pytest.param(n, marks=pytest.mark.long) if n > 16 else n for n in SIZES)])
def test_a_run_exports_as_many_as_the_catalogue_counts(tmp_path: Path, stages: int, most: bool) -> None:
    assert exported(tmp_path / "run", stages, most) == series(stages, most)
    assert exported(tmp_path / "run", stages, most, steps=5) == series(stages, most), "steps add none"


def test_the_page_says_so() -> None:
    page = (ROOT / "deploy" / "metrics.md").read_text(encoding="utf-8")
    for name, most in (("like `quickstart`", False), ("with everything", True)):
        (row,) = re.findall(rf"^\| {name}[^|]*\| (.*) \|$", page, re.M)
        assert [int(cell.replace(",", "")) for cell in row.split(" | ")] == [series(count, most) for count in SIZES]


def test_a_loss_that_names_a_new_term_at_every_step_adds_no_more_than_it_may(tmp_path: Path) -> None:
    metrics = RunMetrics(ActiveAlarms())
    for step in range(50):
        metrics.stage_report(report(1, step, loss=float(step), terms={f"at step {step}" + "!" * 200: 1.0}), 1000.0)
    (family,) = [family for family in metrics.registry.collect() if family.name == "onward_objective_loss"]
    found = {sample.labels["term"]: sample.value for sample in family.samples}
    assert len(found) == MAX_TERMS
    assert found["total"] == 49.0, "those that are exported go on"
    assert max(map(len, found)) == 80


def test_a_process_cannot_add_parts_of_the_feed(tmp_path: Path) -> None:
    metrics = RunMetrics(ActiveAlarms())
    totals = dict.fromkeys(("wait_seconds", "images", "restarts", "skipped"), 0.0)
    metrics.feed_measured(FeedMeasures(seconds={f"part {number}": 1.0 for number in range(99)}), totals)
    (family,) = [family for family in metrics.registry.collect() if family.name == "onward_feed_seconds"]
    assert {sample.labels["part"] for sample in family.samples} == {*PARTS}
